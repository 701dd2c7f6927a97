//! What a repository's objects are made of, beside [`crate::bytes`]: each has only one form.

use super::{id::Digest, limits::MAX_TEXT_BYTES};
pub(super) use crate::bytes::Fields;
use crate::bytes::put_short_bytes;

impl Fields<'_> {
    pub(super) fn digest(&mut self) -> Option<Digest> {
        self.array().map(Digest)
    }

    /// UTF-8 after its length of 16 bits, of what [`put_text`] leaves of a text.
    pub(super) fn short_text(&mut self) -> Option<String> {
        let bytes = self.short_bytes()?;
        let text = std::str::from_utf8(bytes).ok()?;
        (bytes.len() <= MAX_TEXT_BYTES).then(|| text.to_owned())
    }

    /// A number in the shortest little-endian base 128.
    pub(super) fn varint(&mut self) -> Option<u32> {
        let mut value = 0_u32;
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.u8()?;
            let part = u32::from(byte & 0x7f);
            if part.checked_shl(shift)? >> shift != part || (byte == 0 && shift > 0) {
                return None;
            }
            value |= part << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// Nothing may follow.
    pub(super) fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

/// Adds a text with its length; one that is too long is cut at a character.
pub(super) fn put_text(into: &mut Vec<u8>, text: &str) {
    let text = &text[..text.floor_char_boundary(MAX_TEXT_BYTES)];
    put_short_bytes(into, text.as_bytes());
}

pub(super) fn put_varint(into: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        into.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    into.push(value.to_le_bytes()[0]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_have_one_form() {
        for value in [0, 1, 127, 128, 16_383, 16_384, 1 << 28, u32::MAX] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            let mut fields = Fields(&bytes);
            assert_eq!(fields.varint(), Some(value));
            assert!(fields.end().is_some());
        }
        assert_eq!(Fields(&[0x80, 0]).varint(), None);
        assert_eq!(Fields(&[0xff, 0xff, 0xff, 0xff, 0x1f]).varint(), None);
        assert_eq!(Fields(&[0x80; 9]).varint(), None);
    }
}
