//! One provider of a resource's list: the forms that it writes and reads.

use std::sync::Arc;

use ring::digest::{SHA256, digest};
use store::{ENCRYPTED, Opened, Place, Stamp};

use crate::aes::{Cbc, Gcm};
use crate::config::{KeyConfiguration, KeysConfiguration};
use crate::failures::Failures;
use crate::kms::Kms;
use crate::secretbox::Secretbox;
use crate::{EncryptionError, fault};

/// Writes and reads values with one prefix.
pub(crate) enum Provider {
    /// Writes values as they are, and reads those that nobody encrypted.
    Identity,
    Keys(Keys),
    Kms(Arc<Kms>),
}

/// A provider that has its keys itself.
pub(crate) struct Keys {
    prefix: &'static str,
    /// Upstream's words for a value under a key of another name.
    no_key: &'static str,
    keys: Vec<Key>,
}

struct Key {
    /// The key's name and a colon.
    prefix: String,
    cipher: Cipher,
    stamp: Stamp,
}

enum Cipher {
    Gcm(Gcm),
    Cbc(Cbc),
    Secretbox(Secretbox),
}

/// How a configuration's key becomes a cipher.
type MakeCipher = fn(&[u8]) -> Result<Cipher, String>;

const NO_AES_KEY: &str = "no matching key was found for the provided AES transformer";
const NO_BOX_KEY: &str = "no matching key was found for the provided Secretbox transformer";

impl std::fmt::Debug for Provider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.prefix())
    }
}

impl Provider {
    pub(crate) fn aesgcm(config: &KeysConfiguration) -> Result<Provider, EncryptionError> {
        Keys::provider("k8s:enc:aesgcm:v1:", NO_AES_KEY, config, |key| {
            Gcm::new(key).map(Cipher::Gcm)
        })
    }

    pub(crate) fn aescbc(config: &KeysConfiguration) -> Result<Provider, EncryptionError> {
        Keys::provider("k8s:enc:aescbc:v1:", NO_AES_KEY, config, |key| {
            Cbc::new(key).map(Cipher::Cbc)
        })
    }

    pub(crate) fn secretbox(config: &KeysConfiguration) -> Result<Provider, EncryptionError> {
        let make: MakeCipher = |key| Secretbox::new(key).map(Cipher::Secretbox);
        Keys::provider("k8s:enc:secretbox:v1:", NO_BOX_KEY, config, make)
    }

    /// What precedes the values of this provider; nothing with the identity.
    pub(crate) fn prefix(&self) -> &str {
        match self {
            Provider::Identity => "",
            Provider::Keys(keys) => keys.prefix,
            Provider::Kms(kms) => kms.prefix(),
        }
    }

    /// The stamp of what this provider writes now.
    pub(crate) fn write_stamp(&self) -> Option<Stamp> {
        match self {
            Provider::Identity => None,
            Provider::Keys(keys) => keys.keys.first().map(|key| key.stamp.clone()),
            Provider::Kms(kms) => kms.write_stamp(),
        }
    }

    /// Whether this provider may have made what has this stamp.
    pub(crate) fn knows(&self, stamp: &str) -> bool {
        match self {
            Provider::Identity => false,
            Provider::Keys(keys) => keys.keys.iter().any(|key| &*key.stamp == stamp),
            Provider::Kms(kms) => stamp.starts_with(kms.prefix()),
        }
    }

    /// The stored form of a value, prefix included.
    pub(crate) fn write(
        &self,
        place: Place<'_>,
        value: Vec<u8>,
    ) -> Result<(Vec<u8>, Option<Stamp>), String> {
        match self {
            Provider::Identity => Ok((value, None)),
            Provider::Keys(keys) => keys.write(place, &value),
            Provider::Kms(kms) => kms.write(place, &value),
        }
    }

    /// What nobody encrypted is read as it is.
    pub(crate) fn refuse_encrypted(kept: &[u8]) -> Result<(), String> {
        match kept.starts_with(ENCRYPTED) {
            true => Err("identity transformer tried to read encrypted data".into()),
            false => Ok(()),
        }
    }

    /// The value in a stored form without the prefix.
    pub(crate) fn read(&self, place: Place<'_>, kept: &[u8]) -> Result<Opened, String> {
        match self {
            Provider::Identity => {
                Provider::refuse_encrypted(kept)?;
                Ok(Opened { value: kept.to_vec(), stamp: None })
            }
            Provider::Keys(keys) => keys.read(place, kept),
            Provider::Kms(kms) => kms.read(place, kept),
        }
    }
}

impl Keys {
    /// The provider of these keys.
    fn provider(
        prefix: &'static str,
        no_key: &'static str,
        config: &KeysConfiguration,
        make: MakeCipher,
    ) -> Result<Provider, EncryptionError> {
        let keys = config.keys.iter().map(|key| Key::new(prefix, key, make));
        let keys = keys.collect::<Result<_, _>>()?;
        Ok(Provider::Keys(Keys { prefix, no_key, keys }))
    }

    fn write(&self, place: Place<'_>, value: &[u8]) -> Result<(Vec<u8>, Option<Stamp>), String> {
        let key = self.keys.first().ok_or(self.no_key)?;
        let body = match &key.cipher {
            Cipher::Gcm(gcm) => gcm.encrypt(place.authenticated.as_bytes(), value),
            Cipher::Cbc(cbc) => cbc.encrypt(value),
            Cipher::Secretbox(secretbox) => secretbox.encrypt(value),
        }?;
        let bytes = [self.prefix.as_bytes(), key.prefix.as_bytes(), &body].concat();
        Ok((bytes, Some(key.stamp.clone())))
    }

    fn read(&self, place: Place<'_>, kept: &[u8]) -> Result<Opened, String> {
        let mut failures = Failures::default();
        for key in &self.keys {
            let Some(body) = kept.strip_prefix(key.prefix.as_bytes()) else { continue };
            let opened = match &key.cipher {
                Cipher::Gcm(gcm) => gcm.decrypt(place.authenticated.as_bytes(), body),
                Cipher::Cbc(cbc) => cbc.decrypt(body),
                Cipher::Secretbox(secretbox) => secretbox.decrypt(body),
            };
            match opened {
                Ok(value) => return Ok(Opened { value, stamp: Some(key.stamp.clone()) }),
                Err(why) => failures.add(why),
            }
        }
        Err(failures.told(self.no_key))
    }
}

impl Key {
    fn new(
        prefix: &str,
        config: &KeyConfiguration,
        make: MakeCipher,
    ) -> Result<Key, EncryptionError> {
        let (name, bytes) = (&config.name, config.bytes()?);
        let cipher = make(&bytes).map_err(|why| {
            fault(format!("error while creating cipher for named key {name}: {why}"))
        })?;
        // Two keys may have one name. Part of a digest tells them apart and tells nothing of the key.
        let digest = digest(&SHA256, &bytes);
        let short: String = digest.as_ref()[..8].iter().map(|b| format!("{b:02x}")).collect();
        let stamp = format!("{prefix}{name}:{short}").into();
        Ok(Key { prefix: format!("{name}:"), cipher, stamp })
    }
}
