//! Figures of webhooks, under upstream's names (apiserver `admission/metrics`). They are the process's. Without
//! webhooks nothing is counted, and it costs nothing.

use std::sync::LazyLock;
use std::time::Instant;

use telemetry::{HistogramVec, IntCounterVec, Registry};

use super::call::Failure;
use super::hook::Hook;
use crate::attributes::Attributes;

const BOUNDS: [f64; 8] = [0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 25.0];
/// Higher codes are told as this one.
const CODE_MAX: u16 = 600;

struct Families {
    registry: Registry,
    durations: HistogramVec,
    requests: IntCounterVec,
    rejections: IntCounterVec,
    fail_open: IntCounterVec,
}

static FAMILIES: LazyLock<Families> = LazyLock::new(|| {
    let registry = Registry::default();
    let outcome = ["name", "type", "operation", "rejected"];
    Families {
        durations: registry.histograms(
            "apiserver_admission_webhook_admission_duration_seconds",
            "How long calls of admission webhooks take, by name, kind, operation and outcome.",
            &outcome,
            &BOUNDS,
        ),
        requests: registry.counters(
            "apiserver_admission_webhook_request_total",
            "Calls of admission webhooks, by name, kind, operation, outcome and code.",
            &[&outcome[..], &["code"]].concat(),
        ),
        rejections: registry.counters(
            "apiserver_admission_webhook_rejection_count",
            "Requests that admission webhooks refused, or that were refused for want of their answer.",
            &["name", "type", "operation", "error_type", "rejection_code"],
        ),
        fail_open: registry.counters(
            "apiserver_admission_webhook_fail_open_count",
            "Requests that passed although an admission webhook could not be asked.",
            &["name", "type"],
        ),
        registry,
    }
});

/// The figures of webhooks, in Prometheus' text form.
pub(crate) fn figures() -> String {
    FAMILIES.registry.families()
}

/// Upstream's names of the two kinds.
fn kind(is_mutating: bool) -> &'static str {
    if is_mutating { "admit" } else { "validating" }
}

/// Counts a call and what came of it.
pub(super) fn called<T>(
    hook: &Hook,
    (request, is_mutating): (&Attributes<'_>, bool),
    begun: Instant,
    outcome: &Result<T, Failure>,
) {
    let (name, kind, operation) = (&*hook.name, kind(is_mutating), request.operation.name());
    let (rejected, code, error) = match outcome {
        Ok(_) => (false, 200, ""),
        Err(Failure::Calling(_)) => (!hook.fails_open(), 0, "calling_webhook_error"),
        Err(Failure::Rejected(status)) => (true, status.code.min(CODE_MAX), "no_error"),
        Err(Failure::Refused(_)) => (true, 0, "apiserver_internal_error"),
    };
    let (told, code) = (if rejected { "true" } else { "false" }, code.to_string());
    let labels = [name, kind, operation, told];
    let took = begun.elapsed().as_secs_f64();
    FAMILIES.durations.with_label_values(&labels).observe(took);
    FAMILIES.requests.with_label_values(&[name, kind, operation, told, &code]).inc();
    if rejected {
        FAMILIES.rejections.with_label_values(&[name, kind, operation, error, &code]).inc();
    }
    if !rejected && outcome.is_err() {
        FAMILIES.fail_open.with_label_values(&[name, kind]).inc();
    }
}
