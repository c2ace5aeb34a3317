//! Figures of scheduling, under upstream's names (`pkg/scheduler/metrics`).
//!
//! They are the process's: schedulers of one process count together.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use telemetry::{HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Registry, exponential};

use crate::framework::Status;

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
    evaluations: IntCounterVec,
    running: IntGaugeVec,
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
        evaluations: registry.counters(
            "scheduler_plugin_evaluation_total",
            "Number of attempts to schedule pods by each plugin and the extension point (available only in PreFilter, Filter, PreScore, and Score).",
            &["plugin", "extension_point", "profile"],
        ),
        // Tasks stand for goroutines.
        running: registry.gauges(
            "scheduler_goroutines",
            "Number of running goroutines split by the work they do such as binding.",
            &["operation"],
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

/// How often one plugin of a profile was asked at one extension point.
#[derive(Debug, Clone)]
pub(crate) struct Evaluations(Option<IntCounter>);

impl Evaluations {
    /// Of a plugin that speaks there; others are not told.
    pub(crate) fn of(plugin: &str, point: &str, profile: &str, speaks: bool) -> Evaluations {
        let labels = [plugin, point, profile];
        Evaluations(speaks.then(|| FAMILIES.evaluations.with_label_values(&labels)))
    }

    pub(crate) fn add(&self, count: usize) {
        if let Some(counter) = &self.0 {
            counter.inc_by(count as u64);
        }
    }
}

/// Work that runs beside scheduling cycles, counted until it is dropped.
pub(crate) struct Running;

impl Running {
    pub(crate) fn binding() -> Running {
        FAMILIES.running.with_label_values(&["binding"]).inc();
        Running
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        FAMILIES.running.with_label_values(&["binding"]).dec();
    }
}

/// How upstream names what came of an extension point.
pub(crate) fn code_of<T>(result: &Result<T, Arc<Status>>) -> &'static str {
    result.as_ref().map_or_else(|status| status.code.name(), |_| "Success")
}

/// What was counted, in Prometheus' text form.
pub(crate) fn counted() -> String {
    FAMILIES.registry.families()
}

#[cfg(test)]
mod tests {
    #[test]
    fn preemptions_are_counted() {
        super::preempted(40);
        let told = super::counted();
        // Figures are the process's; no other test has so many victims.
        for line in [
            "scheduler_preemption_attempts_total ",
            "scheduler_preemption_victims_bucket{le=\"64\"} ",
            "scheduler_preemption_victims_count ",
        ] {
            let figure = told.lines().find_map(|l| l.strip_prefix(line)?.parse::<u64>().ok());
            assert!(figure.is_some_and(|n| n >= 1), "{line} is not in\n{told}");
        }
    }
}
