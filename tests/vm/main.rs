//! Stories on Debian's kernels, in guests: what the host's own kernel cannot show.
//!
//! ```text
//! cargo test --workspace --test vm                    what CI has time for
//! TIDEMARK_VM=all cargo test --workspace --test vm    everything, as `make test-vm` does
//! TIDEMARK_VM='insertion guard' cargo test ...        stories whose PROGRAM NAME begins so
//! ```
//!
//! To add a story, write it in `guest/`; the table below and the end of its name say whether CI
//! tells it too. What goes on out here when a guest has ended is in `power.rs` and `write_log.rs`.
//!
//! Stories of a whole Debian are in `boot/`; those that CI has no time for are ignored tests:
//! `cargo test --test vm boot::assembled -- --include-ignored --nocapture` tells one of them.

mod boot;
mod power;
mod write_log;

use tidemark_tests::vm::{
    Family,
    story::{self, Story},
    telling::{self, AllowedIn},
};

/// What CI tells: each kind once, and of each cycle as little as shows that it turns.
const CI: [&str; 4] = [
    "vm_guest ",
    "insertion crashes::a_death_at_each_step",
    "insertion crashes::the_ledger",
    "insertion cycles::ext4_on_dm_crypt",
];

/// How the names of stories end that CI has no time for; most have a short one beside them.
const AT_LENGTH: &str = "_at_length";

/// What kernels may say, in which stories, and why that is no fault of ours.
///
/// Pages that are registered without copying: Linux 7.2 counts them after it has stored the first,
/// and its own bounds checker says so (io_uring/rsrc.c, "index 0 is out of range for type
/// 'bio_vec [*]'"). A warning of another kind has a line of its own, which is not allowed.
const ALLOWED: [AllowedIn; 1] = [(
    "vm_guest ",
    (
        "Call Trace:",
        "the kernel's bounds checker on registered pages",
    ),
)];

fn stories() -> Vec<Story> {
    match std::env::var("TIDEMARK_VM").as_deref() {
        Ok("all") => story::all(),
        Ok(prefix) if !prefix.is_empty() => story::starting_with(&[prefix]),
        _ => {
            let mut stories = story::starting_with(&CI);
            stories.retain(|story| !story.name.ends_with(AT_LENGTH));
            stories
        }
    }
}

#[test]
fn on_linux_6_12() {
    telling::tell(Family::V6_12, &stories(), &ALLOWED);
}

/// Or on the newest kernel that Debian has, when it has moved on.
#[test]
fn on_linux_7_2() {
    telling::tell(Family::V7_2, &stories(), &ALLOWED);
}
