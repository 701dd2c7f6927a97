//! Sizes and time spans as people write and read them.

use std::time::Duration;

/// What a suffix multiplies by. Sizes are binary, as everywhere in storage tools.
const SIZE_UNITS: [(&str, u64); 5] = [
    ("T", 1 << 40),
    ("G", 1 << 30),
    ("M", 1 << 20),
    ("K", 1 << 10),
    ("", 1),
];

/// Microseconds of each suffix; longer suffixes stand before those they end with.
const TIME_UNITS: [(&str, u64); 7] = [
    ("ms", 1_000),
    ("us", 1),
    ("d", 86_400_000_000),
    ("h", 3_600_000_000),
    ("m", 60_000_000),
    ("s", 1_000_000),
    ("", 1_000_000),
];

/// Reads `4096`, `4K`, `10G`, `1.5T`, `64MiB`.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("'{text}' is no size; write for example 4096, 64K or 10G");
    let upper = text.trim().to_ascii_uppercase();
    let bare = upper
        .strip_suffix("IB")
        .or_else(|| upper.strip_suffix('B'))
        .unwrap_or(&upper);
    let (number, unit) = SIZE_UNITS
        .iter()
        .find_map(|(suffix, unit)| bare.strip_suffix(suffix).map(|number| (number, *unit)))
        .ok_or_else(wrong)?;
    scaled(number, unit).ok_or_else(wrong)
}

/// Reads `50ms`, `10s`, `1h`, `1h30m`, `2d`; a bare number is seconds.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("'{text}' is no time span; write for example 50ms, 10s or 1h");
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(wrong());
    }
    let mut total = 0_u64;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let (suffix, unit) = TIME_UNITS
            .iter()
            .find(|(suffix, _)| after.starts_with(suffix))
            .ok_or_else(wrong)?;
        // A bare number may only end the text: "1x" is not one second and an x.
        if suffix.is_empty() && !after.is_empty() {
            return Err(wrong());
        }
        let part = scaled(number, *unit).ok_or_else(wrong)?;
        total = total.checked_add(part).ok_or_else(wrong)?;
        rest = after.get(suffix.len()..).unwrap_or_default();
    }
    Ok(Duration::from_micros(total))
}

/// `number`, with at most six digits after its point, times `unit`, in integers.
fn scaled(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.trim().split_once('.').unwrap_or((number.trim(), ""));
    let valid = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !valid(whole) || !valid(fraction) || fraction.len() > 6 {
        return None;
    }
    let total = whole.parse::<u64>().ok()?.checked_mul(unit)?;
    if fraction.is_empty() {
        return Some(total);
    }
    let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let part = u128::from(fraction.parse::<u64>().ok()?) * u128::from(unit) / scale;
    total.checked_add(u64::try_from(part).ok()?)
}

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
    fn sizes_are_binary_and_checked() {
        assert_eq!(parse_size("4096"), Ok(4096));
        assert_eq!(parse_size("4K"), Ok(4096));
        assert_eq!(parse_size("4k"), Ok(4096));
        assert_eq!(parse_size("64MiB"), Ok(64 << 20));
        assert_eq!(parse_size("1.5G"), Ok(3 << 29));
        for wrong in ["", "K", "-1", "1.G1", "4X", "99999999999T", "1e3", "."] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn time_spans_add_up() {
        assert_eq!(parse_duration("50ms"), Ok(Duration::from_millis(50)));
        assert_eq!(parse_duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(parse_duration("10"), Ok(Duration::from_secs(10)));
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        for wrong in ["", "s", "5x", "1h30x", "-5s", "99999999999999d"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(u64::MAX), "16777215.9 TiB");
        assert_eq!(span(Duration::from_micros(1500)), "1.5 ms");
        assert_eq!(span(Duration::from_secs(125)), "2 min 5 s");
        assert_eq!(per_cent(1, 8), "12.5 %");
        assert_eq!(per_cent(1, 0), "0.0 %");
    }
}
