//! Names of volumes, groups, repositories and schedules.

/// The longest, in bytes.
pub const MAX_NAME: usize = 64;

/// 1 to 64 of a-z, 0-9, '-' and '_', starting with a letter or digit: a name is also a part of paths and
/// of units' names.
pub fn is_name(name: &str) -> bool {
    let first = name.bytes().next();
    name.len() <= MAX_NAME
        && first.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        && name
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
}

/// What is wrong with one that is none, and what to do.
pub fn refusal(name: &str) -> String {
    format!(
        "\"{}\" is no name: use 1 to {MAX_NAME} of a-z, 0-9, '-' and '_', the first a letter or digit",
        name.escape_debug()
    )
}
