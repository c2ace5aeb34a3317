//! Figures of the controllers, under upstream's names (`pkg/controller/*/metrics`).
//!
//! They are the process's: controllers of one process count together.

pub(crate) mod autoscaling;
pub(crate) mod endpoint_slices;
#[cfg(test)]
mod tests;

use std::sync::LazyLock;
use std::time::Duration;

use telemetry::{HistogramVec, IntCounterVec, IntGaugeVec, Registry, exponential};

struct Families {
    registry: Registry,
    job_durations: HistogramVec,
    job_syncs: IntCounterVec,
    jobs_finished: IntCounterVec,
    job_pods_finished: IntCounterVec,
    job_failures_handled: IntCounterVec,
    cron_job_skew: HistogramVec,
    node_evictions: IntCounterVec,
    job_finalizers: IntCounterVec,
    running: IntGaugeVec,
    autoscaling: autoscaling::Families,
    endpoint_slices: endpoint_slices::Families,
}

static FAMILIES: LazyLock<Families> = LazyLock::new(|| {
    let registry = Registry::default();
    let sync = ["completion_mode", "result", "action"];
    Families {
        job_durations: registry.histograms(
            "job_controller_job_sync_duration_seconds",
            "The time it took to sync a job",
            &sync,
            &exponential(0.004, 2.0, 15),
        ),
        job_syncs: registry.counters(
            "job_controller_job_syncs_total",
            "The number of job syncs",
            &sync,
        ),
        jobs_finished: registry.counters(
            "job_controller_jobs_finished_total",
            "The number of finished jobs",
            &["completion_mode", "result", "reason"],
        ),
        job_pods_finished: registry.counters(
            "job_controller_job_pods_finished_total",
            "The number of finished Pods that are fully tracked",
            &["completion_mode", "result"],
        ),
        job_failures_handled: registry.counters(
            "job_controller_pod_failures_handled_by_failure_policy_total",
            "The number of failed Pods handled by failure policy with respect to the failure policy action applied based on the matched rule.",
            &["action"],
        ),
        cron_job_skew: registry.histograms(
            "cronjob_controller_job_creation_skew_duration_seconds",
            "Time between when a cronjob is scheduled to be run, and when the corresponding job is created",
            &[],
            &exponential(1.0, 2.0, 10),
        ),
        node_evictions: registry.counters(
            "node_collector_evictions_total",
            "Number of Node evictions that happened since current instance of NodeController started.",
            &["zone"],
        ),
        job_finalizers: registry.counters(
            "job_controller_terminated_pods_tracking_finalizer_total",
            "The number of terminated pods (phase=Failed|Succeeded) that have the finalizer batch.kubernetes.io/job-tracking. The event label can be \"add\" or \"delete\".",
            &["event"],
        ),
        running: registry.gauges(
            "running_managed_controllers",
            "Indicates where instances of a controller are currently running",
            &["name", "manager"],
        ),
        autoscaling: autoscaling::Families::new(&registry),
        endpoint_slices: endpoint_slices::Families::new(&registry),
        registry,
    }
});

/// All figures, in Prometheus' text form.
pub fn figures() -> String {
    FAMILIES.registry.families()
}

/// A controller was started in this process.
pub(crate) fn started(controller: &str) {
    FAMILIES.running.with_label_values(&[controller, "kube-controller-manager"]).set(1);
}

/// A pod has ended that its Job has not counted yet, or one that ended was counted or is gone.
pub(crate) fn job_finalizer(is_added: bool) {
    FAMILIES.job_finalizers.with_label_values(&[if is_added { "add" } else { "delete" }]).inc();
}

/// What a pass over a Job did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JobAction {
    Reconciling,
    Tracking,
    PodsCreated,
    PodsDeleted,
}

/// A pass over a Job has ended.
pub(crate) fn job_synced(mode: &str, is_done: bool, action: JobAction, after: Duration) {
    let result = if is_done { "success" } else { "error" };
    let action = match action {
        JobAction::Reconciling => "reconciling",
        JobAction::Tracking => "tracking",
        JobAction::PodsCreated => "pods_created",
        JobAction::PodsDeleted => "pods_deleted",
    };
    let labels = [mode, result, action];
    FAMILIES.job_durations.with_label_values(&labels).observe(after.as_secs_f64());
    FAMILIES.job_syncs.with_label_values(&labels).inc();
}

/// A Job got its last condition.
pub(crate) fn job_finished(mode: &str, succeeds: bool, reason: &str) {
    FAMILIES.jobs_finished.with_label_values(&[mode, outcome(succeeds), reason]).inc();
}

/// So many pods more are counted in a Job's status.
pub(crate) fn job_pods_finished(mode: &str, succeeded: i32, failed: i32) {
    for (is_success, more) in [(true, succeeded), (false, failed)] {
        let more = u64::try_from(more).unwrap_or(0);
        FAMILIES.job_pods_finished.with_label_values(&[mode, outcome(is_success)]).inc_by(more);
    }
}

/// A rule of a Job's failure policy decided about a pod.
pub(crate) fn job_failure_handled(action: &str) {
    FAMILIES.job_failures_handled.with_label_values(&[action]).inc();
}

/// A CronJob's Job exists this long after its time.
pub(crate) fn cron_job_created(late: Duration) {
    FAMILIES.cron_job_skew.with_label_values::<&str>(&[]).observe(late.as_secs_f64());
}

/// A node got the taint that evicts its pods. A zone is named as upstream names it.
pub(crate) fn node_evicted(region: &str, zone: &str) {
    let key = match (region, zone) {
        ("", "") => String::new(),
        (region, zone) => format!("{region}:\0:{zone}"),
    };
    FAMILIES.node_evictions.with_label_values(&[key.as_str()]).inc();
}

fn outcome(succeeds: bool) -> &'static str {
    if succeeds { "succeeded" } else { "failed" }
}
