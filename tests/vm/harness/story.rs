//! Stories: tests that are told inside a guest, and the programs that hold them.
//!
//! A story is an ordinary test marked `#[ignore = "runs in a guest"]` in one of `PROGRAMS`. To add
//! one is to write it: whoever runs all stories finds it by the program's own list.

use std::{collections::BTreeMap, fmt, path::PathBuf, process::Command, sync::OnceLock};

use super::{initramfs, machine::Machine};
use crate::programs::{succeed, workspace};

/// Test targets whose ignored tests are stories: those of this crate, and those of the agent that
/// know its parts.
const PROGRAMS: [&str; 2] = ["vm_guest", "insertion"];

/// A bound for one story, so that a hang is a failure with a name. Not a measure of anything.
const BOUND_SECONDS: u32 = 20 * 60;

/// How lines about stories begin, after the harness's sign.
pub(super) const BEGINS: &str = "@@tidemark story ";
pub(super) const ENDS: &str = "@@tidemark told ";
/// How a story's part of the kernel's log begins.
pub(super) const KERNEL_MARK: &str = "tidemark story: ";

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Story {
    /// The program that holds it.
    pub program: String,
    /// Its test's name.
    pub name: String,
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.program, self.name)
    }
}

/// Every story there is.
pub fn all() -> Vec<Story> {
    let mut found = Vec::new();
    for (program, path) in programs() {
        let list = succeed(Command::new(path).args(["--ignored", "--list"]));
        found.extend(listed(&list).map(|name| Story {
            program: program.clone(),
            name: name.to_owned(),
        }));
    }
    found
}

/// Stories whose `PROGRAM NAME` begins with one of `prefixes`. Panics when a prefix has none: a
/// story that was renamed must not drop out unseen.
pub fn starting_with(prefixes: &[&str]) -> Vec<Story> {
    let all = all();
    for prefix in prefixes {
        assert!(
            all.iter().any(|story| begins(story, prefix)),
            "no story begins with {prefix:?}"
        );
    }
    let wanted = |story: &Story| prefixes.iter().any(|prefix| begins(story, prefix));
    all.into_iter().filter(wanted).collect()
}

fn begins(story: &Story, prefix: &str) -> bool {
    story.to_string().starts_with(prefix)
}

/// Names in a test program's list. A test called `child` is a process of other tests, what is in
/// `bench` asserts nothing, and what is in `power` and `write_log` is told from outside the guest.
fn listed(list: &str) -> impl Iterator<Item = &str> {
    list.lines()
        .filter_map(|line| line.strip_suffix(": test"))
        .filter(|name| name.rsplit("::").next() != Some("child"))
        .filter(|name| {
            !["bench::", "power::", "write_log::"]
                .iter()
                .any(|part| name.starts_with(part))
        })
}

/// What the guest runs: one story after the other until one fails. What comes after a failure is
/// for a new guest, for nobody knows what the failed one left behind.
pub fn script(stories: &[Story]) -> String {
    let mut script = format!(
        "tell() {{\n\
         echo '{BEGINS}'\"$1 $2\"\n\
         echo '<6>{KERNEL_MARK}'\"$1 $2\" >/dev/kmsg\n\
         timeout -s KILL {BOUND_SECONDS} \"$1\" --ignored --exact \"$2\" --nocapture\n\
         status=$?\n\
         echo\n\
         echo \"{ENDS}$status\"\n\
         [ $status = 0 ] || exit 1\n\
         }}\n"
    );
    for story in stories {
        script += &format!("tell '{}' '{}'\n", story.program, story.name);
    }
    script
}

/// A machine with the stories' programs on its PATH.
pub fn with_stories(machine: Machine) -> Machine {
    programs().iter().fold(machine, |machine, (name, path)| {
        machine.file(&format!("/usr/bin/{name}"), &initramfs::stripped(path))
    })
}

/// Programs with stories by name, built if they are not.
fn programs() -> &'static BTreeMap<String, PathBuf> {
    static FOUND: OnceLock<BTreeMap<String, PathBuf>> = OnceLock::new();
    FOUND.get_or_init(find_or_build)
}

fn find_or_build() -> BTreeMap<String, PathBuf> {
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
    let path_of = |name: &str| {
        let path = executable(&messages, name);
        path.unwrap_or_else(|| panic!("cargo built no test {name}"))
    };
    PROGRAMS
        .iter()
        .map(|name| ((*name).to_owned(), path_of(name)))
        .collect()
}

/// Where cargo says that it put a test.
fn executable(messages: &str, test: &str) -> Option<PathBuf> {
    let parsed = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut ours = parsed.filter(|message| {
        message["target"]["name"] == test && message["target"]["kind"][0] == "test"
    });
    ours.find_map(|message| message["executable"].as_str().map(PathBuf::from))
}

#[cfg(test)]
mod tests {
    use super::{Story, executable, listed, script};

    #[test]
    fn cargo_tells_where_a_test_is() {
        let messages = "{\"target\":{\"name\":\"vm\",\"kind\":[\"bin\"]},\"executable\":\"/t/vm\"}\n\
            {\"target\":{\"name\":\"vm\",\"kind\":[\"test\"]},\"executable\":\"/t/vm-1\"}\n";
        assert_eq!(executable(messages, "vm"), Some("/t/vm-1".into()));
        assert_eq!(executable(messages, "insertion"), None);
    }

    #[test]
    fn stories_are_listed_and_their_children_are_not() {
        let list = "bench::ratios: test\npower::first: test\ncrashes::child: test\ncycles::ext4: test\n\n2 tests, 0 benchmarks\n";
        assert_eq!(listed(list).collect::<Vec<_>>(), ["cycles::ext4"]);
    }

    #[test]
    fn the_script_names_each_story() {
        let story = Story {
            program: "vm_guest".into(),
            name: "kernel::offers".into(),
        };
        assert!(script(&[story]).ends_with("}\ntell 'vm_guest' 'kernel::offers'\n"));
    }
}
