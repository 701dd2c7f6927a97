//! Text of others, made harmless for where it is shown.

/// Text of others, without what would steer a terminal or hide in a line.
pub(crate) fn plain(text: &str) -> String {
    let harmless = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().map(harmless).collect()
}

/// Text for XML: without markup, and without what XML cannot hold.
pub(crate) fn escape(text: &str) -> String {
    plain(text)
        .replace(['\u{fffe}', '\u{ffff}'], "\u{fffd}")
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
