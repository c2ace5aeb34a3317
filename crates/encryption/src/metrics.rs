//! Figures of encryption, under upstream's names (`storage/value/metrics.go`, `envelope/metrics`,
//! `encryptionconfig/metrics`).

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use telemetry::{HistogramVec, IntCounterVec, IntGaugeVec, Registry, exponential};

use crate::hash::hash;

/// Series of key ids kept at most: ids are the provider's, and may be many.
const KEY_IDS_MAX: usize = 100;

/// The figures of one server's encryption.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    server: String,
    values: Values,
    keys: Keys,
    reloads: Reloads,
}

/// Transformations of values, and the data encryption keys that they need.
#[derive(Debug)]
struct Values {
    durations: HistogramVec,
    operations: IntCounterVec,
    cache_misses: IntCounterVec,
    generations: HistogramVec,
    failed_generations: IntCounterVec,
}

/// KMS providers and their keys.
#[derive(Debug)]
struct Keys {
    operations: HistogramVec,
    uses: IntCounterVec,
    use_times: IntGaugeVec,
    status_times: IntGaugeVec,
    invalid: IntCounterVec,
    cached: IntGaugeVec,
    used: Mutex<VecDeque<[String; 3]>>,
    told: Mutex<VecDeque<[String; 2]>>,
}

/// The configuration.
#[derive(Debug)]
struct Reloads {
    counts: IntCounterVec,
    times: IntGaugeVec,
    config: IntGaugeVec,
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

impl Values {
    fn new(r: &Registry) -> Values {
        let bounds = exponential(5e-6, 2.0, 25);
        Values {
            durations: r.histograms(
                "apiserver_storage_transformation_duration_seconds",
                "Latencies in seconds of value transformation operations.",
                &["transformation_type", "transformer_prefix"],
                &bounds,
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
                &bounds[..14],
            ),
            failed_generations: r.counters(
                "apiserver_storage_data_key_generation_failures_total",
                "Total number of failed data encryption key(DEK) generation operations.",
                &[],
            ),
        }
    }
}

impl Keys {
    fn new(r: &Registry) -> Keys {
        let named = |name: &str| format!("apiserver_envelope_encryption_{name}");
        Keys {
            operations: r.histograms(
                &named("kms_operations_latency_seconds"),
                "KMS operation duration with gRPC error code status total.",
                &["provider_name", "method_name", "grpc_status_code"],
                &exponential(0.0001, 2.0, 20),
            ),
            uses: r.counters(
                &named("key_id_hash_total"),
                "Number of times a keyID is used, by direction, provider and server.",
                &KEY_ID,
            ),
            use_times: r.gauges(
                &named("key_id_hash_last_timestamp_seconds"),
                "The last time in seconds when a keyID was used.",
                &KEY_ID,
            ),
            status_times: r.gauges(
                &named("key_id_hash_status_last_timestamp_seconds"),
                "The last time in seconds when a keyID was returned by the Status RPC call.",
                &KEY_ID[1..],
            ),
            invalid: r.counters(
                &named("invalid_key_id_from_status_total"),
                "Invalid keyIDs that Status RPC calls returned, by error.",
                &["provider_name", "error"],
            ),
            cached: r.gauges(
                &named("dek_source_cache_size"),
                "Data encryption key sources that are known without asking the KMS provider.",
                &["provider_name"],
            ),
            used: Mutex::default(),
            told: Mutex::default(),
        }
    }
}

impl Reloads {
    fn new(r: &Registry) -> Reloads {
        let named = |name: &str| format!("apiserver_encryption_config_controller_{name}");
        Reloads {
            counts: r.counters(
                &named("automatic_reloads_total"),
                "Reloads of the encryption configuration, by outcome and server.",
                &["status", "apiserver_id_hash"],
            ),
            times: r.gauges(
                &named("automatic_reload_last_timestamp_seconds"),
                "Time of the last reload of the encryption configuration, by outcome and server.",
                &["status", "apiserver_id_hash"],
            ),
            config: r.gauges(
                &named("last_config_info"),
                "The encryption configuration in force, by its hash.",
                &["apiserver_id_hash", "hash"],
            ),
            last_config: Mutex::default(),
        }
    }
}

impl Metrics {
    /// `server` is the server's identity.
    pub(crate) fn new(server: &str) -> Metrics {
        let registry = Registry::default();
        let (values, keys) = (Values::new(&registry), Keys::new(&registry));
        let reloads = Reloads::new(&registry);
        Metrics { registry, server: hash(server.as_bytes()), values, keys, reloads }
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
        self.values.cache_misses.with_label_values::<&str>(&[]).inc();
    }

    pub(crate) fn key_generated(&self, begun: Instant, well: bool) {
        match well {
            true => self
                .values
                .generations
                .with_label_values::<&str>(&[])
                .observe(begun.elapsed().as_secs_f64()),
            false => self.values.failed_generations.with_label_values::<&str>(&[]).inc(),
        }
    }

    pub(crate) fn kms_operation(&self, provider: &str, method: &str, code: &str, begun: Instant) {
        let family = self.keys.operations.with_label_values(&[provider, method, code]);
        family.observe(begun.elapsed().as_secs_f64());
    }

    /// A key was used in one direction.
    pub(crate) fn key_used(&self, direction: &str, provider: &str, key_id: &str) {
        let key = hash(key_id.as_bytes());
        let forgotten = remember(&self.keys.used, [direction.into(), provider.into(), key.clone()]);
        if let Some([direction, provider, key]) = forgotten {
            let labels = [direction.as_str(), &provider, &key, &self.server];
            // Either may be gone already.
            self.keys.uses.remove_label_values(&labels).unwrap_or_default();
            self.keys.use_times.remove_label_values(&labels).unwrap_or_default();
        }
        let labels = [direction, provider, &key, &self.server];
        self.keys.uses.with_label_values(&labels).inc();
        self.keys.use_times.with_label_values(&labels).set(now());
    }

    /// A provider named its key.
    pub(crate) fn key_told(&self, provider: &str, key_id: &str) {
        let key = hash(key_id.as_bytes());
        if let Some([provider, key]) = remember(&self.keys.told, [provider.into(), key.clone()]) {
            let labels = [provider.as_str(), &key, &self.server];
            self.keys.status_times.remove_label_values(&labels).unwrap_or_default();
        }
        self.keys.status_times.with_label_values(&[provider, &key, &self.server]).set(now());
    }

    pub(crate) fn invalid_key_id(&self, provider: &str, code: &str) {
        self.keys.invalid.with_label_values(&[provider, code]).inc();
    }

    pub(crate) fn cache_size(&self, provider: &str, size: usize) {
        let size = i64::try_from(size).unwrap_or(i64::MAX);
        self.keys.cached.with_label_values(&[provider]).set(size);
    }

    /// A configuration is in force.
    pub(crate) fn loaded(&self, hash: &str) {
        let mut last = self.reloads.last_config.lock().unwrap_or_else(PoisonError::into_inner);
        if !last.is_empty() {
            self.reloads.config.remove_label_values(&[&self.server, &*last]).unwrap_or_default();
        }
        self.reloads.config.with_label_values(&[self.server.as_str(), hash]).set(1);
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
        self.reloads.counts.with_label_values(&labels).inc();
        self.reloads.times.with_label_values(&labels).set(now());
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
        let operations = &self.metrics.values.operations;
        operations.with_label_values(&[resource, direction, prefix, status]).inc();
        if well {
            let family = self.metrics.values.durations.with_label_values(&[direction, prefix]);
            family.observe(self.begun.elapsed().as_secs_f64());
        }
    }
}
