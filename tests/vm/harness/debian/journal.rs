//! What a journal must not tell: the words with which systemd says that a boot or a shutdown was
//! not as its units ask for. A story that provokes one allows it, with the reason.

use crate::vm::warnings::Allowance;

const TROUBLE: [&str; 13] = [
    "ordering cycle",
    ": Failed with result",
    "Dependency failed for",
    "Failed to start",
    "Failed to mount",
    "Failed unmounting",
    // What systemd-shutdown says when something was left over.
    "Failed to finalize",
    "Could not detach",
    "emergency",
    "timed out",
    "Timed out",
    "segfault at",
    "dumped core",
];

/// What a Debian without Tidemark says now and then.
const DEBIANS_OWN: [Allowance; 1] = [(
    "Failed unmounting run-lock.mount",
    "LVM's monitoring ends at the same time and has its lock there",
)];

/// Lines of trouble in a journal or in what systemd told the kernel's log, those allowed left out.
pub fn trouble(log: &str, allowed: &[Allowance]) -> Vec<String> {
    log.lines()
        .filter(|line| TROUBLE.iter().any(|words| line.contains(words)))
        .filter(|line| {
            let mut allowed = DEBIANS_OWN.iter().chain(allowed);
            !allowed.any(|(words, _)| line.contains(words))
        })
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::trouble;

    /// As systemd 257 writes them.
    const LOG: &str = "\
        [   14.1] systemd[1]: one.service: Found ordering cycle on two.service/start\n\
        [   14.2] systemd[1]: one.service: Job two.service/start deleted to break ordering cycle starting with one.service/start\n\
        [   20.0] systemd[1]: three.service: Main process exited, code=exited, status=1/FAILURE\n\
        [   20.1] systemd[1]: three.service: Failed with result 'exit-code'.\n\
        [   20.2] systemd[1]: Failed to start three.service - Three.\n\
        [   21.0] systemd[1]: Dependency failed for srv-data.mount - /srv/data.\n\
        [   22.0] systemd[1]: Reached target multi-user.target - Multi-User System.\n";

    #[test]
    fn trouble_is_seen_and_progress_is_not() {
        assert_eq!(trouble(LOG, &[]).len(), 5, "{:#?}", trouble(LOG, &[]));
    }

    #[test]
    fn a_story_allows_what_it_provokes_and_nothing_else() {
        let left = trouble(LOG, &[("three.service", "the story breaks it")]);
        assert_eq!(left.len(), 3, "{left:#?}");
    }
}
