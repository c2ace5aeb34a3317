//! Figures of admission, under upstream's names (apiserver `admission/metrics`). They are the process's.

use std::sync::{LazyLock, OnceLock};
use std::time::Duration;

use telemetry::{Histogram, HistogramVec, Registry};

use crate::attributes::Operation;

const BOUNDS: [f64; 6] = [0.005, 0.025, 0.1, 0.5, 1.0, 2.5];

struct Families {
    registry: Registry,
    steps: HistogramVec,
    controllers: HistogramVec,
}

static FAMILIES: LazyLock<Families> = LazyLock::new(|| {
    let registry = Registry::default();
    let outcome = ["type", "operation", "rejected"];
    Families {
        steps: registry.histograms(
            "apiserver_admission_step_admission_duration_seconds",
            "Admission sub-step latency histogram in seconds, broken out for each operation and API resource and step type (validate or admit).",
            &outcome,
            &BOUNDS,
        ),
        controllers: registry.histograms(
            "apiserver_admission_controller_admission_duration_seconds",
            "Admission controller latency histogram in seconds, identified by name and broken out for each operation and API resource and type (validate or admit).",
            &[&["name"], &outcome[..]].concat(),
            &BOUNDS,
        ),
        registry,
    }
});

/// All figures, in Prometheus' text form.
pub fn figures() -> String {
    FAMILIES.registry.families() + &crate::webhooks::figures() + &crate::policies::figures::text()
}

/// The two phases.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Phase {
    Admit,
    Validate,
}

const OPERATIONS: usize = 4;
const FIGURES: usize = 2 * OPERATIONS * 2;

/// How long a plugin takes, or, without a name, a whole phase. What was seen once is found without its labels:
/// this is passed several times by every request that changes something.
#[derive(Debug, Default)]
pub(crate) struct Times {
    plugin: Option<&'static str>,
    seen: [OnceLock<Histogram>; FIGURES],
}

impl Times {
    pub(crate) fn of(plugin: &'static str) -> Times {
        Times { plugin: Some(plugin), ..Times::default() }
    }

    pub(crate) fn add(
        &self,
        (phase, operation): (Phase, Operation),
        is_rejected: bool,
        took: Duration,
    ) {
        let at = (phase as usize * OPERATIONS + operation as usize) * 2 + usize::from(is_rejected);
        let histogram = self.seen[at].get_or_init(|| {
            let phase = match phase {
                Phase::Admit => "admit",
                Phase::Validate => "validate",
            };
            let rejected = if is_rejected { "true" } else { "false" };
            match self.plugin {
                None => FAMILIES.steps.with_label_values(&[phase, operation.name(), rejected]),
                Some(plugin) => {
                    let labels = [plugin, phase, operation.name(), rejected];
                    FAMILIES.controllers.with_label_values(&labels)
                }
            }
        });
        histogram.observe(took.as_secs_f64());
    }
}
