//! Sizes and time spans as people write and read them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(crate) use tidemark_config::units::{parse_duration, parse_size};

/// `1.5 GiB`, `4.0 KiB`, `17 B`.
pub(crate) fn bytes(count: u64) -> String {
    const NAMES: [(&str, u32); 5] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10), ("B", 0)];
    for (name, shift) in NAMES {
        let unit = 1_u64 << shift;
        if count < unit {
            continue;
        }
        if shift == 0 {
            break;
        }
        let tenths = u128::from(count) * 10 / u128::from(unit);
        return format!("{}.{} {name}", tenths / 10, tenths % 10);
    }
    format!("{count} B")
}

/// `950 us`, `12.3 ms`, `4.2 s`, `3 min 5 s`, `2 h 1 min`.
pub(crate) fn span(time: Duration) -> String {
    let us = time.as_micros();
    match us {
        0..1_000 => format!("{us} us"),
        1_000..1_000_000 => format!("{}.{} ms", us / 1_000, us / 100 % 10),
        1_000_000..60_000_000 => format!("{}.{} s", us / 1_000_000, us / 100_000 % 10),
        60_000_000..3_600_000_000 => {
            format!("{} min {} s", us / 60_000_000, us / 1_000_000 % 60)
        }
        _ => format!("{} h {} min", us / 3_600_000_000, us / 60_000_000 % 60),
    }
}

/// `12 min`, `3 h 20 min`, `5 d 2 h`: how long ago something was.
pub(crate) fn age(seconds: u64) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    match seconds {
        0..MINUTE => format!("{seconds} s"),
        MINUTE..HOUR => format!("{} min", seconds / MINUTE),
        HOUR..DAY => format!("{} h {} min", seconds / HOUR, seconds % HOUR / MINUTE),
        _ => format!("{} d {} h", seconds / DAY, seconds % DAY / HOUR),
    }
}

/// A moment of a message in seconds since the UNIX epoch.
pub(crate) fn seconds(at: &prost_types::Timestamp) -> u64 {
    u64::try_from(at.seconds).unwrap_or(0)
}

/// `2026-11-22T08:00:00Z`.
pub(crate) fn moment(seconds: u64) -> String {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    prost_types::Timestamp { seconds, nanos: 0 }.to_string()
}

/// Seconds since the UNIX epoch.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// `12.3 MiB/s`; over no time at all, none.
pub(crate) fn rate(count: u64, time: Duration) -> String {
    let per_second = (u128::from(count) * 1_000_000)
        .checked_div(time.as_micros())
        .unwrap_or(0);
    format!("{}/s", bytes(u64::try_from(per_second).unwrap_or(u64::MAX)))
}

/// `part` of `whole` in tenths of a per cent, as text: `12.5 %`.
pub(crate) fn per_cent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "0.0 %".to_owned();
    }
    let tenths = u128::from(part) * 1000 / u128::from(whole);
    format!("{}.{} %", tenths / 10, tenths % 10)
}

/// A time span of a message; negative ones count as none.
pub(crate) fn from_proto(span: &prost_types::Duration) -> Duration {
    let seconds = u64::try_from(span.seconds).unwrap_or(0);
    let nanos = u32::try_from(span.nanos).unwrap_or(0).min(999_999_999);
    Duration::new(seconds, nanos)
}

/// A time span for a message; longer ones than it can hold are cut.
pub(crate) fn to_proto(span: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(span.subsec_nanos()).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(u64::MAX), "16777215.9 TiB");
        assert_eq!(span(Duration::from_micros(1500)), "1.5 ms");
        assert_eq!(span(Duration::from_secs(125)), "2 min 5 s");
        assert_eq!(age(59), "59 s");
        assert_eq!(age(11_000), "3 h 3 min");
        assert_eq!(age(200_000), "2 d 7 h");
        assert_eq!(moment(1_000_000_000), "2001-09-09T01:46:40Z");
        assert_eq!(per_cent(1, 8), "12.5 %");
        assert_eq!(per_cent(1, 0), "0.0 %");
    }
}
