//! XChaCha20-Poly1305: needs no hardware to be fast and constant in time, and its nonce has room for a
//! random salt a pack and a counter within it.

use chacha20poly1305::{Key, KeyInit, XChaCha20Poly1305, XNonce, aead::AeadInOut};

use super::secret::Secret;

/// Bytes that sealing adds.
pub const TAG_BYTES: usize = 16;
/// Bytes of a nonce, never to be used twice with one key.
pub const NONCE_BYTES: usize = 24;

/// Encrypts and authenticates `bytes` in place; they grow by [`TAG_BYTES`]. `with` is authenticated too.
pub fn seal(key: &Secret, nonce: &[u8; NONCE_BYTES], with: &[u8], bytes: &mut Vec<u8>) {
    let done = cipher(key).encrypt_in_place(&XNonce::from(*nonce), with, bytes);
    // Only 256 GiB and more do not fit the cipher's counter; a blob has at most 1 MiB.
    assert!(done.is_ok(), "a blob is too long for the cipher");
}

/// Undoes [`seal`]; `None`, with `bytes` of no use, unless all of it is authentic.
pub fn open(
    key: &Secret,
    nonce: &[u8; NONCE_BYTES],
    with: &[u8],
    bytes: &mut Vec<u8>,
) -> Option<()> {
    cipher(key)
        .decrypt_in_place(&XNonce::from(*nonce), with, bytes)
        .ok()
}

fn cipher(key: &Secret) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(&Key::from(*key.expose()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_bytes_open() {
        let key = Secret::new([7; 32]);
        let mut sealed = b"blocks".to_vec();
        seal(&key, &[1; 24], b"head", &mut sealed);
        assert_eq!(sealed.len(), 6 + TAG_BYTES);
        let opens = |key: &Secret, nonce: u8, with: &[u8], mut bytes: Vec<u8>| {
            open(key, &[nonce; 24], with, &mut bytes).map(|()| bytes)
        };
        assert_eq!(
            opens(&key, 1, b"head", sealed.clone()),
            Some(b"blocks".to_vec())
        );
        assert!(opens(&Secret::new([8; 32]), 1, b"head", sealed.clone()).is_none());
        assert!(opens(&key, 2, b"head", sealed.clone()).is_none());
        assert!(opens(&key, 1, b"hood", sealed.clone()).is_none());
        for at in 0..sealed.len() {
            let mut bent = sealed.clone();
            bent[at] ^= 1;
            assert!(opens(&key, 1, b"head", bent).is_none());
        }
        assert!(opens(&key, 1, b"head", sealed[..10].to_vec()).is_none());
    }
}
