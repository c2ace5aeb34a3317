//! Figures of encryption, under upstream's names (`storage/value/metrics.go`, `envelope/metrics`,
//! `encryptionconfig/metrics`).

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use telemetry::{HistogramVec, IntCounterVec, IntGaugeVec, Registry, exponential};

use crate::hash::hash;

/// Series of key ids kept at most: ids are the provider's, and may be many.
const KEY_IDS_MAX: usize = 100;

#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    server: String,
    durations: HistogramVec,
    operations: IntCounterVec,
    cache_misses: IntCounterVec,
    generations: HistogramVec,
    failed_generations: IntCounterVec,
    kms: HistogramVec,
    key_ids: IntCounterVec,
    key_id_times: IntGaugeVec,
    key_id_status_times: IntGaugeVec,
    invalid_key_ids: IntCounterVec,
    cached: IntGaugeVec,
    reloads: IntCounterVec,
    reload_times: IntGaugeVec,
    config: IntGaugeVec,
    used: Mutex<VecDeque<[String; 3]>>,
    told: Mutex<VecDeque<[String; 2]>>,
    last_config: Mutex<String>,
}

/// Counts a transformation when it is done.
pub(crate) struct Timer<'m> {
    metrics: &'m Metrics,
    labels: [&'m str; 3],
    begun: Instant,
}

const KEY_ID: [&str; 4] =
    ["transformation_type", "provider_name", "key_id_hash", "apiserver_id_hash"];

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

impl Metrics {
    /// `server` is the server's identity.
    pub(crate) fn new(server: &str) -> Metrics {
        let r = Registry::default();
        let storage = exponential(5e-6, 2.0, 25);
        let envelope = |name: &str| format!("apiserver_envelope_encryption_{name}");
        let controller = |name: &str| format!("apiserver_encryption_config_controller_{name}");
        Metrics {
            server: hash(server.as_bytes()),
            durations: r.histograms(
                "apiserver_storage_transformation_duration_seconds",
                "Latencies in seconds of value transformation operations.",
                &["transformation_type", "transformer_prefix"],
                &storage,
            ),
            operations: r.counters(
                "apiserver_storage_transformation_operations_total",
                "Transformations of values, by outcome.",
                &["resource", "transformation_type", "transformer_prefix", "status"],
            ),
            cache_misses: r.counters(
                "apiserver_storage_envelope_transformation_cache_misses_total",
                "Values whose data encryption key a KMS provider had to be asked for.",
                &[],
            ),
            generations: r.histograms(
                "apiserver_storage_data_key_generation_duration_seconds",
                "Latencies in seconds of data encryption key(DEK) generation operations.",
                &[],
                &storage[..14],
            ),
            failed_generations: r.counters(
                "apiserver_storage_data_key_generation_failures_total",
                "Total number of failed data encryption key(DEK) generation operations.",
                &[],
            ),
            kms: r.histograms(
                &envelope("kms_operations_latency_seconds"),
                "KMS operation duration with gRPC error code status total.",
                &["provider_name", "method_name", "grpc_status_code"],
                &exponential(0.0001, 2.0, 20),
            ),
            key_ids: r.counters(
                &envelope("key_id_hash_total"),
                "Number of times a keyID is used, by direction, provider and server.",
                &KEY_ID,
            ),
            key_id_times: r.gauges(
                &envelope("key_id_hash_last_timestamp_seconds"),
                "The last time in seconds when a keyID was used.",
                &KEY_ID,
            ),
            key_id_status_times: r.gauges(
                &envelope("key_id_hash_status_last_timestamp_seconds"),
                "The last time in seconds when a keyID was returned by the Status RPC call.",
                &KEY_ID[1..],
            ),
            invalid_key_ids: r.counters(
                &envelope("invalid_key_id_from_status_total"),
                "Invalid keyIDs that Status RPC calls returned, by error.",
                &["provider_name", "error"],
            ),
            cached: r.gauges(
                &envelope("dek_source_cache_size"),
                "Data encryption key sources that are known without asking the KMS provider.",
                &["provider_name"],
            ),
            reloads: r.counters(
                &controller("automatic_reloads_total"),
                "Reloads of the encryption configuration, by outcome and server.",
                &["status", "apiserver_id_hash"],
            ),
            reload_times: r.gauges(
                &controller("automatic_reload_last_timestamp_seconds"),
                "Time of the last reload of the encryption configuration, by outcome and server.",
                &["status", "apiserver_id_hash"],
            ),
            config: r.gauges(
                &controller("last_config_info"),
                "The encryption configuration in force, by its hash.",
                &["apiserver_id_hash", "hash"],
            ),
            used: Mutex::default(),
            told: Mutex::default(),
            last_config: Mutex::default(),
            registry: r,
        }
    }

    pub(crate) fn text(&self) -> String {
        self.registry.families()
    }

    pub(crate) fn transformation<'m>(
        &'m self,
        resource: &'m str,
        direction: &'m str,
        prefix: &'m str,
    ) -> Timer<'m> {
        Timer { metrics: self, labels: [resource, direction, prefix], begun: Instant::now() }
    }

    pub(crate) fn cache_missed(&self) {
        self.cache_misses.with_label_values::<&str>(&[]).inc();
    }

    pub(crate) fn key_generated(&self, begun: Instant, well: bool) {
        match well {
            true => self
                .generations
                .with_label_values::<&str>(&[])
                .observe(begun.elapsed().as_secs_f64()),
            false => self.failed_generations.with_label_values::<&str>(&[]).inc(),
        }
    }

    pub(crate) fn kms_operation(&self, provider: &str, method: &str, code: &str, begun: Instant) {
        let family = self.kms.with_label_values(&[provider, method, code]);
        family.observe(begun.elapsed().as_secs_f64());
    }

    /// A key was used in one direction.
    pub(crate) fn key_used(&self, direction: &str, provider: &str, key_id: &str) {
        let key = hash(key_id.as_bytes());
        let forgotten = remember(&self.used, [direction.into(), provider.into(), key.clone()]);
        if let Some([direction, provider, key]) = forgotten {
            let labels = [direction.as_str(), &provider, &key, &self.server];
            // Either may be gone already.
            self.key_ids.remove_label_values(&labels).unwrap_or_default();
            self.key_id_times.remove_label_values(&labels).unwrap_or_default();
        }
        let labels = [direction, provider, &key, &self.server];
        self.key_ids.with_label_values(&labels).inc();
        self.key_id_times.with_label_values(&labels).set(now());
    }

    /// A provider named its key.
    pub(crate) fn key_told(&self, provider: &str, key_id: &str) {
        let key = hash(key_id.as_bytes());
        if let Some([provider, key]) = remember(&self.told, [provider.into(), key.clone()]) {
            let labels = [provider.as_str(), &key, &self.server];
            self.key_id_status_times.remove_label_values(&labels).unwrap_or_default();
        }
        self.key_id_status_times.with_label_values(&[provider, &key, &self.server]).set(now());
    }

    pub(crate) fn invalid_key_id(&self, provider: &str, code: &str) {
        self.invalid_key_ids.with_label_values(&[provider, code]).inc();
    }

    pub(crate) fn cache_size(&self, provider: &str, size: usize) {
        let size = i64::try_from(size).unwrap_or(i64::MAX);
        self.cached.with_label_values(&[provider]).set(size);
    }

    /// A configuration is in force.
    pub(crate) fn loaded(&self, hash: &str) {
        let mut last = self.last_config.lock().unwrap_or_else(PoisonError::into_inner);
        if !last.is_empty() {
            self.config.remove_label_values(&[&self.server, &*last]).unwrap_or_default();
        }
        self.config.with_label_values(&[self.server.as_str(), hash]).set(1);
        hash.clone_into(&mut last);
    }

    pub(crate) fn reloaded(&self, hash: &str) {
        self.reload("success");
        self.loaded(hash);
    }

    pub(crate) fn reload_failed(&self) {
        self.reload("failure");
    }

    fn reload(&self, status: &str) {
        let labels = [status, self.server.as_str()];
        self.reloads.with_label_values(&labels).inc();
        self.reload_times.with_label_values(&labels).set(now());
    }
}

/// Puts labels last in the order of use; the ones that are too many then.
fn remember<const N: usize>(
    known: &Mutex<VecDeque<[String; N]>>,
    labels: [String; N],
) -> Option<[String; N]> {
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    if known.back() == Some(&labels) {
        return None;
    }
    known.retain(|other| *other != labels);
    known.push_back(labels);
    (known.len() > KEY_IDS_MAX).then(|| known.pop_front()).flatten()
}

impl Timer<'_> {
    pub(crate) fn done(self, well: bool) {
        let [resource, direction, prefix] = self.labels;
        let status = if well { "OK" } else { "unknown-non-grpc" };
        let operations = &self.metrics.operations;
        operations.with_label_values(&[resource, direction, prefix, status]).inc();
        if well {
            let family = self.metrics.durations.with_label_values(&[direction, prefix]);
            family.observe(self.begun.elapsed().as_secs_f64());
        }
    }
}
