//! What a provider keeps secret: the seed of keys, or, in values of old, the key itself.

use ring::hkdf::{HKDF_SHA256, KeyType, Prk};

use super::wire::HKDF_SEED;
use crate::aes::{Gcm, random};

/// Bytes of a seed, of a derived key, and of the random part that it is derived with.
const SIZE: usize = 32;

pub(super) enum Seed {
    Key(Box<Gcm>),
    Seed(Prk),
}

impl std::fmt::Debug for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seed")
    }
}

/// The length of derived keys.
struct KeySize;

impl KeyType for KeySize {
    fn len(&self) -> usize {
        SIZE
    }
}

impl Seed {
    /// A new seed, and its bytes for the provider.
    pub(super) fn generate() -> Result<(Seed, [u8; SIZE]), String> {
        let bytes = random::<SIZE>()?;
        Ok((Seed::Seed(Prk::new_less_safe(HKDF_SHA256, &bytes)), bytes))
    }

    /// The one that a provider decrypted.
    pub(super) fn of(source_type: i32, plain: &[u8]) -> Result<Seed, String> {
        if source_type != HKDF_SEED {
            return Gcm::new(plain).map(|key| Seed::Key(Box::new(key)));
        }
        if plain.len() < SIZE {
            return Err(format!("invalid seed length {} used for key generation", plain.len()));
        }
        Ok(Seed::Seed(Prk::new_less_safe(HKDF_SHA256, plain)))
    }

    fn derived(seed: &Prk, info: &[u8]) -> Result<Gcm, String> {
        let mut key = [0; SIZE];
        let filled = seed.expand(&[info], KeySize).and_then(|okm| okm.fill(&mut key));
        filled.map_err(|_| "failed to KDF expand seed with info")?;
        Gcm::new(&key)
    }

    /// The random part, then AES-GCM's form under the key that is derived with it. Every value has a key of its own.
    pub(super) fn encrypt(&self, bound_to: &[u8], value: &[u8]) -> Result<Vec<u8>, String> {
        match self {
            Seed::Key(_) => Err("a stored key is for reading only".into()),
            Seed::Seed(seed) => {
                let info = random::<SIZE>()?;
                let body = Seed::derived(seed, &info)?.encrypt(bound_to, value)?;
                Ok([&info[..], &body].concat())
            }
        }
    }

    pub(super) fn decrypt(&self, bound_to: &[u8], kept: &[u8]) -> Result<Vec<u8>, String> {
        match self {
            Seed::Key(key) => key.decrypt(bound_to, kept),
            Seed::Seed(seed) => {
                let parts = kept.split_at_checked(SIZE);
                let (info, body) =
                    parts.ok_or("the stored data was shorter than the required size")?;
                Seed::derived(seed, info)?.decrypt(bound_to, body)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::{AES_GCM_KEY, HKDF_SEED};
    use super::Seed;

    const PLACE: &[u8] = b"/registry/secrets/ns/name";

    fn hex(text: &str) -> Vec<u8> {
        let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal");
        (0..text.len()).step_by(2).map(byte).collect()
    }

    /// The stored forms were made by another implementation (OpenSSL's HKDF-Expand and AES-GCM).
    #[test]
    fn known_answers() {
        let plain: Vec<u8> = (0..32).collect();
        let derived = hex(
            "6465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f80818283c8c9cacbcccdcecfd0d1d2d31b070904411224b67d\
             41157a5d06fcc31bd4abba7d",
        );
        let seed = Seed::of(HKDF_SEED, &plain).expect("a seed");
        assert_eq!(seed.decrypt(PLACE, &derived).as_deref(), Ok(&b"value"[..]));
        let direct = hex("c8c9cacbcccdcecfd0d1d2d367190daee38df1b4882b483669a436b9779c78d7e8");
        let key = Seed::of(AES_GCM_KEY, &plain).expect("a key");
        assert_eq!(key.decrypt(PLACE, &direct).as_deref(), Ok(&b"value"[..]));
        let direct = hex("c8c9cacbcccdcecfd0d1d2d3cfe7705df36bec142e2810b33d17f32e54babce8d1");
        let key = Seed::of(AES_GCM_KEY, &plain[..24]).expect("a key");
        assert_eq!(key.decrypt(PLACE, &direct).as_deref(), Ok(&b"value"[..]));
        assert!(key.encrypt(PLACE, b"value").is_err(), "such keys are for reading only");
    }

    #[test]
    fn short_seeds_and_values_are_refused() {
        assert!(
            Seed::of(HKDF_SEED, &[0; 31]).expect_err("short").contains("invalid seed length 31")
        );
        assert!(Seed::of(AES_GCM_KEY, &[0; 31]).is_err());
        let (seed, _) = Seed::generate().expect("random bytes");
        let kept = seed.encrypt(PLACE, b"value").expect("encrypted");
        assert!(seed.decrypt(b"elsewhere", &kept).is_err());
        assert!(seed.decrypt(PLACE, &kept[..31]).expect_err("short").contains("shorter"));
    }
}
