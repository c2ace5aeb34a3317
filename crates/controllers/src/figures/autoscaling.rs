//! Figures of autoscaling (`pkg/controller/podautoscaler/monitor`).

use std::time::Duration;

use telemetry::{HistogramVec, IntCounterVec, Registry, exponential};

pub(super) struct Families {
    reconciliations: IntCounterVec,
    reconciliation_durations: HistogramVec,
    computations: IntCounterVec,
    computation_durations: HistogramVec,
}

impl Families {
    pub(super) fn new(registry: &Registry) -> Families {
        let bounds = exponential(0.001, 2.0, 15);
        let of = |what: &str| format!("horizontal_pod_autoscaler_controller_{what}");
        let (outcome, metric) = (["action", "error"], ["action", "error", "metric_type"]);
        Families {
            reconciliations: registry.counters(
                &of("reconciliations_total"),
                "Number of reconciliations of HPA controller.",
                &outcome,
            ),
            reconciliation_durations: registry.histograms(
                &of("reconciliation_duration_seconds"),
                "The time(seconds) that the HPA controller takes to reconcile once.",
                &outcome,
                &bounds,
            ),
            computations: registry.counters(
                &of("metric_computation_total"),
                "Number of metric computations.",
                &metric,
            ),
            computation_durations: registry.histograms(
                &of("metric_computation_duration_seconds"),
                "The time(seconds) that the HPA controller takes to calculate one metric.",
                &metric,
                &bounds,
            ),
        }
    }
}

/// The outcome of reconciling an autoscaler or one of its metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scaling {
    action: &'static str,
    error: &'static str,
}

impl Scaling {
    /// From `current` replicas to `wanted`.
    pub(crate) fn between(current: i32, wanted: i32) -> Scaling {
        let action = match wanted.cmp(&current) {
            std::cmp::Ordering::Greater => "scale_up",
            std::cmp::Ordering::Less => "scale_down",
            std::cmp::Ordering::Equal => "none",
        };
        Scaling { action, error: "none" }
    }

    /// Nothing was done because something failed; `by_spec` if what the autoscaler asks for makes no sense.
    pub(crate) fn failed(by_spec: bool) -> Scaling {
        Scaling { action: "none", error: if by_spec { "spec" } else { "internal" } }
    }
}

/// An autoscaler was looked at.
pub(crate) fn reconciled(scaling: Scaling, took: Duration) {
    let (families, labels) = (&super::FAMILIES.autoscaling, [scaling.action, scaling.error]);
    families.reconciliations.with_label_values(&labels).inc();
    families.reconciliation_durations.with_label_values(&labels).observe(took.as_secs_f64());
}

/// A metric of an autoscaler was evaluated. `kind` is one of the API's types of metrics.
pub(crate) fn computed(scaling: Scaling, kind: &str, took: Duration) {
    let families = &super::FAMILIES.autoscaling;
    let labels = [scaling.action, scaling.error, kind];
    families.computations.with_label_values(&labels).inc();
    families.computation_durations.with_label_values(&labels).observe(took.as_secs_f64());
}
