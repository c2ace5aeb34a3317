//! What the managers count, for the kubelet's metrics.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Shared counters; a clone counts into the same ones.
#[derive(Clone, Debug, Default)]
pub struct Figures(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    cpu_requests: AtomicU64,
    cpu_errors: AtomicU64,
    memory_requests: AtomicU64,
    memory_errors: AtomicU64,
    admissions: AtomicU64,
    admission_errors: AtomicU64,
    cpus: Mutex<Cpus>,
    alignments: Mutex<BTreeMap<(&'static str, &'static str, bool), u64>>,
}

/// Given away, left to share, and given away by NUMA node.
type Cpus = (usize, usize, Vec<(usize, usize)>);

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Figures {
    pub(crate) fn pinning_requested(&self) {
        add(&self.0.cpu_requests);
    }

    pub(crate) fn pinning_failed(&self) {
        add(&self.0.cpu_errors);
    }

    pub(crate) fn memory_requested(&self) {
        add(&self.0.memory_requests);
    }

    pub(crate) fn memory_failed(&self) {
        add(&self.0.memory_errors);
    }

    pub(crate) fn admission(&self) {
        add(&self.0.admissions);
    }

    pub(crate) fn admission_failed(&self) {
        add(&self.0.admission_errors);
    }

    fn note(&self, scope: &'static str, boundary: &'static str, aligned: bool) {
        let mut all = self.0.alignments.lock().unwrap_or_else(PoisonError::into_inner);
        *all.entry((scope, boundary, aligned)).or_default() += 1;
    }

    pub(crate) fn aligned(&self, scope: &'static str, boundary: &'static str) {
        self.note(scope, boundary, true);
    }

    pub(crate) fn not_aligned(&self, scope: &'static str, boundary: &'static str) {
        self.note(scope, boundary, false);
    }

    pub(crate) fn cpus(&self, exclusive: usize, shared: usize, by_node: Vec<(usize, usize)>) {
        let mut cpus = self.0.cpus.lock().unwrap_or_else(PoisonError::into_inner);
        *cpus = (exclusive, shared, by_node);
    }

    /// In Prometheus' text form, under upstream's names.
    pub fn text(&self) -> String {
        let inner = &self.0;
        let mut text = String::new();
        let mut one = |name: &str, kind: &str, samples: &[(String, u64)]| {
            text.push_str(&format!("# TYPE kubelet_{name} {kind}\n"));
            for (labels, value) in samples {
                text.push_str(&format!("kubelet_{name}{labels} {value}\n"));
            }
        };
        for (name, value) in [
            ("cpu_manager_pinning_requests_total", &inner.cpu_requests),
            ("cpu_manager_pinning_errors_total", &inner.cpu_errors),
            ("memory_manager_pinning_requests_total", &inner.memory_requests),
            ("memory_manager_pinning_errors_total", &inner.memory_errors),
            ("topology_manager_admission_requests_total", &inner.admissions),
            ("topology_manager_admission_errors_total", &inner.admission_errors),
        ] {
            one(name, "counter", &[(String::new(), value.load(Ordering::Relaxed))]);
        }
        let (exclusive, shared, by_node) =
            inner.cpus.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let plain = |value: usize| [(String::new(), value as u64)];
        one("cpu_manager_exclusive_cpu_allocation_count", "gauge", &plain(exclusive));
        one("cpu_manager_shared_pool_size_millicores", "gauge", &plain(shared * 1000));
        let nodes: Vec<_> = by_node
            .into_iter()
            .map(|(node, count)| (format!("{{numa_node=\"{node}\"}}"), count as u64))
            .collect();
        one("cpu_manager_allocation_per_numa", "gauge", &nodes);
        let all = inner.alignments.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (name, aligned) in [
            ("container_aligned_compute_resources_count", true),
            ("container_aligned_compute_resources_failure_count", false),
        ] {
            let of_kind = all.iter().filter(|((.., is), _)| *is == aligned);
            let samples: Vec<_> = of_kind
                .map(|((scope, boundary, _), count)| {
                    (format!("{{boundary=\"{boundary}\",scope=\"{scope}\"}}"), *count)
                })
                .collect();
            one(name, "counter", &samples);
        }
        text
    }
}
