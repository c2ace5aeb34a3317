//! Figures in Prometheus' text form, and the pages that tell what a component is ([`zpages`]).
//!
//! A component makes one [`Registry`] and its families there, under upstream's names
//! (k8s.io/component-base/metrics and the packages that use it), and hands the families to those who count.
//! Families are kept by crate `prometheus`, which does what the text format asks (escapes, order, sums of
//! buckets); figures that are known only when they are asked for come from a [`Source`].

pub mod checks;
mod process;
pub mod zpages;

use prometheus::core::Collector;
pub use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec};
use prometheus::{HistogramOpts, Opts, TextEncoder};

pub use process::{add_process_source, process_metrics};

/// The content type of [`Registry::text`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Figures that are read when they are asked for: text of whole families.
pub type Source = Box<dyn Fn() -> String + Send + Sync>;

/// The families of one component.
#[derive(Default)]
pub struct Registry {
    families: prometheus::Registry,
    sources: std::sync::Mutex<Vec<Source>>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Registry")
    }
}

impl Registry {
    /// A family of counters. Its name ends in `_total`.
    pub fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.keep(IntCounterVec::new(Opts::new(name, help), labels), name)
    }

    /// A family of figures that go up and down.
    pub fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.keep(IntGaugeVec::new(Opts::new(name, help), labels), name)
    }

    /// A family of histograms; `buckets` are their upper bounds, ascending.
    pub fn histograms(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: &[f64],
    ) -> HistogramVec {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.keep(HistogramVec::new(options, labels), name)
    }

    /// # Panics
    /// When a family of the name exists, or its name or labels are none: both are written in code.
    fn keep<C: Collector + Clone + 'static>(&self, made: prometheus::Result<C>, name: &str) -> C {
        let family = made.unwrap_or_else(|fault| panic!("metric {name}: {fault}"));
        let kept = self.families.register(Box::new(family.clone()));
        kept.unwrap_or_else(|fault| panic!("metric {name}: {fault}"));
        family
    }

    /// Adds families that are written when they are asked for.
    pub fn add_source(&self, source: impl Fn() -> String + Send + Sync + 'static) {
        self.sources
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .push(Box::new(source));
    }

    /// All families with at least one figure, then those of the sources, then the process's own.
    pub fn text(&self) -> String {
        self.families() + &process_metrics()
    }

    /// [`Registry::text`] without the process's own, for the source of another registry.
    pub fn families(&self) -> String {
        let mut text =
            TextEncoder::new().encode_to_string(&self.families.gather()).unwrap_or_default();
        let sources = self.sources.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        text.extend(sources.iter().map(|source| source()));
        text
    }
}

/// One family in the text form, for a [`Source`]: each figure with its labels. Empty without figures.
pub fn family<'a, L>(
    (name, kind, help): (&str, &str, &str),
    figures: impl IntoIterator<Item = (L, f64)>,
) -> String
where
    L: IntoIterator<Item = (&'a str, &'a str)>,
{
    let mut text = String::new();
    for (labels, figure) in figures {
        let labels: Vec<String> = labels.into_iter().map(label).collect();
        let labels =
            if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        text += &format!("{name}{labels} {figure}\n");
    }
    match text.is_empty() {
        true => text,
        false => format!("# HELP {name} {help}\n# TYPE {name} {kind}\n{text}"),
    }
}

fn label((name, value): (&str, &str)) -> String {
    let value = value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
    format!("{name}=\"{value}\"")
}

/// The upper bounds that Prometheus' clients use when none are named, in seconds.
pub const DEFAULT_BUCKETS: [f64; 11] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Upper bounds from `start`, each `factor` times the one before.
pub fn exponential(start: f64, factor: f64, count: usize) -> Vec<f64> {
    std::iter::successors(Some(start), |bound| Some(bound * factor)).take(count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_told_in_the_text_form() {
        let registry = Registry::default();
        let requests = registry.counters("requests_total", "Requests.", &["code"]);
        registry
            .histograms("took_seconds", "Time.", &[], &[0.5, 1.0])
            .with_label_values::<&str>(&[])
            .observe(0.7);
        registry.gauges("unused", "Nothing yet.", &["code"]);
        requests.with_label_values(&["200"]).inc();
        registry.add_source(|| {
            family(("objects", "gauge", "Objects."), [([("resource", "a\"b")], 3.0)])
        });
        let text = registry.text();
        for line in [
            "# TYPE requests_total counter\nrequests_total{code=\"200\"} 1\n",
            "took_seconds_bucket{le=\"0.5\"} 0\ntook_seconds_bucket{le=\"1\"} 1\ntook_seconds_bucket{le=\"+Inf\"} 1\n",
            "# HELP objects Objects.\n# TYPE objects gauge\nobjects{resource=\"a\\\"b\"} 3\n",
            "# TYPE process_open_fds gauge\n",
        ] {
            assert!(text.contains(line), "{line}\nis not in\n{text}");
        }
        assert!(!text.contains("unused"), "a family without figures says nothing");
        assert_eq!(exponential(1000.0, 10.0, 3), [1000.0, 10_000.0, 100_000.0]);
    }

    #[test]
    #[should_panic(expected = "metric twice_total")]
    fn a_name_is_given_once() {
        let registry = Registry::default();
        registry.counters("twice_total", "a", &[]);
        registry.counters("twice_total", "a", &[]);
    }
}
