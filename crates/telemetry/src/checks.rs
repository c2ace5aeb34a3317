//! Results of health checks, which every component tells on `/metrics/slis` (component-base
//! `metrics/prometheus/slis`).

use crate::{IntCounterVec, IntGaugeVec, Registry};

/// The path that tells them.
pub const PATH: &str = "/metrics/slis";

/// The results of the health checks of one component.
#[derive(Debug)]
pub struct HealthChecks {
    registry: Registry,
    last: IntGaugeVec,
    counts: IntCounterVec,
}

impl Default for HealthChecks {
    fn default() -> HealthChecks {
        let registry = Registry::default();
        HealthChecks {
            last: registry.gauges(
                "kubernetes_healthcheck",
                "This metric records the result of a single healthcheck.",
                &["name", "type"],
            ),
            counts: registry.counters(
                "kubernetes_healthchecks_total",
                "This metric records the results of all healthcheck.",
                &["name", "type", "status"],
            ),
            registry,
        }
    }
}

impl HealthChecks {
    /// Counts a run of the check `name` for an endpoint (`healthz`, `livez` or `readyz`). Names are of the code,
    /// never of requests.
    pub fn observe(&self, name: &str, endpoint: &str, passed: bool) {
        let status = if passed { "success" } else { "error" };
        self.last.with_label_values(&[name, endpoint]).set(passed.into());
        self.counts.with_label_values(&[name, endpoint, status]).inc();
    }

    /// The figures in the text form.
    pub fn text(&self) -> String {
        self.registry.families()
    }
}

#[cfg(test)]
mod tests {
    use super::HealthChecks;

    #[test]
    fn the_last_result_and_all_results_are_told() {
        let checks = HealthChecks::default();
        for passed in [true, true, false] {
            checks.observe("etcd", "readyz", passed);
        }
        let told = checks.text();
        for line in [
            "kubernetes_healthcheck{name=\"etcd\",type=\"readyz\"} 0\n",
            "kubernetes_healthchecks_total{name=\"etcd\",status=\"error\",type=\"readyz\"} 1\n",
            "kubernetes_healthchecks_total{name=\"etcd\",status=\"success\",type=\"readyz\"} 2\n",
        ] {
            assert!(told.contains(line), "{line} is not in\n{told}");
        }
    }
}
