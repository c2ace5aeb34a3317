//! The file: apiserver.config.k8s.io `EncryptionConfiguration` (`pkg/apis/apiserver/types_encryption.go`).

mod validation;

#[cfg(test)]
mod tests;

use std::time::Duration;

use api::nullable::nullable;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::{Deserialize, Serialize};

use crate::{EncryptionError, fault};

const VERSION: &str = "apiserver.config.k8s.io/v1";
const KIND: &str = "EncryptionConfiguration";

/// A validated file.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Configuration {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default, deserialize_with = "nullable")]
    pub(crate) resources: Vec<ResourceConfiguration>,
}

/// Providers of some resources.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ResourceConfiguration {
    #[serde(default, deserialize_with = "nullable")]
    pub(crate) resources: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    pub(crate) providers: Vec<ProviderConfiguration>,
}

/// One provider: exactly one of the fields is set.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ProviderConfiguration {
    pub(crate) aesgcm: Option<KeysConfiguration>,
    pub(crate) aescbc: Option<KeysConfiguration>,
    pub(crate) secretbox: Option<KeysConfiguration>,
    pub(crate) identity: Option<IdentityConfiguration>,
    pub(crate) kms: Option<KmsConfiguration>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct IdentityConfiguration {}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeysConfiguration {
    #[serde(default, deserialize_with = "nullable")]
    pub(crate) keys: Vec<KeyConfiguration>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyConfiguration {
    #[serde(default, deserialize_with = "nullable")]
    pub(crate) name: String,
    /// Base64.
    #[serde(default, deserialize_with = "nullable")]
    pub(crate) secret: String,
}

impl std::fmt::Debug for KeyConfiguration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeyConfiguration({})", self.name)
    }
}

impl KeyConfiguration {
    /// The key's bytes. Validation has seen to it that there are some.
    pub(crate) fn bytes(&self) -> Result<Vec<u8>, EncryptionError> {
        let name = &self.name;
        STANDARD
            .decode(&self.secret)
            .map_err(|e| fault(format!("could not obtain secret for named key {name}: {e}")))
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct KmsConfiguration {
    #[serde(default = "first_version", deserialize_with = "version")]
    pub(crate) api_version: String,
    #[serde(default, deserialize_with = "nullable")]
    pub(crate) name: String,
    /// Of version 1 only.
    cachesize: Option<i32>,
    #[serde(default, deserialize_with = "nullable")]
    pub(crate) endpoint: String,
    /// As Go writes durations.
    timeout: Option<String>,
    /// From `timeout`.
    #[serde(skip)]
    pub(crate) deadline: Duration,
}

/// The version that a provider without one has.
fn first_version() -> String {
    "v1".to_owned()
}

fn version<'de, D: serde::Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let given: Option<String> = Option::deserialize(from)?;
    Ok(given.filter(|version| !version.is_empty()).unwrap_or_else(first_version))
}

impl Configuration {
    /// Reads a file (YAML or JSON). `reload` is whether it is followed, which KMS names must allow.
    pub fn parse(text: &str, reload: bool) -> Result<Configuration, EncryptionError> {
        let decoding = |e: &dyn std::fmt::Display| fault(format!("error while parsing file: {e}"));
        let mut file: Configuration = serde_yaml_ng::from_str(text).map_err(|e| decoding(&e))?;
        if (file.api_version.as_str(), file.kind.as_str()) != (VERSION, KIND) {
            let (version, kind) = (&file.api_version, &file.kind);
            return Err(decoding(&format!(
                "no kind {kind:?} is registered for version {version:?}"
            )));
        }
        match validation::validate(&mut file, reload).as_slice() {
            [] => Ok(file),
            [one] => Err(decoding(&one)),
            many => Err(decoding(&format!("[{}]", many.join(", ")))),
        }
    }
}

/// A configuration with a new key, for Secrets.
pub fn generate() -> Result<String, EncryptionError> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct File {
        api_version: &'static str,
        kind: &'static str,
        resources: serde_json::Value,
    }
    let mut key = [0; 32];
    let filled = SystemRandom::new().fill(&mut key);
    filled.map_err(|_| fault("the system gives no random bytes"))?;
    let secret = STANDARD.encode(key);
    let resources = serde_json::json!([{"resources": ["secrets"], "providers": [
        {"aesgcm": {"keys": [{"name": "key1", "secret": secret}]}}, {"identity": {}},
    ]}]);
    let file = File { api_version: VERSION, kind: KIND, resources };
    serde_yaml_ng::to_string(&file).map_err(|e| fault(e.to_string()))
}
