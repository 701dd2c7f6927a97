//! Stories of a whole Debian: what an administrator does, over reboots, upgrades and power cuts.
//!
//! Each test is one machine; each of its boots has a script, in the words of
//! `harness/debian/words.sh` and of [`WORDS`]. CI tells what is not marked `ignore`; `make test-vm`
//! tells all. Logs of every boot stay in `target/vm/logs/debian`.

mod assembled;
mod failures;
mod plain;
mod scheduled;
mod upgraded;

use tidemark_tests::{
    packaged::Package,
    vm::debian::{Boot, System},
};

/// What the scripts of stories with Tidemark say besides.
const WORDS: &str = include_str!("words.sh");

/// A machine, and the package that comes along at each boot.
struct Host {
    system: System,
    package: Package,
}

impl Host {
    fn new(story: &'static str) -> Self {
        let package = Package::under_test();
        let mut system = System::new(story);
        let tidemark = system.folder().join("tidemark.deb");
        std::fs::copy(package.path(), &tidemark).expect("a package can be copied");
        system.with(&tidemark);
        Self { system, package }
    }

    fn boot(&mut self, what: &str, script: &str) -> Boot {
        self.system.boot(what, &with_words(script))
    }

    fn boot_allowing(
        &mut self,
        what: &str,
        script: &str,
        allowed: &[(&'static str, &'static str)],
    ) -> Boot {
        self.system
            .boot_allowing(what, &with_words(script), allowed)
    }

    fn cut(&mut self, what: &str, script: &str, line: &str) -> Boot {
        self.system.cut(what, &with_words(script), line)
    }
}

fn with_words(script: &str) -> String {
    format!("{WORDS}\n{script}\n")
}

/// The last number that a boot told of before it was cut.
fn last_number(boot: &Boot) -> u64 {
    let told = boot.console.lines().rev();
    // The last line may be cut in the middle.
    let mut numbers = told
        .skip(1)
        .filter_map(|line| line.strip_prefix("written "));
    let number = numbers.next().and_then(|number| number.parse().ok());
    number.expect("a boot that writes tells of numbers")
}
