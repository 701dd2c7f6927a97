//! Where the host's programs are.

use std::path::{Path, PathBuf};

/// A program beside this one, else in PATH.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let beside = std::env::current_exe()
        .ok()
        .and_then(|own| Some(own.parent()?.join(name)));
    beside
        .filter(|path| is_program(path))
        .or_else(|| find_in_path(name))
}

/// A program in PATH, or where administration programs live when PATH leaves that out.
pub(crate) fn find_in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path)
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_and_a_directory_is_none() {
        assert!(find_in_path("sh").is_some());
        assert!(find_in_path("no-such-program-at-all").is_none());
        assert!(!is_program(Path::new("/usr")));
    }
}
