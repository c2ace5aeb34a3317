//! Figures of policies, under upstream's names (apiserver `policy/validating/metrics`, `policy/mutating/metrics`).
//! They are the process's. A policy that allows is not counted, as in upstream, and costs nothing.

use std::sync::LazyLock;
use std::time::Duration;

use telemetry::{HistogramVec, IntCounterVec, Registry};

use super::binding::Action;

/// Upper bounds, in seconds.
const BOUNDS: [f64; 5] = [0.000_000_5, 0.001, 0.01, 0.1, 1.0];

struct Families {
    registry: Registry,
    validating: (IntCounterVec, HistogramVec),
    mutating: (IntCounterVec, HistogramVec),
}

static FAMILIES: LazyLock<Families> = LazyLock::new(|| {
    let registry = Registry::default();
    let of = |kind: &str, what: &str, labels: &[&str]| {
        let count = registry.counters(
            &format!("apiserver_{kind}_admission_policy_check_total"),
            &format!("{what} admission policy check total, labeled by policy and further identified by binding."),
            labels,
        );
        let durations = registry.histograms(
            &format!("apiserver_{kind}_admission_policy_check_duration_seconds"),
            &format!("{what} admission latency for individual expressions in seconds, labeled by policy and binding."),
            labels,
            &BOUNDS,
        );
        (count, durations)
    };
    let mutating = ["policy", "policy_binding", "error_type"];
    let validating = [&mutating[..], &["enforcement_action"]].concat();
    Families {
        validating: of("validating", "Validation", &validating),
        mutating: of("mutating", "Mutation", &mutating),
        registry,
    }
});

/// All figures, in Prometheus' text form.
pub(crate) fn text() -> String {
    FAMILIES.registry.families()
}

/// The validation actions of a binding: how a failed expression is enforced.
#[derive(Debug, Clone, Copy)]
pub(super) enum Enforcement {
    Allow,
    Deny,
    Audit,
    Warn,
}

impl Enforcement {
    pub(super) fn of(action: Action) -> Enforcement {
        match action {
            Action::Deny => Enforcement::Deny,
            Action::Audit => Enforcement::Audit,
            Action::Warn => Enforcement::Warn,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Enforcement::Allow => "allow",
            Enforcement::Deny => "deny",
            Enforcement::Audit => "audit",
            Enforcement::Warn => "warn",
        }
    }
}

/// Upstream tells kinds of failures by how their messages begin; an expression that is false is `invalid_error`.
fn kind(message: &str) -> &'static str {
    match message {
        text if text.starts_with("compilation") => "compile_error",
        text if text.starts_with("validation failed due to running out of cost budget") => {
            "out_of_budget"
        }
        _ => "invalid_error",
    }
}

/// An expression of a validating policy failed or did not hold.
pub(super) fn checked(
    (policy, binding): (&str, &str),
    enforcement: Enforcement,
    message: &str,
    took: Duration,
) {
    let labels = [policy, binding, kind(message), enforcement.name()];
    let (count, durations) = &FAMILIES.validating;
    count.with_label_values(&labels).inc();
    durations.with_label_values(&labels).observe(took.as_secs_f64());
}

/// A mutation of a mutating policy has run; `failure` is why it failed, if it did.
pub(super) fn mutated((policy, binding): (&str, &str), failure: Option<&str>, took: Duration) {
    let labels = [policy, binding, failure.map_or("no_error", kind)];
    let (count, durations) = &FAMILIES.mutating;
    count.with_label_values(&labels).inc();
    durations.with_label_values(&labels).observe(took.as_secs_f64());
}
