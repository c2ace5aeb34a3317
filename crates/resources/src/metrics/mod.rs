//! The server's own figures, under upstream's names (apiserver `endpoints/metrics`).

mod labels;

use std::sync::Arc;
use std::time::Instant;

use flowcontrol::FlowControl;
use telemetry::{HistogramVec, IntCounterVec, IntGaugeVec, Registry, exponential, family};

use crate::limits::InFlight;

pub use labels::Labels;

/// Upper bounds for requests, seconds (upstream's `requestLatencies`).
const DURATIONS: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0,
    10.0, 15.0, 20.0, 30.0, 45.0, 60.0,
];
/// Upper bounds of the initial states of a watch, seconds.
const WATCH_LISTS: [f64; 17] =
    [0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0];
/// Those of the objective start where it does.
const OBJECTIVE: std::ops::RangeFrom<usize> = 2..;

const REQUEST: [&str; 8] =
    ["verb", "dry_run", "group", "version", "resource", "subresource", "scope", "component"];
const STREAM: [&str; 7] =
    ["verb", "group", "version", "resource", "subresource", "scope", "component"];
const KIND: [&str; 3] = ["group", "version", "resource"];

/// The families that the request's way counts in.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    pub requests: IntCounterVec,
    pub durations: HistogramVec,
    pub objective: HistogramVec,
    pub sizes: HistogramVec,
    pub streams: IntGaugeVec,
    ended: IntCounterVec,
    aborts: IntCounterVec,
    deprecated: IntGaugeVec,
    watch_events: IntCounterVec,
    watch_sizes: HistogramVec,
    authentications: IntCounterVec,
    watch_lists: HistogramVec,
}

impl Metrics {
    pub fn new(in_flight: Arc<InFlight>) -> Metrics {
        let registry = Registry::default();
        registry.add_source(move || working(&in_flight));
        let requests = [&REQUEST[..], &["code"]].concat();
        Metrics {
            requests: registry.counters(
                "apiserver_request_total",
                "Requests, by what they ask for and the answer's code.",
                &requests,
            ),
            durations: registry.histograms(
                "apiserver_request_duration_seconds",
                "From a request's arrival to its answer.",
                &REQUEST,
                &DURATIONS,
            ),
            objective: registry.histograms(
                "apiserver_request_sli_duration_seconds",
                "From a request's arrival to its answer, without the time in webhooks and queues.",
                &STREAM,
                &DURATIONS[OBJECTIVE],
            ),
            sizes: registry.histograms(
                "apiserver_response_sizes",
                "Bytes of answers to get and list.",
                &STREAM,
                &exponential(1000.0, 10.0, 7),
            ),
            streams: registry.gauges(
                "apiserver_longrunning_requests",
                "Watches and other streams under way.",
                &STREAM,
            ),
            ended: registry.counters(
                "apiserver_request_terminations_total",
                "Requests that the server ended to protect itself.",
                &[&STREAM[..], &["code"]].concat(),
            ),
            aborts: registry.counters(
                "apiserver_request_aborts_total",
                "Requests that were given up before they had an answer.",
                &STREAM[..6],
            ),
            deprecated: registry.gauges(
                "apiserver_requested_deprecated_apis",
                "Deprecated APIs that were asked for.",
                &["group", "version", "resource", "subresource", "removed_release"],
            ),
            watch_events: registry.counters(
                "apiserver_watch_events_total",
                "Events sent to watches.",
                &KIND,
            ),
            watch_sizes: registry.histograms(
                "apiserver_watch_events_sizes",
                "Bytes of events sent to watches.",
                &KIND,
                &exponential(1024.0, 2.0, 8),
            ),
            authentications: registry.counters(
                "authentication_attempts",
                "Requests from the network, by whether their sender is known.",
                &["result"],
            ),
            watch_lists: watch_lists(&registry),
            registry,
        }
    }

    /// All figures, in the text form.
    pub fn text(&self) -> String {
        self.registry.text()
    }

    /// Adds figures that are read when they are asked for.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    pub fn add_source(&self, source: impl Fn() -> String + Send + Sync + 'static) {
        self.registry.add_source(source);
    }

    /// Adds the figures of priority levels.
    pub fn add_flow_control(&self, control: Arc<FlowControl>) {
        self.add_source(move || {
            let text = |told: flowcontrol::Family| {
                let figures = told.figures.iter().map(|(labels, figure)| {
                    (labels.iter().map(|(name, value)| (*name, value.as_str())), *figure)
                });
                family((told.name, told.kind, told.help), figures)
            };
            control.figures().into_iter().map(text).collect::<String>() + &control.waits()
        });
    }

    /// Counts a request that was ended before it reached its handler.
    pub fn terminated(&self, labels: &Labels<'_>, code: u16) {
        let code = code.to_string();
        self.ended.with_label_values(&labels.with_code(&code)).inc();
    }

    /// Counts a request that found no place (upstream's `RecordDroppedRequest`).
    pub fn dropped(&self, labels: &Labels<'_>) {
        self.requests.with_label_values(&labels.request_with_code("429")).inc();
        self.terminated(labels, 429);
    }

    /// Counts a request that was given up.
    pub fn aborted(&self, labels: &Labels<'_>) {
        self.aborts.with_label_values(&labels.stream()[..6]).inc();
    }

    /// Remembers that a deprecated API was asked for.
    pub fn deprecated(&self, labels: &Labels<'_>) {
        let [_, group, version, resource, subresource, ..] = labels.stream();
        self.deprecated.with_label_values(&[group, version, resource, subresource, ""]).set(1);
    }

    /// Counts who is known and who is not.
    pub fn authenticated(&self, known: bool) {
        self.authentications.with_label_values(&[if known { "success" } else { "failure" }]).inc();
    }

    /// The counters of one watch.
    pub fn watch(&self, labels: &Labels<'_>) -> Sent {
        let [_, group, version, resource, _, scope, _] = labels.stream();
        let kind = [group, version, resource];
        let listed = [group, version, resource, scope].map(str::to_owned);
        Sent {
            listed: Box::new((self.watch_lists.clone(), listed)),
            begun: Instant::now(),
            events: self.watch_events.with_label_values(&kind),
            sizes: self.watch_sizes.with_label_values(&kind),
        }
    }
}

fn watch_lists(registry: &Registry) -> HistogramVec {
    registry.histograms(
        "apiserver_watch_list_duration_seconds",
        "Response latency distribution in seconds for watch list requests broken by group, version, resource and scope.",
        &["group", "version", "resource", "scope"],
        &WATCH_LISTS,
    )
}

/// What one watch has sent.
#[derive(Debug, Clone)]
pub struct Sent {
    events: prometheus::IntCounter,
    sizes: prometheus::Histogram,
    /// The family of initial states and the labels of this watch, used only if the client asks for them.
    listed: Box<(HistogramVec, [String; 4])>,
    begun: Instant,
}

impl Sent {
    /// The initial states that the client asked for are through.
    pub fn listed(&self) {
        let (family, labels) = &*self.listed;
        family.with_label_values(labels).observe(self.begun.elapsed().as_secs_f64());
    }

    /// Counts events that were packed into so many bytes.
    pub fn add(&self, events: usize, bytes: usize) {
        self.events.inc_by(events as u64);
        for _ in 0..events {
            self.sizes.observe(bytes as f64 / events as f64);
        }
    }
}

fn working(in_flight: &InFlight) -> String {
    let (reads, changes) = in_flight.working();
    let figures =
        [([("request_kind", "mutating")], changes), ([("request_kind", "readOnly")], reads)];
    let about = ("apiserver_current_inflight_requests", "gauge", "Requests that are worked on.");
    family(about, figures.map(|(labels, n)| (labels, n as f64)))
}
