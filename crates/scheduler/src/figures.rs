//! Figures of scheduling, under upstream's names (`pkg/scheduler/metrics`).
//!
//! They are the process's: schedulers of one process count together.

use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use telemetry::{HistogramVec, IntCounterVec, Registry, exponential, family};

use crate::core::Core;
use crate::framework::Status;
use crate::queue::Waiting;

struct Families {
    registry: Registry,
    attempts: IntCounterVec,
    durations: HistogramVec,
    algorithm: HistogramVec,
    slis: HistogramVec,
    tries: HistogramVec,
    preemptions: IntCounterVec,
    victims: HistogramVec,
    incoming: IntCounterVec,
    points: HistogramVec,
}

static FAMILIES: LazyLock<Families> = LazyLock::new(|| {
    let registry = Registry::default();
    Families {
        attempts: registry.counters(
            "scheduler_schedule_attempts_total",
            "Number of attempts to schedule pods, by the result. 'unschedulable' means a pod could not be scheduled, while 'error' means an internal scheduler problem.",
            &["result", "profile"],
        ),
        durations: registry.histograms(
            "scheduler_scheduling_attempt_duration_seconds",
            "Scheduling attempt latency in seconds (scheduling algorithm + binding)",
            &["result", "profile"],
            &exponential(0.001, 2.0, 15),
        ),
        algorithm: registry.histograms(
            "scheduler_scheduling_algorithm_duration_seconds",
            "Scheduling algorithm latency in seconds",
            &[],
            &exponential(0.001, 2.0, 15),
        ),
        slis: registry.histograms(
            "scheduler_pod_scheduling_sli_duration_seconds",
            "E2e latency for a pod being scheduled, from the time the pod enters the scheduling queue and might involve multiple scheduling attempts.",
            &["attempts"],
            &exponential(0.01, 2.0, 20),
        ),
        tries: registry.histograms(
            "scheduler_pod_scheduling_attempts",
            "Number of attempts to successfully schedule a pod.",
            &[],
            &exponential(1.0, 2.0, 5),
        ),
        preemptions: registry.counters(
            "scheduler_preemption_attempts_total",
            "Total preemption attempts in the cluster till now",
            &[],
        ),
        victims: registry.histograms(
            "scheduler_preemption_victims",
            "Number of selected preemption victims",
            &[],
            &exponential(1.0, 2.0, 7),
        ),
        incoming: registry.counters(
            "scheduler_queue_incoming_pods_total",
            "Number of pods added to scheduling queues by event and queue type.",
            &["queue", "event"],
        ),
        points: registry.histograms(
            "scheduler_framework_extension_point_duration_seconds",
            "Latency for running all plugins of a specific extension point.",
            &["extension_point", "status", "profile"],
            &exponential(0.0001, 2.0, 12),
        ),
        registry,
    }
});

/// How an attempt ended.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Ended {
    Scheduled,
    Unschedulable,
    Error,
}

/// An attempt of a profile has ended after so long.
pub(crate) fn attempted(ended: Ended, profile: &str, took: Duration) {
    let result = match ended {
        Ended::Scheduled => "scheduled",
        Ended::Unschedulable => "unschedulable",
        Ended::Error => "error",
    };
    FAMILIES.attempts.with_label_values(&[result, profile]).inc();
    FAMILIES.durations.with_label_values(&[result, profile]).observe(took.as_secs_f64());
}

/// A cycle has looked for a node for so long.
pub(crate) fn searched(took: Duration) {
    FAMILIES.algorithm.with_label_values::<&str>(&[]).observe(took.as_secs_f64());
}

/// A pod is bound, `since_first` after its first attempt.
pub(crate) fn bound(attempts: u32, since_first: Duration) {
    // Many attempts are one figure, so that there are not as many figures as attempts.
    let label = if attempts >= 15 { "15+".to_owned() } else { attempts.to_string() };
    FAMILIES.slis.with_label_values(&[label.as_str()]).observe(since_first.as_secs_f64());
    FAMILIES.tries.with_label_values::<&str>(&[]).observe(attempts.into());
}

/// So many pods have to make room for one.
pub(crate) fn preempted(victims: usize) {
    FAMILIES.preemptions.with_label_values::<&str>(&[]).inc();
    FAMILIES.victims.with_label_values::<&str>(&[]).observe(victims as f64);
}

/// A pod has come into a queue because of an event.
pub(crate) fn came(queue: &str, event: &str) {
    FAMILIES.incoming.with_label_values(&[queue, event]).inc();
}

/// All plugins of an extension point of a profile have run since `start`.
pub(crate) fn ran(point: &str, status: &str, profile: &str, start: Instant) {
    let took = start.elapsed().as_secs_f64();
    FAMILIES.points.with_label_values(&[point, status, profile]).observe(took);
}

/// How upstream names what came of an extension point.
pub(crate) fn code_of<T>(result: &Result<T, std::sync::Arc<Status>>) -> &'static str {
    result.as_ref().map_or_else(|status| status.code.name(), |_| "Success")
}

static CORES: Mutex<Vec<Weak<Mutex<Core>>>> = Mutex::new(Vec::new());

/// From now on this memory is counted, too.
pub(crate) fn count_in(core: Weak<Mutex<Core>>) {
    let mut cores = CORES.lock().unwrap_or_else(PoisonError::into_inner);
    cores.retain(|known| known.strong_count() > 0);
    cores.push(core);
}

/// All figures, in Prometheus' text form.
pub fn figures() -> String {
    FAMILIES.registry.families() + &memory()
}

/// What waits, and what the caches hold.
fn memory() -> String {
    let (mut waiting, mut cached) = (Waiting::default(), [0; 3]);
    let mut is_there = false;
    for core in CORES.lock().unwrap_or_else(PoisonError::into_inner).iter() {
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
