//! KMS v2: an external provider encrypts seeds, and keys derived from a seed encrypt values
//! (`storage/value/encrypt/envelope/kmsv2`, and the probe in `server/options/encryptionconfig`).
//!
//! The provider is asked once for each seed and about its state every minute, never for a value. One seed serves until
//! the provider names another key; without word from the provider it serves for three minutes more, then writes
//! fail. Reads go on as long as the seed is known.

mod cache;
mod envelope;
mod probe;
mod seed;
mod service;
mod wire;

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use store::{Opened, Place, Stamp};
use tasks::Tasks;

use crate::config::KmsConfiguration;
use crate::hash::hash;
use crate::metrics::Metrics;
use crate::{EncryptionError, fault};
use cache::Cache;
use probe::Probe;
use seed::Seed;
use service::Service;
use wire::EncryptedObject;

/// Between two looks at a healthy provider, and at one that is not.
const LOOK: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_secs(10);
const V1: &str = "KMSv1 is deprecated and will only receive security updates going forward. Use KMSv2 instead.  \
                  Set --feature-gates=KMSv1=true to use the deprecated KMSv1 feature.";

/// The seed that encrypts values at present, and what is stored beside them so that they can be decrypted.
#[derive(Debug)]
struct State {
    seed: Arc<Seed>,
    /// All but the data.
    envelope: EncryptedObject,
    stamp: Stamp,
    /// Until then values may be encrypted.
    expires: Expiry,
}

/// A time that passes by the monotonic clock and is told by the wall's.
#[derive(Debug, Clone, Copy)]
struct Expiry {
    at: tokio::time::Instant,
    told: jiff::Timestamp,
}

/// One provider.
pub(crate) struct Kms {
    name: String,
    /// Of its values.
    prefix: String,
    service: Service,
    state: RwLock<Option<Arc<State>>>,
    probe: tokio::sync::Mutex<Probe>,
    cache: Mutex<Cache>,
    metrics: Arc<Metrics>,
}

impl Kms {
    /// A provider that nobody has asked anything yet.
    pub(crate) fn new(
        config: &KmsConfiguration,
        metrics: &Arc<Metrics>,
    ) -> Result<Kms, EncryptionError> {
        if config.api_version == "v1" {
            return Err(fault(V1));
        }
        let name = config.name.clone();
        let service = Service::new(config, metrics.clone()).map_err(|why| {
            fault(format!("could not configure KMSv2-Plugin's probe {name:?}, error: {why}"))
        })?;
        Ok(Kms {
            prefix: format!("k8s:enc:kms:v2:{name}:"),
            name,
            service,
            state: RwLock::new(None),
            probe: tokio::sync::Mutex::default(),
            cache: Mutex::default(),
            metrics: metrics.clone(),
        })
    }

    /// Asks for the provider's state, and goes on asking in the background. A provider that starts together with
    /// this server need not be there yet.
    pub(crate) async fn start(self: Arc<Self>, tasks: &Tasks) {
        let mut healthy = self.look().await;
        let kms = self;
        tasks.spawn("state of a KMS provider", async move {
            loop {
                tokio::time::sleep(if healthy { LOOK } else { LOOK_AGAIN }).await;
                healthy = kms.look().await;
            }
        });
    }

    async fn look(&self) -> bool {
        let checked = self.check().await;
        if let Err(error) = &checked {
            tracing::error!(name = self.name, error, "kms plugin failed health check probe");
        }
        checked.is_ok()
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(crate) fn deadline(&self) -> Duration {
        self.service.deadline()
    }

    pub(crate) fn write_stamp(&self) -> Option<Stamp> {
        self.state().ok().map(|state| state.stamp.clone())
    }

    fn state(&self) -> Result<Arc<State>, String> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner).clone();
        state.ok_or_else(|| "got unexpected nil transformer".into())
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Encrypts a value with the present seed.
    pub(crate) fn write(
        &self,
        place: Place<'_>,
        value: &[u8],
    ) -> Result<(Vec<u8>, Option<Stamp>), String> {
        let state = self.state()?;
        state.may_encrypt()?;
        let data = state.seed.encrypt(place.authenticated.as_bytes(), value)?;
        let object = EncryptedObject { encrypted_data: data, ..state.envelope.clone() };
        self.metrics.key_used("to_storage", &self.name, &object.key_id);
        let mut bytes = self.prefix.as_bytes().to_vec();
        bytes.extend(envelope::encode(&object)?);
        Ok((bytes, Some(state.stamp.clone())))
    }

    /// Decrypts a value whose seed is known.
    pub(crate) fn read(&self, place: Place<'_>, kept: &[u8]) -> Result<Opened, String> {
        let object = envelope::decode(kept)?;
        self.state()?;
        let seed = self.cache().get(&envelope::cache_key(&object))?;
        self.metrics.key_used("from_storage", &self.name, &object.key_id);
        let value = seed.decrypt(place.authenticated.as_bytes(), &object.encrypted_data)?;
        Ok(Opened { value, stamp: Some(self.stamp(&object)) })
    }

    /// Gets the seed of a value from the provider, unless it is known. A provider that has just failed to give it
    /// is not asked again at once.
    pub(crate) async fn prepare(&self, kept: &[u8]) {
        let Ok(object) = envelope::decode(kept) else { return };
        let key = envelope::cache_key(&object);
        if self.cache().is_settled(&key) {
            return;
        }
        self.metrics.cache_missed();
        let asked = self.service.decrypt(&object).await;
        let seed = asked.map_err(|error| format!("failed to decrypt DEK, error: {error}"));
        let seed = seed.and_then(|plain| Seed::of(object.source_type, &plain));
        let known = self.cache().set(key, seed.map(Arc::new));
        self.metrics.cache_size(&self.name, known);
    }

    /// A value is stale when its key, or how the key is made of the seed, is not the present one.
    fn stamp(&self, object: &EncryptedObject) -> Stamp {
        format!("{}{}:{}", self.prefix, object.source_type, hash(object.key_id.as_bytes())).into()
    }
}

impl State {
    fn may_encrypt(&self) -> Result<(), String> {
        if tokio::time::Instant::now() <= self.expires.at {
            return Ok(());
        }
        let key = hash(self.envelope.key_id.as_bytes());
        let (then, now) = (seconds(self.expires.told), seconds(jiff::Timestamp::now()));
        Err(format!(
            "encryptedDEKSource with keyID hash {key:?} expired at {then} (current time is {now})"
        ))
    }
}

/// RFC 3339 in seconds.
fn seconds(time: jiff::Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
