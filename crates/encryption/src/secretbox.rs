//! NaCl's secretbox in upstream's form (`storage/value/encrypt/secretbox`): nonce, tag, ciphertext, bound to nothing.

use crypto_secretbox::aead::{AeadInPlace as _, KeyInit as _};
use crypto_secretbox::{Nonce, Tag, XSalsa20Poly1305};

use crate::aes::random;

const NONCE: usize = 24;
const TAG: usize = 16;

pub(crate) struct Secretbox(XSalsa20Poly1305);

impl Secretbox {
    pub(crate) fn new(key: &[u8]) -> Result<Secretbox, String> {
        let made = XSalsa20Poly1305::new_from_slice(key);
        made.map(Secretbox)
            .map_err(|_| format!("expected key size 32 for secretbox provider, got {}", key.len()))
    }

    pub(crate) fn encrypt(&self, value: &[u8]) -> Result<Vec<u8>, String> {
        let nonce = random::<NONCE>()?;
        let mut body = value.to_vec();
        let tag = self.0.encrypt_in_place_detached(Nonce::from_slice(&nonce), b"", &mut body);
        let tag = tag.map_err(|_| "the value cannot be encrypted")?;
        Ok([&nonce[..], &tag, &body].concat())
    }

    pub(crate) fn decrypt(&self, kept: &[u8]) -> Result<Vec<u8>, String> {
        let too_short = "the stored data was shorter than the required size";
        let (nonce, rest) = kept.split_at_checked(NONCE).ok_or(too_short)?;
        let (tag, body) = rest.split_at_checked(TAG).ok_or(too_short)?;
        let mut out = body.to_vec();
        let (nonce, tag) = (Nonce::from_slice(nonce), Tag::from_slice(tag));
        // Upstream's words, for every failure.
        let failed = "output array was not large enough for encryption";
        self.0.decrypt_in_place_detached(nonce, b"", &mut out, tag).map_err(|_| failed)?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::Secretbox;

    /// The example of NaCl's own tests (`tests/secretbox.c`), which Go's package uses, too.
    #[test]
    fn known_answer() {
        let key = [
            0x1b, 0x27, 0x55, 0x64, 0x73, 0xe9, 0x85, 0xd4, 0x62, 0xcd, 0x51, 0x19, 0x7a, 0x9a,
            0x46, 0xc7, 0x60, 0x09, 0x54, 0x9e, 0xac, 0x64, 0x74, 0xf2, 0x06, 0xc4, 0xee, 0x08,
            0x44, 0xf6, 0x83, 0x89,
        ];
        let nonce = [
            0x69, 0x69, 0x6e, 0xe9, 0x55, 0xb6, 0x2b, 0x73, 0xcd, 0x62, 0xbd, 0xa8, 0x75, 0xfc,
            0x73, 0xd6, 0x82, 0x19, 0xe0, 0x03, 0x6b, 0x7a, 0x0b, 0x37,
        ];
        let sealed = [
            0xf3, 0xff, 0xc7, 0x70, 0x3f, 0x94, 0x00, 0xe5, 0x2a, 0x7d, 0xfb, 0x4b, 0x3d, 0x33,
            0x05, 0xd9, 0x8e, 0x99, 0x3b, 0x9f, 0x48, 0x68, 0x12, 0x73, 0xc2, 0x96, 0x50, 0xba,
            0x32, 0xfc, 0x76, 0xce, 0x48, 0x33, 0x2e, 0xa7, 0x16, 0x4d, 0x96, 0xa4, 0x47, 0x6f,
            0xb8, 0xc5, 0x31, 0xa1, 0x18, 0x6a, 0xc0, 0xdf, 0xc1, 0x7c, 0x98, 0xdc, 0xe8, 0x7b,
            0x4d, 0xa7, 0xf0, 0x11, 0xec, 0x48, 0xc9, 0x72, 0x71, 0xd2, 0xc2, 0x0f, 0x9b, 0x92,
            0x8f, 0xe2, 0x27, 0x0d, 0x6f, 0xb8, 0x63, 0xd5, 0x17, 0x38, 0xb4, 0x8e, 0xee, 0xe3,
            0x14, 0xa7, 0xcc, 0x8a, 0xb9, 0x32, 0x16, 0x45, 0x48, 0xe5, 0x26, 0xae, 0x90, 0x22,
            0x43, 0x68, 0x51, 0x7a, 0xcf, 0xea, 0xbd, 0x6b, 0xb3, 0x73, 0x2b, 0xc0, 0xe9, 0xda,
            0x99, 0x83, 0x2b, 0x61, 0xca, 0x01, 0xb6, 0xde, 0x56, 0x24, 0x4a, 0x9e, 0x88, 0xd5,
            0xf9, 0xb3, 0x79, 0x73, 0xf6, 0x22, 0xa4, 0x3d, 0x14, 0xa6, 0x59, 0x9b, 0x1f, 0x65,
            0x4c, 0xb4, 0x5a, 0x74, 0xe3, 0x55, 0xa5,
        ];
        let opened = Secretbox::new(&key).expect("a key").decrypt(&[&nonce[..], &sealed].concat());
        let opened = opened.expect("the tag verifies");
        assert_eq!(opened.len(), 131);
        assert_eq!(opened[..4], [0xbe, 0x07, 0x5f, 0xc5]);
    }

    #[test]
    fn there_and_back_and_refusals() {
        let secretbox = Secretbox::new(&[3; 32]).expect("a key");
        let mut kept = secretbox.encrypt(b"value").expect("encrypted");
        assert_eq!(kept.len(), 24 + 16 + 5);
        assert_eq!(secretbox.decrypt(&kept).as_deref(), Ok(&b"value"[..]));
        kept[41] ^= 1;
        assert!(secretbox.decrypt(&kept).is_err());
        assert!(secretbox.decrypt(&kept[..39]).expect_err("short").contains("shorter"));
        assert!(Secretbox::new(&[0; 31]).is_err());
    }
}
