//! XChaCha20-Poly1305 of the crate `chacha20poly1305`, in functions that are not generic.
//!
//! Generic code is compiled by whoever calls it, as that one is. In a crate of its own it can be optimised where nothing else is
//! (`[profile.dev.package.kv-xchacha]`), and tests send very many datagrams.
#![forbid(unsafe_code)]

use chacha20poly1305::{AeadInOut, Error, KeyInit, XChaCha20Poly1305, XNonce};

pub const KEY_BYTES: usize = 32;
/// Long enough to be drawn at random for each message.
pub const NONCE_BYTES: usize = 24;
pub const TAG_BYTES: usize = 16;

/// One key, ready for use.
pub struct Cipher(XChaCha20Poly1305);

impl Cipher {
    pub fn new(key: &[u8; KEY_BYTES]) -> Self {
        Self(XChaCha20Poly1305::new(&(*key).into()))
    }

    /// Encrypts `text` where it lies; gives the tag of it and of `header`. Fails for 256 GiB and more alone.
    pub fn seal(&self, nonce: [u8; NONCE_BYTES], header: &[u8], text: &mut [u8]) -> Result<[u8; TAG_BYTES], Error> {
        let tag = self
            .0
            .encrypt_inout_detached(&XNonce::from(nonce), header, text.into())?;
        Ok(tag.into())
    }

    /// Decrypts `text` where it lies, if the tag is that of it and of `header`.
    pub fn open(
        &self,
        nonce: [u8; NONCE_BYTES],
        header: &[u8],
        text: &mut [u8],
        tag: [u8; TAG_BYTES],
    ) -> Result<(), Error> {
        let (nonce, tag) = (XNonce::from(nonce), tag.into());
        self.0.decrypt_inout_detached(&nonce, header, text.into(), &tag)
    }
}
