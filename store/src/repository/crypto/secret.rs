//! Bytes that are wiped when they go, and that no message shows.

use std::fmt;

use zeroize::{Zeroize, Zeroizing};

use crate::repository::error::{Error, Result};

/// 32 secret bytes.
#[derive(Clone)]
pub struct Secret([u8; 32]);

impl Secret {
    /// Takes bytes over.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// New ones from the system.
    pub fn random() -> Result<Self> {
        random().map(Self)
    }

    /// The bytes.
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// What this one gives for a purpose; says nothing about this one.
    pub fn derive(&self, context: &str) -> Self {
        Self(blake3::derive_key(context, &self.0))
    }

    /// For escrow: 64 hex digits and 8 that check them.
    pub fn export(&self) -> Zeroizing<String> {
        let check = crc32c::crc32c(&self.0).to_be_bytes();
        let mut text = Zeroizing::new(String::with_capacity(72));
        for byte in self.0.iter().chain(&check) {
            for nibble in [byte >> 4, byte & 15] {
                text.push(char::from_digit(nibble.into(), 16).unwrap_or('0'));
            }
        }
        text
    }

    /// Reads what [`Secret::export`] wrote; white space does not count.
    pub fn import(text: &str) -> Option<Self> {
        let mut digits = text.chars().filter(|c| !c.is_whitespace());
        let mut next = || Some(digits.next()?.to_digit(16)?.to_le_bytes()[0]);
        let mut bytes = Zeroizing::new([0; 36]);
        for byte in bytes.iter_mut() {
            *byte = (next()? << 4) | next()?;
        }
        let mut secret = Self([0; 32]);
        secret.0.copy_from_slice(&bytes[..32]);
        let whole = bytes[32..] == crc32c::crc32c(&secret.0).to_be_bytes();
        (digits.next().is_none() && whole).then_some(secret)
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Random bytes from the system.
pub(in crate::repository) fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|why| Error::Random(why.to_string()))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_export_reads_back_and_a_slip_of_the_pen_is_seen() {
        let secret = Secret::random().unwrap();
        let text = secret.export();
        let spaced = format!("{} {}\n", &text[..10], &text[10..]);
        let read = Secret::import(&spaced).unwrap();
        assert_eq!(read.expose(), secret.expose());
        let first = if text.starts_with('0') { '1' } else { '0' };
        assert!(Secret::import(&format!("{first}{}", &text[1..])).is_none());
        assert!(Secret::import(&text[..71]).is_none());
        assert!(Secret::import(&format!("{}0", *text)).is_none());
        assert_eq!(format!("{secret:?}"), "Secret");
    }
}
