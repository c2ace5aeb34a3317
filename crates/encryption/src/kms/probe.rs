//! Whether a provider is healthy, and the seed that goes with the key that it names.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::seed::Seed;
use super::wire::{EncryptedObject, HKDF_SEED, StatusResponse};
use super::{Expiry, Kms, State, envelope, seconds};
use crate::failures::Failures;
use crate::hash::hash;

/// How long a good and a bad answer are kept.
const GOOD_LIFE: Duration = Duration::from_secs(20);
const BAD_LIFE: Duration = Duration::from_secs(3);
/// How long a seed encrypts values without word from the provider.
const SEED_LIFE: Duration = Duration::from_secs(3 * 60);
const VERSIONS: [&str; 2] = ["v2", "v2beta1"];

/// The last answer.
#[derive(Debug, Default)]
pub(super) struct Probe {
    last: Option<(Instant, Result<(), String>)>,
    /// The API's version in the first answer, which must not change.
    version: String,
}

impl Kms {
    /// The provider's health. Asks it unless the last answer is fresh; takes over the key that it names.
    pub(crate) async fn check(&self) -> Result<(), String> {
        let mut probe = self.probe.lock().await;
        if let Some((at, answer)) = &probe.last {
            let life = if answer.is_ok() { GOOD_LIFE } else { BAD_LIFE };
            if at.elapsed() < life {
                return answer.clone();
            }
        }
        let answer = match self.service.status().await {
            Ok(status) => self.judge(&mut probe.version, &status).await,
            Err(error) => Err(format!(
                "failed to perform status section of the healthz check for KMS Provider {}, error: {error}",
                self.name
            )),
        };
        probe.last = Some((Instant::now(), answer.clone()));
        answer
    }

    async fn judge(&self, version: &mut String, status: &StatusResponse) -> Result<(), String> {
        let mut failures = Failures::default();
        if status.healthz != "ok" {
            failures.add(format!("got unexpected healthz status: {}", status.healthz));
        }
        if !VERSIONS.contains(&status.version.as_str()) {
            failures.add(format!("expected KMSv2 API version v2, got {}", status.version));
        } else {
            if version.is_empty() {
                version.clone_from(&status.version);
            }
            if *version != status.version {
                failures.add(format!(
                    "KMSv2 API version should not change after the initial status response version {version}, got {}",
                    status.version
                ));
            }
        }
        match envelope::wrong_key_id(&status.key_id) {
            Some((code, why)) => {
                self.metrics.invalid_key_id(&self.name, code);
                let hash = hash(status.key_id.as_bytes());
                failures.add(format!("got invalid KMSv2 KeyID hash {hash:?}: {why}"));
            }
            None => {
                self.metrics.key_told(&self.name, &status.key_id);
                if let Err(why) = self.rotate(&status.key_id).await {
                    failures.add(why);
                }
            }
        }
        if failures.is_empty() {
            return Ok(());
        }
        let told = failures.told("");
        Err(format!("kmsv2 Provider {} is not healthy, error: {told}", self.name))
    }

    /// Goes on with the present seed when the provider still names its key; makes another one otherwise. When that
    /// fails, the present one serves until it expires.
    async fn rotate(&self, told: &str) -> Result<(), String> {
        // Before the provider is asked: the time is the upper bound.
        let expires =
            Expiry { at: Instant::now() + SEED_LIFE, told: jiff::Timestamp::now() + SEED_LIFE };
        let present = self.state();
        if let Ok(state) = &present
            && state.envelope.key_id == told
        {
            self.put_in_force(State {
                seed: state.seed.clone(),
                envelope: state.envelope.clone(),
                stamp: state.stamp.clone(),
                expires,
            });
            return Ok(());
        }
        let uid = uuid::Uuid::new_v4().to_string();
        let made = self.new_seed(&uid).await;
        let (error, key_id) = match made {
            Ok((seed, envelope)) if envelope.key_id == told => {
                let stamp = self.stamp(&envelope);
                let seed = Arc::new(seed);
                let known = self.cache().set(envelope::cache_key(&envelope), Ok(seed.clone()));
                self.metrics.cache_size(&self.name, known);
                self.put_in_force(State { seed, envelope, stamp, expires });
                return Ok(());
            }
            Ok((_, envelope)) => ("<nil>".to_owned(), envelope.key_id),
            Err(why) => (why, String::new()),
        };
        let (state_error, state_key, until) = match &present {
            Ok(state) => ("<nil>", state.envelope.key_id.as_str(), seconds(state.expires.told)),
            Err(why) => (why.as_str(), "", "0001-01-01T00:00:00Z".to_owned()),
        };
        Err(format!(
            "failed to rotate DEK uid={uid:?}, useSeed=true, errState={state_error}, errGen={error}, \
             statusKeyIDHash={:?}, encryptKeyIDHash={:?}, stateKeyIDHash={:?}, expirationTimestamp={until}",
            hash(told.as_bytes()),
            hash(key_id.as_bytes()),
            hash(state_key.as_bytes()),
        ))
    }

    fn put_in_force(&self, state: State) {
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(state));
    }

    /// A seed, encrypted by the provider.
    async fn new_seed(&self, uid: &str) -> Result<(Seed, EncryptedObject), String> {
        let begun = std::time::Instant::now();
        let generated = Seed::generate();
        self.metrics.key_generated(begun, generated.is_ok());
        let (seed, bytes) = generated?;
        let answer = self.service.encrypt(uid, &bytes).await;
        let answer = answer.map_err(|error| format!("failed to encrypt DEK, error: {error}"))?;
        let mut envelope = EncryptedObject {
            // Any byte passes the checks of a whole value.
            encrypted_data: vec![0],
            key_id: answer.key_id,
            encrypted_source: answer.ciphertext,
            annotations: answer.annotations,
            source_type: HKDF_SEED,
        };
        envelope::validate(&envelope)?;
        envelope.encrypted_data.clear();
        Ok((seed, envelope))
    }
}
