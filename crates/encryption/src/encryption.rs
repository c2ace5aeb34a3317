//! The transformer that the store asks: the rules in force, which may be exchanged.

use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use store::{Kept, Opened, Place, Stamp, Transformer};
use tasks::Tasks;

use crate::EncryptionError;
use crate::metrics::Metrics;
use crate::rules::Rules;

/// Encryption at rest with one configuration at a time.
#[derive(Debug)]
pub struct Encryption {
    rules: RwLock<Arc<Rules>>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) tasks: Tasks,
    followed: bool,
}

impl Encryption {
    /// Reads a configuration. `followed` is whether [`Encryption::follow`] will look after changes of its file;
    /// `server` names this server in metrics.
    pub async fn new(
        text: &str,
        followed: bool,
        server: &str,
        tasks: &Tasks,
    ) -> Result<Encryption, EncryptionError> {
        let metrics = Arc::new(Metrics::new(server));
        let rules = Rules::new(text, followed, (tasks, &metrics)).await?;
        metrics.loaded(&rules.hash);
        let rules = RwLock::new(Arc::new(rules));
        Ok(Encryption { rules, metrics, tasks: tasks.clone(), followed })
    }

    pub(crate) fn rules(&self) -> Arc<Rules> {
        self.rules.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts other rules in force; the former ones.
    pub(crate) fn exchange(&self, rules: Rules) -> Arc<Rules> {
        let mut current = self.rules.write().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *current, Arc::new(rules))
    }

    /// Whether there is something that `/healthz/kms-providers` tells: KMS providers, or a file that may name some.
    pub fn has_health(&self) -> bool {
        self.followed || !self.rules().kms.is_empty()
    }

    /// The health of the KMS providers. Answers of the providers are kept for some seconds.
    pub async fn health(&self) -> Result<(), String> {
        self.rules().health().await
    }

    /// The figures, in Prometheus' text form.
    pub fn metrics_text(&self) -> String {
        self.metrics.text()
    }
}

#[async_trait]
impl Transformer for Encryption {
    fn transform_to_storage(&self, place: Place<'_>, value: Vec<u8>) -> Result<Kept, String> {
        self.rules().transform_to_storage(place, value)
    }

    fn transform_from_storage(&self, place: Place<'_>, kept: Vec<u8>) -> Result<Opened, String> {
        self.rules().transform_from_storage(place, kept)
    }

    async fn prepare(&self, place: Place<'_>, kept: &[u8]) {
        self.rules().prepare(place, kept).await;
    }

    fn write_stamp(&self, key: &str) -> Option<Stamp> {
        self.rules().write_stamp(key)
    }
}
