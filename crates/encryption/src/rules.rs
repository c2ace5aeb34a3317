//! The providers of every resource, made of one configuration.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use store::{Kept, Opened, Place, Stamp};
use tasks::Tasks;

use crate::config::{Configuration, ProviderConfiguration};
use crate::failures::Failures;
use crate::hash::hash;
use crate::kms::Kms;
use crate::metrics::Metrics;
use crate::provider::Provider;
use crate::resources::{GroupResource, of_key};
use crate::{EncryptionError, fault};

/// One configuration in force. KMS providers are asked for their health until it is dropped.
pub(crate) struct Rules {
    by_resource: BTreeMap<GroupResource, Vec<Arc<Provider>>>,
    pub(crate) kms: Vec<Arc<Kms>>,
    /// Of the file: `sha256:` and digits.
    pub(crate) hash: String,
    metrics: Arc<Metrics>,
    /// They end with the rules.
    tasks: Tasks,
}

impl std::fmt::Debug for Rules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.by_resource.iter()).finish()
    }
}

impl Drop for Rules {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

impl Rules {
    /// Makes the providers, and asks each KMS provider for its state once; one that does not answer is asked again
    /// in the background.
    pub(crate) async fn new(
        text: &str,
        reload: bool,
        (tasks, metrics): (&Tasks, &Arc<Metrics>),
    ) -> Result<Rules, EncryptionError> {
        let config = Configuration::parse(text, reload)?;
        let (hash, tasks) = (hash(text.as_bytes()), tasks.child());
        let mut rules = Rules {
            by_resource: BTreeMap::new(),
            kms: Vec::new(),
            hash,
            metrics: metrics.clone(),
            tasks,
        };
        let building =
            |e: EncryptionError| fault(format!("error while building transformers: {e}"));
        for entry in &config.resources {
            let providers = entry.providers.iter().map(|p| rules.provider(p));
            let providers = providers.collect::<Vec<_>>();
            let mut made = Vec::new();
            for provider in providers {
                made.push(Arc::new(provider.map_err(building)?));
            }
            rules.kms.extend(made.iter().filter_map(|provider| match &**provider {
                Provider::Kms(kms) => Some(kms.clone()),
                _ => None,
            }));
            for name in &entry.resources {
                let resource = GroupResource::parse(name);
                rules.refuse_masked(&resource).map_err(building)?;
                rules.by_resource.entry(resource).or_default().extend(made.iter().cloned());
            }
        }
        for kms in &rules.kms {
            kms.clone().start(&rules.tasks).await;
        }
        Ok(rules)
    }

    fn provider(&self, config: &ProviderConfiguration) -> Result<Provider, EncryptionError> {
        if let Some(keys) = &config.aesgcm {
            return Provider::aesgcm(keys);
        }
        if let Some(keys) = &config.aescbc {
            return Provider::aescbc(keys);
        }
        if let Some(keys) = &config.secretbox {
            return Provider::secretbox(keys);
        }
        match &config.kms {
            Some(kms) => Ok(Provider::Kms(Arc::new(Kms::new(kms, &self.metrics)?))),
            None => Ok(Provider::Identity),
        }
    }

    /// A resource that an earlier entry names by a wildcard cannot have providers of its own.
    fn refuse_masked(&self, resource: &GroupResource) -> Result<(), EncryptionError> {
        let group = GroupResource::new(&resource.group, "*");
        for earlier in [group, GroupResource::everything()] {
            if self.by_resource.contains_key(&earlier) {
                let (resource, earlier) = (resource.written(), earlier.written());
                return Err(fault(format!(
                    "resource {resource:?} is masked by earlier rule {earlier:?}"
                )));
            }
        }
        Ok(())
    }

    fn providers(&self, resource: &GroupResource) -> Option<&[Arc<Provider>]> {
        let exact = self.by_resource.get(resource);
        let group = || self.by_resource.get(&GroupResource::new(&resource.group, "*"));
        let found = exact.or_else(group);
        let found = found.or_else(|| self.by_resource.get(&GroupResource::everything()));
        found.map(Vec::as_slice)
    }

    /// The providers of a key, and the name of its resource.
    fn of(&self, key: &str) -> Option<(&[Arc<Provider>], String)> {
        let resource = of_key(key)?;
        Some((self.providers(&resource)?, resource.to_string()))
    }

    pub(crate) fn write_stamp(&self, key: &str) -> Option<Stamp> {
        self.of(key)?.0.first()?.write_stamp()
    }

    /// Whether some provider may have made what has this stamp.
    pub(crate) fn knows(&self, stamp: &str) -> bool {
        self.by_resource.values().flatten().any(|provider| provider.knows(stamp))
    }

    pub(crate) fn transform_to_storage(
        &self,
        place: Place<'_>,
        value: Vec<u8>,
    ) -> Result<Kept, String> {
        let plain = |value| Ok(Kept { bytes: value, stamp: None });
        let Some((providers, resource)) = self.of(place.key) else { return plain(value) };
        let Some(first) = providers.first() else { return plain(value) };
        let timer = self.metrics.transformation(&resource, "to_storage", first.prefix());
        let written = first.write(place, value);
        timer.done(written.is_ok());
        let (bytes, stamp) = written?;
        Ok(Kept { bytes, stamp })
    }

    pub(crate) fn transform_from_storage(
        &self,
        place: Place<'_>,
        kept: Vec<u8>,
    ) -> Result<Opened, String> {
        let Some((providers, resource)) = self.of(place.key) else {
            // No copy: most values have no provider.
            return Provider::refuse_encrypted(&kept).map(|()| Opened { value: kept, stamp: None });
        };
        let mut failures = Failures::default();
        for provider in providers {
            let prefix = provider.prefix();
            let Some(rest) = kept.strip_prefix(prefix.as_bytes()) else { continue };
            let label = if prefix.is_empty() { "identity" } else { prefix };
            let timer = self.metrics.transformation(&resource, "from_storage", label);
            match provider.read(place, rest) {
                // The next provider may know what the identity does not.
                Err(_) if prefix.is_empty() => {}
                Err(why) => {
                    timer.done(false);
                    failures.add(why);
                }
                Ok(opened) => {
                    timer.done(true);
                    return Ok(opened);
                }
            }
        }
        if failures.is_empty() {
            self.metrics.transformation(&resource, "from_storage", "unknown").done(false);
        }
        Err(failures.told("no matching prefix found"))
    }

    /// Gets the key of a value from the KMS provider that has it.
    pub(crate) async fn prepare(&self, place: Place<'_>, kept: &[u8]) {
        let Some((providers, _)) = self.of(place.key) else { return };
        for provider in providers {
            if let Provider::Kms(kms) = &**provider
                && let Some(rest) = kept.strip_prefix(kms.prefix().as_bytes())
            {
                kms.prepare(rest).await;
            }
        }
    }

    /// The health of all KMS providers.
    pub(crate) async fn health(&self) -> Result<(), String> {
        let mut failures = Failures::default();
        for (index, kms) in self.kms.iter().enumerate() {
            if let Err(why) = kms.check().await {
                failures.add(format!("kms-provider-{index}: {why}"));
            }
        }
        if failures.is_empty() { Ok(()) } else { Err(failures.told("")) }
    }

    /// Twice the sum of the providers' deadlines: how long requests with former rules may still be under way.
    pub(crate) fn grace(&self) -> Duration {
        2 * self.kms.iter().map(|kms| kms.deadline()).sum::<Duration>()
    }
}
