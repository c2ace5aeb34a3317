//! Public keys of issuers (JWK sets, RFC 7517), and signatures by them (RFC 7518).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use p521::ecdsa::signature::Verifier as _;
use p521::ecdsa::{Signature, VerifyingKey};
use ring::signature::{
    self, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};
use serde_json::Value;

/// How tokens may be signed: upstream's list (`allowedSigningAlgs`).
pub(super) const ALGORITHMS: [&str; 9] =
    ["RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512"];
/// Most keys of a set that are looked at.
const KEYS_MAX: usize = 256;

/// The keys of one issuer.
#[derive(Default)]
pub(super) struct Keys(Vec<Key>);

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|key| &key.id)).finish()
    }
}

struct Key {
    id: String,
    public: Public,
}

enum Public {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256(Vec<u8>),
    P384(Vec<u8>),
    P521(VerifyingKey),
}

impl Keys {
    /// Reads a set. Keys of kinds that sign no tokens here are passed over (RFC 7517, section 5).
    pub(super) fn parse(set: &Value) -> Result<Keys, String> {
        let keys = set["keys"].as_array().ok_or("the key set has no keys")?;
        Ok(Keys(keys.iter().take(KEYS_MAX).filter_map(Key::read).collect()))
    }

    /// Whether one of the keys signed it; only that of the name, where the token names one.
    pub(super) fn verify(
        &self,
        (algorithm, id): (&str, &str),
        message: &[u8],
        signature: &[u8],
    ) -> bool {
        let mut named = self.0.iter().filter(|key| id.is_empty() || key.id == id);
        named.any(|key| key.public.verify(algorithm, message, signature))
    }
}

impl Key {
    fn read(key: &Value) -> Option<Key> {
        let bytes =
            |name: &str| URL_SAFE_NO_PAD.decode(key[name].as_str()?.trim_end_matches('=')).ok();
        let point = |size: usize| {
            let (x, y) = (bytes("x")?, bytes("y")?);
            // Uncompressed (SEC 1, section 2.3.3).
            ((x.len(), y.len()) == (size, size)).then(|| [&[4], x.as_slice(), &y].concat())
        };
        let public = match (key["kty"].as_str()?, key["crv"].as_str().unwrap_or("")) {
            ("RSA", _) => Public::Rsa { n: bytes("n")?, e: bytes("e")? },
            ("EC", "P-256") => Public::P256(point(32)?),
            ("EC", "P-384") => Public::P384(point(48)?),
            // Refused here if the point is not on the curve; ring looks when it verifies.
            ("EC", "P-521") => Public::P521(VerifyingKey::from_sec1_bytes(&point(66)?).ok()?),
            _ => return None,
        };
        Some(Key { id: key["kid"].as_str().unwrap_or("").to_owned(), public })
    }
}

impl Public {
    fn verify(&self, algorithm: &str, message: &[u8], signature: &[u8]) -> bool {
        let curve = |with: &'static dyn VerificationAlgorithm, point: &[u8]| {
            UnparsedPublicKey::new(with, point).verify(message, signature).is_ok()
        };
        match self {
            Public::Rsa { n, e } => rsa(algorithm).is_some_and(|parameters| {
                RsaPublicKeyComponents { n, e }.verify(parameters, message, signature).is_ok()
            }),
            Public::P256(point) => {
                algorithm == "ES256" && curve(&signature::ECDSA_P256_SHA256_FIXED, point)
            }
            Public::P384(point) => {
                algorithm == "ES384" && curve(&signature::ECDSA_P384_SHA384_FIXED, point)
            }
            // With SHA-512 (RFC 7518, section 3.4).
            Public::P521(key) => {
                let signature = Signature::from_slice(signature);
                algorithm == "ES512" && signature.is_ok_and(|s| key.verify(message, &s).is_ok())
            }
        }
    }
}

fn rsa(algorithm: &str) -> Option<&'static RsaParameters> {
    Some(match algorithm {
        "RS256" => &signature::RSA_PKCS1_2048_8192_SHA256,
        "RS384" => &signature::RSA_PKCS1_2048_8192_SHA384,
        "RS512" => &signature::RSA_PKCS1_2048_8192_SHA512,
        "PS256" => &signature::RSA_PSS_2048_8192_SHA256,
        "PS384" => &signature::RSA_PSS_2048_8192_SHA384,
        "PS512" => &signature::RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use p521::ecdsa::SigningKey;
    use p521::ecdsa::signature::Signer as _;
    use serde_json::json;

    use super::*;

    #[test]
    fn signatures_over_p521_are_verified() {
        let mut scalar = [7; 66];
        scalar[0] = 0;
        let private = SigningKey::from_slice(&scalar).expect("a key");
        let point = VerifyingKey::from(&private).to_encoded_point(false);
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let (x, y) = point.as_bytes()[1..].split_at(66);
        let jwk = |crv: &str, x: &[u8], y: &[u8]| json!({"keys": [{"kty": "EC", "crv": crv, "kid": "k", "x": part(x), "y": part(y)}]});
        let keys = Keys::parse(&jwk("P-521", x, y)).expect("a set");
        let signature: Signature = private.sign(b"message");
        let bytes = signature.to_bytes();
        assert_eq!(bytes.len(), 132, "two numbers of the curve's size (RFC 7518, section 3.4)");
        assert!(keys.verify(("ES512", "k"), b"message", &bytes));
        assert!(keys.verify(("ES512", ""), b"message", &bytes));
        for (algorithm, id, message, signature) in [
            ("ES512", "k", &b"messagf"[..], &bytes[..]),
            ("ES512", "other", b"message", &bytes),
            ("ES384", "k", b"message", &bytes),
            ("ES512", "k", b"message", &bytes[1..]),
            ("ES512", "k", b"message", &[0; 132]),
            ("ES512", "k", b"message", b""),
        ] {
            assert!(!keys.verify((algorithm, id), message, signature), "{algorithm} {id}");
        }
        for set in [jwk("P-521", x, x), jwk("P-521", &x[1..], y), jwk("P-256", x, y)] {
            let keys = Keys::parse(&set).expect("a set");
            assert!(!keys.verify(("ES512", "k"), b"message", &bytes), "{set}");
        }
    }
}
