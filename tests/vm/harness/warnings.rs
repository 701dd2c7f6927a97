//! What a kernel log must not hold.
//!
//! The list is of words that Debian's kernels print only when something is wrong. What emulation
//! alone causes is left out by name, each with its reason; a story that provokes an error allows
//! it for itself.

/// Signs of trouble.
const TROUBLE: [&str; 21] = [
    "WARNING:",
    "BUG:",
    "BUG ",
    "Oops",
    "general protection fault",
    "Kernel panic",
    "Call Trace",
    "blocked for more than",
    "soft lockup",
    "hard LOCKUP",
    "rcu_preempt detected",
    "rcu_sched detected",
    "possible circular locking",
    "inconsistent lock state",
    "refcount_t:",
    "I/O error",
    "Out of memory",
    "EXT4-fs error",
    "EXT4-fs warning",
    "XFS: Assertion",
    "XFS (",
];

/// Lines with a sign that mean nothing.
const HARMLESS: [(&str, &str); 8] = [
    ("XFS (", "Mounting V5 Filesystem"),
    ("XFS (", "Ending clean mount"),
    ("XFS (", "Unmounting Filesystem"),
    ("XFS (", "Starting recovery"),
    ("XFS (", "Ending recovery"),
    ("XFS (", "Quotacheck"),
    ("XFS (", "EXPERIMENTAL"),
    ("XFS (", "deprecated"),
];

/// What emulation causes, with the reason.
const EMULATION: [(&str, &str); 2] = [
    (
        "clocksource: timekeeping watchdog",
        "an emulated processor is not on time",
    ),
    (
        "rcu: INFO: rcu_preempt detected expedited stalls",
        "two emulated processors share those of a busy host",
    ),
];

/// What a story allows: words of a line, and why they are no fault of ours.
pub type Allowance = (&'static str, &'static str);

/// Lines of trouble in a kernel log, those allowed left out.
pub fn of(log: &str, allowed: &[Allowance]) -> Vec<String> {
    log.lines()
        .filter(|line| is_trouble(line))
        .filter(|line| {
            !EMULATION
                .iter()
                .chain(allowed)
                .any(|(words, _)| line.contains(words))
        })
        .map(str::to_owned)
        .collect()
}

fn is_trouble(line: &str) -> bool {
    let sign = TROUBLE.iter().find(|sign| line.contains(**sign));
    sign.is_some_and(|sign| {
        !HARMLESS
            .iter()
            .any(|(of, words)| of == sign && line.contains(words))
    })
}

#[cfg(test)]
mod tests {
    use super::of;

    const LOG: &str = "[    1.0] XFS (dm-1): Mounting V5 Filesystem 1b\n\
        [    2.0] WARNING: CPU: 0 PID: 1 at block/blk-core.c:1 x+0x1/0x2\n\
        [    3.0] XFS (dm-1): metadata I/O error in \"xfs_trans\" at daddr 0x1\n\
        [    4.0] Buffer I/O error on dev dm-3, logical block 7, async page read\n\
        [    5.0] INFO: task kworker:7 blocked for more than 120 seconds.\n\
        [    6.0] XFS (dm-1): log I/O problem\n\
        [    7.0] clocksource: timekeeping watchdog on CPU0: WARNING: slow\n";

    #[test]
    fn trouble_is_seen_and_noise_is_not() {
        assert_eq!(of(LOG, &[]).len(), 5, "{:?}", of(LOG, &[]));
        assert!(of("[ 0.1] Linux version 6.12\n", &[]).is_empty());
    }

    #[test]
    fn a_story_allows_what_it_provokes_and_nothing_else() {
        let left = of(LOG, &[("dev dm-3", "the story pulls that disk")]);
        assert_eq!(left.len(), 4, "{left:?}");
    }
}
