//! Encryption at rest: upstream's `EncryptionConfiguration`, with its `aesgcm` and `identity`
//! providers, and values in its form, so that either server reads what the other wrote.
//!
//! The first provider of a resource writes; all of them read. A key is rotated by putting a new one
//! first, restarting, rewriting the objects, and taking the old one out.

use api::registry::Registry;
use base64::Engine as _;
use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::{Value, json};
use store::{SEALED, Seal};

/// Why a configuration cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("encryption configuration: {0}")]
pub struct EncryptionError(String);

/// Which resources are sealed, and with which keys.
#[derive(Debug)]
pub struct Encryption {
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    /// Prefixes of the resources' keys.
    prefixes: Vec<String>,
    providers: Vec<Provider>,
}

#[derive(Debug)]
enum Provider {
    Identity,
    AesGcm(Vec<GcmKey>),
}

struct GcmKey {
    name: String,
    key: LessSafeKey,
}

impl std::fmt::Debug for GcmKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GcmKey({})", self.name)
    }
}

/// What precedes the key's name in a value.
const AESGCM: &str = "k8s:enc:aesgcm:v1:";

fn fault(text: impl Into<String>) -> EncryptionError {
    EncryptionError(text.into())
}

impl Encryption {
    /// A configuration with a new key, for Secrets.
    pub fn generate() -> Result<String, EncryptionError> {
        let mut key = [0; 32];
        let filled = SystemRandom::new().fill(&mut key);
        filled.map_err(|_| fault("the system gives no random bytes"))?;
        let secret = base64::engine::general_purpose::STANDARD.encode(key);
        let config = json!({
            "apiVersion": "apiserver.config.k8s.io/v1", "kind": "EncryptionConfiguration",
            "resources": [{"resources": ["secrets"], "providers": [
                {"aesgcm": {"keys": [{"name": "key1", "secret": secret}]}}, {"identity": {}},
            ]}],
        });
        serde_yaml_ng::to_string(&config).map_err(|e| fault(e.to_string()))
    }

    /// Reads an `apiserver.config.k8s.io/v1 EncryptionConfiguration` in YAML.
    pub fn parse(text: &str) -> Result<Encryption, EncryptionError> {
        let config: Value = serde_yaml_ng::from_str(text).map_err(|e| fault(e.to_string()))?;
        if config["kind"] != "EncryptionConfiguration" {
            return Err(fault("kind must be EncryptionConfiguration"));
        }
        let rules = validation::items(&config, "resources").map(Rule::parse);
        Ok(Encryption { rules: rules.collect::<Result<_, _>>()? })
    }

    fn rule(&self, key: &str) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.prefixes.iter().any(|p| key.starts_with(p.as_str())))
    }
}

impl Rule {
    fn parse(rule: &Value) -> Result<Rule, EncryptionError> {
        let mut prefixes = Vec::new();
        for name in validation::items(rule, "resources").map(validation::text) {
            let (resource, group) = name.split_once('.').unwrap_or((name, ""));
            let rows = Registry::built_in().rows().iter();
            let named =
                rows.filter(|r| r.group == group && r.name == resource && !r.prefix.is_empty());
            let found: Vec<String> = named.map(|r| r.prefix.clone()).collect();
            if found.is_empty() {
                return Err(fault(format!("resource {name:?} is not known here")));
            }
            prefixes.extend(found);
        }
        let providers = validation::items(rule, "providers").map(Provider::parse);
        let providers: Vec<Provider> = providers.collect::<Result<_, _>>()?;
        if providers.is_empty() {
            return Err(fault("a rule needs at least one provider"));
        }
        Ok(Rule { prefixes, providers })
    }
}

impl Provider {
    fn parse(provider: &Value) -> Result<Provider, EncryptionError> {
        if provider.get("identity").is_some() {
            return Ok(Provider::Identity);
        }
        let Some(config) = provider.get("aesgcm") else {
            let names: Vec<&String> =
                provider.as_object().into_iter().flatten().map(|(k, _)| k).collect();
            return Err(fault(format!(
                "provider {names:?} is not supported: use aesgcm or identity"
            )));
        };
        let keys: Vec<GcmKey> =
            validation::items(config, "keys").map(GcmKey::parse).collect::<Result<_, _>>()?;
        if keys.is_empty() {
            return Err(fault("aesgcm needs at least one key"));
        }
        Ok(Provider::AesGcm(keys))
    }
}

impl GcmKey {
    fn parse(key: &Value) -> Result<GcmKey, EncryptionError> {
        let name = validation::text(&key["name"]).to_owned();
        if name.is_empty() || name.contains(':') {
            return Err(fault("a key needs a name without colons"));
        }
        let secret =
            base64::engine::general_purpose::STANDARD.decode(validation::text(&key["secret"]));
        let secret = secret.map_err(|e| fault(format!("key {name}: {e}")))?;
        let algorithm = match secret.len() {
            16 => &AES_128_GCM,
            32 => &AES_256_GCM,
            other => {
                return Err(fault(format!("key {name}: {other} bytes; 16 or 32 are supported")));
            }
        };
        let key =
            UnboundKey::new(algorithm, &secret).map_err(|_| fault("the key is not usable"))?;
        Ok(GcmKey { name, key: LessSafeKey::new(key) })
    }

    /// Mark, key's name, nonce, ciphertext, tag; bound to the object's key.
    fn seal(&self, key: &str, mut value: Vec<u8>) -> Result<Vec<u8>, String> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(|_| "the system gives no random bytes")?;
        let aad = Aad::from(key.as_bytes());
        self.key
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut value)
            .map_err(|_| "the value cannot be encrypted")?;
        let head = format!("{AESGCM}{}:", self.name);
        Ok([head.as_bytes(), &nonce, &value].concat())
    }

    /// `None` when it was sealed with another key.
    fn open(&self, key: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        let head = format!("{AESGCM}{}:", self.name);
        let rest = sealed.strip_prefix(head.as_bytes())?;
        let (nonce, body) = rest.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut body = body.to_vec();
        let plain = self.key.open_in_place(nonce, Aad::from(key.as_bytes()), &mut body).ok()?;
        Some(plain.to_vec())
    }
}

impl Seal for Encryption {
    fn seal(&self, key: &str, value: Vec<u8>) -> Result<Vec<u8>, String> {
        match self.rule(key).and_then(|rule| rule.providers.first()) {
            Some(Provider::AesGcm(keys)) => match keys.first() {
                Some(first) => first.seal(key, value),
                None => Err("no key to encrypt with".into()),
            },
            Some(Provider::Identity) | None => Ok(value),
        }
    }

    fn open(&self, key: &str, sealed: &[u8]) -> Result<Vec<u8>, String> {
        debug_assert!(sealed.starts_with(SEALED));
        // Keys are tried whatever resource they were for: rules may have changed since.
        let keys = self.rules.iter().flat_map(|r| &r.providers).filter_map(|p| match p {
            Provider::AesGcm(keys) => Some(keys),
            Provider::Identity => None,
        });
        keys.flatten()
            .find_map(|k| k.open(key, sealed))
            .ok_or_else(|| "it is encrypted, and no key of this server opens it".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "/registry/secrets/ns/name";

    #[test]
    fn only_what_is_named_is_sealed_and_under_its_own_key() {
        let text = Encryption::generate().expect("a configuration");
        let encryption = Encryption::parse(&text).expect("a configuration");
        let sealed = encryption.seal(SECRET, b"value".to_vec()).expect("sealed");
        assert!(sealed.starts_with(b"k8s:enc:aesgcm:v1:key1:"));
        assert!(!sealed.windows(5).any(|w| w == b"value"));
        assert_eq!(encryption.open(SECRET, &sealed).as_deref(), Ok(&b"value"[..]));
        assert!(encryption.open("/registry/secrets/ns/other", &sealed).is_err());
        let map = "/registry/configmaps/ns/name";
        assert_eq!(encryption.seal(map, b"value".to_vec()).as_deref(), Ok(&b"value"[..]));
    }

    #[test]
    fn the_first_key_writes_and_all_read() {
        let key = |name: &str, byte: u8| {
            let secret = base64::engine::general_purpose::STANDARD.encode([byte; 32]);
            json!({"name": name, "secret": secret})
        };
        let config = |keys: Value| {
            let config = json!({"kind": "EncryptionConfiguration", "resources": [{"resources": ["secrets"], "providers": [{"aesgcm": {"keys": keys}}]}]});
            Encryption::parse(&config.to_string()).expect("a configuration")
        };
        let old = config(json!([key("old", 1)]));
        let both = config(json!([key("new", 2), key("old", 1)]));
        let sealed = old.seal(SECRET, b"v".to_vec()).expect("sealed");
        assert_eq!(both.open(SECRET, &sealed).as_deref(), Ok(&b"v"[..]));
        assert!(
            both.seal(SECRET, b"v".to_vec())
                .expect("sealed")
                .starts_with(b"k8s:enc:aesgcm:v1:new:")
        );
        let new = config(json!([key("new", 2)]));
        assert!(new.open(SECRET, &sealed).expect_err("the old key is gone").contains("no key"));
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let parse = |providers: Value| {
            let config = json!({"kind": "EncryptionConfiguration", "resources": [{"resources": ["secrets"], "providers": providers}]});
            Encryption::parse(&config.to_string()).expect_err("a fault").to_string()
        };
        assert!(parse(json!([{"kms": {}}])).contains("\"kms\""));
        assert!(
            parse(json!([{"aesgcm": {"keys": [{"name": "k", "secret": "AAAA"}]}}]))
                .contains("3 bytes")
        );
    }
}
