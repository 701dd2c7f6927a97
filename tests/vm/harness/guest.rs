//! The program that holds the stories, and how it comes into a guest.

use std::{path::PathBuf, process::Command, sync::OnceLock};

use super::{initramfs, machine::Machine};
use crate::programs::{succeed, workspace};

/// The test target whose tests are the stories.
const TARGET: &str = "vm_guest";

/// A machine with the stories on its PATH.
pub fn with_stories(machine: Machine) -> Machine {
    machine.file("/usr/bin/vm_guest", &initramfs::stripped(&stories()))
}

/// The program with the stories, built if it is not.
pub fn stories() -> PathBuf {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(find_or_build).clone()
}

fn find_or_build() -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // As the Makefile builds: with other targets cargo would choose other features, and compile.
    let messages = succeed(
        Command::new(cargo)
            .args([
                "build",
                "--quiet",
                "--workspace",
                "--bins",
                "--tests",
                "--message-format=json",
            ])
            .current_dir(workspace()),
    );
    executable(&messages).unwrap_or_else(|| panic!("cargo built no {TARGET}"))
}

/// Where cargo says that it put the stories.
fn executable(messages: &str) -> Option<PathBuf> {
    let parsed = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut ours = parsed.filter(|message| message["target"]["name"] == TARGET);
    ours.find_map(|message| message["executable"].as_str().map(PathBuf::from))
}

#[cfg(test)]
mod tests {
    use super::executable;

    #[test]
    fn cargo_tells_where_the_stories_are() {
        let messages = "{\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"vm\"},\"executable\":\"/t/vm\"}\n\
            {\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"vm_guest\"},\"executable\":\"/t/vm_guest-1\"}\n";
        assert_eq!(executable(messages), Some("/t/vm_guest-1".into()));
        assert_eq!(executable(""), None);
    }
}
