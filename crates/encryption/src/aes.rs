//! AES in upstream's two forms (`storage/value/encrypt/aes`): GCM with the value bound to its key in the backend,
//! and CBC, which is bound to nothing.

use aes::cipher::block_padding::{NoPadding, Pkcs7};
use aes::cipher::consts::{U12, U16};
use aes::cipher::{BlockDecryptMut as _, BlockEncryptMut as _, BlockSizeUser, KeyIvInit as _};
use aes::{Aes128, Aes192, Aes256};
use aes_gcm::aead::{AeadInPlace, KeyInit as _};
use aes_gcm::{AesGcm, Nonce, Tag};
use ring::rand::{SecureRandom as _, SystemRandom};

const NONCE: usize = 12;
const TAG: usize = 16;
const BLOCK: usize = 16;
const TOO_SHORT: &str = "the stored data was shorter than the required size";

/// Random bytes of the system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| "unable to read sufficient random bytes")?;
    Ok(bytes)
}

/// AES-GCM under one key of 16, 24 or 32 bytes.
pub(crate) enum Gcm {
    Bits128(Box<AesGcm<Aes128, U12>>),
    Bits192(Box<AesGcm<Aes192, U12>>),
    Bits256(Box<AesGcm<Aes256, U12>>),
}

fn wrong_size(key: &[u8]) -> String {
    format!("crypto/aes: invalid key size {}", key.len())
}

impl Gcm {
    pub(crate) fn new(key: &[u8]) -> Result<Gcm, String> {
        let wrong = |_| wrong_size(key);
        Ok(match key.len() {
            16 => Gcm::Bits128(Box::new(AesGcm::new_from_slice(key).map_err(wrong)?)),
            24 => Gcm::Bits192(Box::new(AesGcm::new_from_slice(key).map_err(wrong)?)),
            _ => Gcm::Bits256(Box::new(AesGcm::new_from_slice(key).map_err(wrong)?)),
        })
    }

    /// Nonce, ciphertext, tag.
    pub(crate) fn encrypt(&self, bound_to: &[u8], value: &[u8]) -> Result<Vec<u8>, String> {
        let nonce = random::<NONCE>()?;
        let mut out = Vec::with_capacity(NONCE + value.len() + TAG);
        out.extend_from_slice(&nonce);
        out.extend_from_slice(value);
        let (nonce, body) = (Nonce::from(nonce), &mut out[NONCE..]);
        let tag = match self {
            Gcm::Bits128(gcm) => gcm.encrypt_in_place_detached(&nonce, bound_to, body),
            Gcm::Bits192(gcm) => gcm.encrypt_in_place_detached(&nonce, bound_to, body),
            Gcm::Bits256(gcm) => gcm.encrypt_in_place_detached(&nonce, bound_to, body),
        };
        let tag = tag.map_err(|_| "the value is too long for AES-GCM")?;
        out.extend_from_slice(&tag);
        Ok(out)
    }

    pub(crate) fn decrypt(&self, bound_to: &[u8], kept: &[u8]) -> Result<Vec<u8>, String> {
        let (nonce, rest) = kept.split_at_checked(NONCE).ok_or(TOO_SHORT)?;
        let failed = "cipher: message authentication failed";
        let (body, tag) = rest.len().checked_sub(TAG).map(|at| rest.split_at(at)).ok_or(failed)?;
        let (nonce, tag) = (Nonce::from_slice(nonce), Tag::<U16>::from_slice(tag));
        let mut out = body.to_vec();
        let opened = match self {
            Gcm::Bits128(gcm) => gcm.decrypt_in_place_detached(nonce, bound_to, &mut out, tag),
            Gcm::Bits192(gcm) => gcm.decrypt_in_place_detached(nonce, bound_to, &mut out, tag),
            Gcm::Bits256(gcm) => gcm.decrypt_in_place_detached(nonce, bound_to, &mut out, tag),
        };
        opened.map_err(|_| failed)?;
        Ok(out)
    }
}

/// AES-CBC under one key, with PKCS#7 padding.
pub(crate) struct Cbc {
    key: Box<[u8]>,
}

impl Cbc {
    pub(crate) fn new(key: &[u8]) -> Result<Cbc, String> {
        match key.len() {
            16 | 24 | 32 => Ok(Cbc { key: key.into() }),
            _ => Err(wrong_size(key)),
        }
    }

    /// Initialisation vector, ciphertext.
    pub(crate) fn encrypt(&self, value: &[u8]) -> Result<Vec<u8>, String> {
        let iv = random::<BLOCK>()?;
        let body = match self.key.len() {
            16 => cbc_encrypt::<Aes128>(&self.key, &iv, value),
            24 => cbc_encrypt::<Aes192>(&self.key, &iv, value),
            _ => cbc_encrypt::<Aes256>(&self.key, &iv, value),
        }?;
        Ok([&iv[..], &body].concat())
    }

    pub(crate) fn decrypt(&self, kept: &[u8]) -> Result<Vec<u8>, String> {
        let (iv, body) = kept.split_at_checked(BLOCK).ok_or(TOO_SHORT)?;
        if !body.len().is_multiple_of(BLOCK) {
            return Err("the stored data is not a multiple of the block size".into());
        }
        let mut out = match self.key.len() {
            16 => cbc_decrypt::<Aes128>(&self.key, iv, body),
            24 => cbc_decrypt::<Aes192>(&self.key, iv, body),
            _ => cbc_decrypt::<Aes256>(&self.key, iv, body),
        }?;
        let padding = usize::from(out.last().copied().unwrap_or(0));
        if padding == 0 || padding > out.len() {
            return Err("invalid PKCS7 data (empty or not padded)".into());
        }
        let (value, tail) = out.split_at(out.len() - padding);
        if tail.iter().any(|byte| usize::from(*byte) != padding) {
            return Err("invalid padding on input".into());
        }
        out.truncate(value.len());
        Ok(out)
    }
}

fn cbc_encrypt<C>(key: &[u8], iv: &[u8], value: &[u8]) -> Result<Vec<u8>, String>
where
    C: aes::cipher::KeyInit + BlockSizeUser<BlockSize = U16> + aes::cipher::BlockCipher,
    C: aes::cipher::BlockEncryptMut,
{
    let cipher = cbc::Encryptor::<C>::new_from_slices(key, iv).map_err(|_| wrong_size(key))?;
    Ok(cipher.encrypt_padded_vec_mut::<Pkcs7>(value))
}

fn cbc_decrypt<C>(key: &[u8], iv: &[u8], body: &[u8]) -> Result<Vec<u8>, String>
where
    C: aes::cipher::KeyInit + BlockSizeUser<BlockSize = U16> + aes::cipher::BlockCipher,
    C: aes::cipher::BlockDecryptMut,
{
    let cipher = cbc::Decryptor::<C>::new_from_slices(key, iv).map_err(|_| wrong_size(key))?;
    let opened = cipher.decrypt_padded_vec_mut::<NoPadding>(body);
    opened.map_err(|_| "the stored data is not a multiple of the block size".to_owned())
}

#[cfg(test)]
mod tests {
    use super::{Cbc, Gcm};

    /// Made by Go's `crypto/aes` and `crypto/cipher` semantics: NIST SP 800-38A F.2.1/F.2.5 (CBC) with one block of
    /// padding, and the GCM test cases 4 and 16 of McGrew and Viega with their associated data.
    #[test]
    fn known_answers() {
        let hex = |text: &str| -> Vec<u8> {
            let digits: Vec<char> = text.chars().filter(|c| !c.is_whitespace()).collect();
            let byte = |pair: &[char]| {
                u8::from_str_radix(&pair.iter().collect::<String>(), 16).expect("hexadecimal")
            };
            digits.chunks(2).map(byte).collect()
        };
        let aad = hex("feedfacedeadbeeffeedfacedeadbeefabaddad2");
        let plain = hex("d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72
             1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39");
        let kept = hex("cafebabefacedbaddecaf888
             42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e
             21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091
             5bc94fbc3221a5db94fae95ae7121a47");
        let gcm = Gcm::new(&hex("feffe9928665731c6d6a8f9467308308")).expect("a key");
        assert_eq!(gcm.decrypt(&aad, &kept), Ok(plain.clone()));
        let kept = hex("cafebabefacedbaddecaf888
             522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa
             8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662
             76fc6ece0f4e1768cddf8853bb2d551b");
        let key = hex("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308");
        assert_eq!(Gcm::new(&key).expect("a key").decrypt(&aad, &kept), Ok(plain));

        let cbc = Cbc::new(&hex("2b7e151628aed2a6abf7158809cf4f3c")).expect("a key");
        let kept = hex("000102030405060708090a0b0c0d0e0f 7649abac8119b246cee98e9b12e9197d
             8964e0b149c10b7b682e6e39aaeb731c");
        assert_eq!(cbc.decrypt(&kept), Ok(hex("6bc1bee22e409f96e93d7e117393172a")));
    }

    #[test]
    fn all_key_sizes_go_there_and_back() {
        for size in [16, 24, 32] {
            let key: Vec<u8> = (0..size).collect();
            let (gcm, cbc) = (Gcm::new(&key).expect("a key"), Cbc::new(&key).expect("a key"));
            for value in [&b""[..], b"value", &[7; 16], &[8; 1000]] {
                let kept = gcm.encrypt(b"here", value).expect("encrypted");
                assert_eq!(kept.len(), 12 + value.len() + 16);
                assert_eq!(gcm.decrypt(b"here", &kept).as_deref(), Ok(value));
                let kept = cbc.encrypt(value).expect("encrypted");
                assert_eq!(kept.len(), 16 + (value.len() / 16 + 1) * 16);
                assert_eq!(cbc.decrypt(&kept).as_deref(), Ok(value));
            }
        }
    }

    #[test]
    fn what_is_not_whole_is_refused() {
        let key = [1; 32];
        let gcm = Gcm::new(&key).expect("a key");
        let mut kept = gcm.encrypt(b"here", b"value").expect("encrypted");
        assert!(gcm.decrypt(b"there", &kept).is_err(), "bound to its place");
        kept[14] ^= 1;
        assert!(gcm.decrypt(b"here", &kept).is_err());
        for short in [0, 11, 12, 27] {
            assert!(gcm.decrypt(b"here", &kept[..short]).is_err(), "{short}");
        }
        let cbc = Cbc::new(&key).expect("a key");
        let kept = cbc.encrypt(b"value").expect("encrypted");
        let refused = |kept: &[u8]| cbc.decrypt(kept).expect_err("refused");
        assert_eq!(refused(&kept[..15]), "the stored data was shorter than the required size");
        assert_eq!(refused(&kept[..16]), "invalid PKCS7 data (empty or not padded)");
        assert_eq!(refused(&kept[..31]), "the stored data is not a multiple of the block size");
        for size in [0, 8, 15, 17, 33] {
            assert!(Cbc::new(&vec![0; size]).is_err() && Gcm::new(&vec![0; size]).is_err());
        }
    }
}
