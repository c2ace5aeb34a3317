//! How long rules take to compile and to evaluate (apiserver `cel/metrics`). The figures are the process's.

use std::sync::LazyLock;
use std::time::Instant;

use telemetry::{DEFAULT_BUCKETS, Histogram, Registry};

struct Families {
    registry: Registry,
    compilations: Histogram,
    evaluations: Histogram,
}

static FAMILIES: LazyLock<Families> = LazyLock::new(|| {
    let registry = Registry::default();
    let of = |name, help| {
        registry.histograms(name, help, &[], &DEFAULT_BUCKETS).with_label_values::<&str>(&[])
    };
    Families {
        compilations: of(
            "apiserver_cel_compilation_duration_seconds",
            "CEL compilation time in seconds.",
        ),
        evaluations: of(
            "apiserver_cel_evaluation_duration_seconds",
            "CEL evaluation time in seconds.",
        ),
        registry,
    }
});

/// All figures, in Prometheus' text form.
pub fn figures() -> String {
    FAMILIES.registry.families()
}

/// The rules of one place of a schema were compiled.
pub(crate) fn compiled(begun: Instant) {
    FAMILIES.compilations.observe(begun.elapsed().as_secs_f64());
}

/// The rules of one place of an object were evaluated.
pub(crate) fn evaluated(begun: Instant) {
    FAMILIES.evaluations.observe(begun.elapsed().as_secs_f64());
}
