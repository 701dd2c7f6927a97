//! UNIX sockets that a daemon listens on.

use std::{
    fs,
    io::{self, ErrorKind},
    os::unix::{
        fs::{PermissionsExt, chown},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

use nix::unistd::Gid;

/// Listens at `path`, for root and a group alone. A socket that is left over is replaced, one that is
/// answered is not: `AddrInUse`.
///
/// It is made under another name and moved into place when its mode is right, so nobody ever
/// finds it open to all.
pub fn listen(path: &Path, group: Option<Gid>) -> io::Result<UnixListener> {
    if UnixStream::connect(path).is_ok() {
        return Err(io::Error::new(
            ErrorKind::AddrInUse,
            "somebody else listens at it",
        ));
    }
    let new = with_suffix(path, ".new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&new)?;
    let mode = if group.is_some() { 0o660 } else { 0o600 };
    fs::set_permissions(&new, fs::Permissions::from_mode(mode))?;
    if let Some(group) = group {
        chown(&new, None, Some(group.as_raw()))?;
    }
    fs::rename(&new, path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_leftover_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        drop(UnixListener::bind(&path).unwrap());
        // Another test's child may hold a copy of the listener until it runs its program.
        let listener = loop {
            match listen(&path, None) {
                Err(error) if error.kind() == ErrorKind::AddrInUse => std::thread::yield_now(),
                listener => break listener.unwrap(),
            }
        };
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(
            listen(&path, None).unwrap_err().kind(),
            ErrorKind::AddrInUse
        );
        drop(listener);
        fs::remove_file(&path).unwrap();
        listen(&path, Some(Gid::current())).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o660);
    }
}
