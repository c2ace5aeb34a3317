//! What waits in the queues and what the caches hold, counted when it is asked for.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError, Weak};

use client::Listing;
use k8s_openapi::api::core::v1::Pod;
use telemetry::family;

use crate::core::Core;
use crate::figures::counted;
use crate::queue::Waiting;

/// A scheduler's memory, and the pods that it sees.
type Counted = (Weak<Mutex<Core>>, Listing<Pod>);

static CORES: Mutex<Vec<Counted>> = Mutex::new(Vec::new());

/// From now on this memory is counted, too.
pub(crate) fn count_in(core: Weak<Mutex<Core>>, pods: Listing<Pod>) {
    let mut cores = CORES.lock().unwrap_or_else(PoisonError::into_inner);
    cores.retain(|(known, _)| known.strong_count() > 0);
    cores.push((core, pods));
}

/// What pods ask for and may use, in Prometheus' text form (`/metrics/resources`). Schedulers of one process see
/// the same pods.
pub fn pod_resources() -> String {
    let mut cores = CORES.lock().unwrap_or_else(PoisonError::into_inner);
    cores.retain(|(known, _)| known.strong_count() > 0);
    let pods = cores.first().map(|(_, pods)| pods.clone());
    drop(cores);
    pods.map(|pods| crate::pod_resources::text(&pods.list())).unwrap_or_default()
}

/// All figures of scheduling, in Prometheus' text form.
pub fn figures() -> String {
    counted() + &memory()
}

/// What waits, and what the caches hold.
fn memory() -> String {
    let (mut waiting, mut cached) = (Waiting::default(), [0; 3]);
    let mut is_there = false;
    for (core, _) in CORES.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        let Some(core) = core.upgrade() else { continue };
        is_there = true;
        let core = core.lock().unwrap_or_else(PoisonError::into_inner);
        core.queue.count_into(&mut waiting);
        cached.iter_mut().zip(core.cache.counts()).for_each(|(all, one)| *all += one);
    }
    if !is_there {
        return String::new();
    }
    let Waiting { active, backoff, unschedulable, gated, by_plugin } = waiting;
    pending([active, backoff, unschedulable, gated]) + &refused(&by_plugin) + &sizes(cached)
}

fn pending(counts: [usize; 4]) -> String {
    let about = (
        "scheduler_pending_pods",
        "gauge",
        "Number of pending pods, by the queue type. 'active' means number of pods in activeQ; 'backoff' means number of pods in backoffQ; 'unschedulable' means number of pods in unschedulablePods that the scheduler attempted to schedule and failed; 'gated' is the number of unschedulable pods that the scheduler never attempted to schedule because they are gated.",
    );
    let queues = ["active", "backoff", "unschedulable", "gated"];
    family(about, queues.into_iter().zip(counts).map(|(queue, n)| ([("queue", queue)], n as f64)))
}

fn refused(by_plugin: &BTreeMap<(String, &'static str), usize>) -> String {
    let about = (
        "scheduler_unschedulable_pods",
        "gauge",
        "The number of unschedulable pods broken down by plugin name. A pod will increment the gauge for all plugins that caused it to not schedule and so this metric have meaning only when broken down by plugin.",
    );
    let figures = by_plugin.iter().map(|((profile, plugin), n)| {
        ([("plugin", *plugin), ("profile", profile.as_str())], *n as f64)
    });
    family(about, figures)
}

fn sizes(counts: [usize; 3]) -> String {
    let about = (
        "scheduler_cache_size",
        "gauge",
        "Number of nodes, pods, and assumed (bound) pods in the scheduler cache.",
    );
    let types = ["nodes", "pods", "assumed_pods"];
    family(about, types.into_iter().zip(counts).map(|(kind, n)| ([("type", kind)], n as f64)))
}
