//! When the host started.

use std::fs;

/// When the host started, in microseconds since the UNIX epoch, as the kernel counts it now: a clock
/// that was set since moves it too. `None` where that cannot be read.
pub fn booted_us() -> Option<u64> {
    parse(&fs::read_to_string("/proc/stat").ok()?)
}

/// proc(5): the line `btime` has seconds.
fn parse(stat: &str) -> Option<u64> {
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    let seconds: u64 = line.trim().parse().ok()?;
    seconds.checked_mul(1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_line_is_found() {
        assert_eq!(parse("cpu 1 2\nbtime 12\nx 1"), Some(12_000_000));
        assert_eq!(parse("cpu 1 2"), None);
        assert!(booted_us().is_some());
    }
}
