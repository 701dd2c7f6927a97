//! Reading stored fields one after the other, never past the end.

use crate::units::Id;

/// What is left of some stored bytes.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn id(&mut self) -> Option<Id> {
        self.array().map(Id)
    }

    /// Bytes after their length of 16 bits.
    pub(crate) fn short_bytes(&mut self) -> Option<&'a [u8]> {
        let len = self.u16()?;
        self.take(len.into())
    }

    /// As [`Fields::short_bytes`], in UTF-8.
    pub(crate) fn text(&mut self) -> Option<String> {
        std::str::from_utf8(self.short_bytes()?)
            .ok()
            .map(str::to_owned)
    }
}

/// Adds bytes with their length of 16 bits; what does not fit is left out.
pub(crate) fn put_short_bytes(into: &mut Vec<u8>, bytes: &[u8]) {
    let len = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    into.extend(len.to_le_bytes());
    into.extend(&bytes[..len.into()]);
}
