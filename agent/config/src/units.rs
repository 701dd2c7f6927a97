//! Sizes and time spans as people write them, and as they read again.

use std::time::Duration;

/// What a suffix multiplies by. Sizes are binary, as everywhere in storage tools.
const SIZE_UNITS: [(&str, u64); 5] = [
    ("T", 1 << 40),
    ("G", 1 << 30),
    ("M", 1 << 20),
    ("K", 1 << 10),
    ("", 1),
];

/// Microseconds of each suffix; longer suffixes stand before those they begin with.
const TIME_UNITS: [(&str, u64); 9] = [
    ("ms", 1_000),
    ("us", 1),
    ("min", 60_000_000),
    ("w", 604_800_000_000),
    ("d", 86_400_000_000),
    ("h", 3_600_000_000),
    ("m", 60_000_000),
    ("s", 1_000_000),
    ("", 1_000_000),
];

/// Reads `4096`, `4K`, `10G`, `1.5T`, `64MiB`.
pub fn parse_size(text: &str) -> Result<u64, String> {
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

/// Reads `50ms`, `10s`, `15min`, `1h`, `1h30m`, `2d`; a bare number is seconds.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
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

/// A size as [`parse_size`] reads it, without loss: `2GiB`, `4097`.
pub fn exact_size(bytes: u64) -> String {
    let whole = |unit: &u64| bytes > 0 && bytes.is_multiple_of(*unit);
    match SIZE_UNITS.iter().find(|(_, unit)| whole(unit)) {
        Some((suffix, unit)) if *unit > 1 => format!("{}{suffix}iB", bytes / unit),
        _ => bytes.to_string(),
    }
}

/// A time span of whole microseconds as [`parse_duration`] reads it, without loss: `30s`, `15min`.
pub fn exact_duration(span: Duration) -> String {
    const LARGEST_FIRST: [&str; 6] = ["d", "h", "min", "s", "ms", "us"];
    let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
    let unit_of = |suffix: &&str| TIME_UNITS.iter().find(|(known, _)| known == suffix);
    LARGEST_FIRST
        .iter()
        .filter_map(unit_of)
        .find(|(_, unit)| micros > 0 && micros.is_multiple_of(*unit))
        .map_or_else(
            || "0s".to_owned(),
            |(suffix, unit)| format!("{}{suffix}", micros / unit),
        )
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
        assert_eq!(parse_duration("15min"), Ok(Duration::from_secs(900)));
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_duration("1w"), Ok(Duration::from_secs(604_800)));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        for wrong in ["", "s", "5x", "1h30x", "-5s", "99999999999999d"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_written_reads_the_same() {
        for (bytes, text) in [
            (0, "0"),
            (4097, "4097"),
            (65536, "64KiB"),
            (2 << 30, "2GiB"),
        ] {
            assert_eq!(exact_size(bytes), text);
            assert_eq!(parse_size(text), Ok(bytes));
        }
        for (micros, text) in [
            (0, "0s"),
            (1, "1us"),
            (500_000, "500ms"),
            (900_000_000, "15min"),
        ] {
            assert_eq!(exact_duration(Duration::from_micros(micros)), text);
            assert_eq!(parse_duration(text), Ok(Duration::from_micros(micros)));
        }
    }
}
