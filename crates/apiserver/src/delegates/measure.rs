//! One request, from its arrival to the end of its answer.

use std::time::Instant;

use api::Status;
use http::{Response, StatusCode};
use hyper::body::Body as _;
use prometheus::{Histogram, IntGauge};

use resources::metrics::{Labels, Metrics};
use resources::respond::{self, Body};

/// A request under way.
pub(crate) struct Measure<'a> {
    metrics: &'a Metrics,
    labels: Labels<'a>,
    begun: Instant,
    is_stream: bool,
    is_answered: bool,
}

/// Without an answer, the request was given up: its time is over, or its client is gone.
impl Drop for Measure<'_> {
    fn drop(&mut self) {
        if !self.is_answered {
            self.metrics.aborted(&self.labels);
        }
    }
}

impl<'a> Measure<'a> {
    pub(crate) fn begin(metrics: &'a Metrics, labels: Labels<'a>, is_stream: bool) -> Measure<'a> {
        Measure { metrics, labels, begun: Instant::now(), is_stream, is_answered: false }
    }

    /// Counts the answer; that of a stream when its body ends.
    pub(crate) fn answered(
        mut self,
        answered: Result<Response<Body>, Status>,
    ) -> Result<Response<Body>, Status> {
        self.is_answered = true;
        let code = answered.as_ref().map_or_else(|status| status.code, |r| r.status().as_u16());
        let text = code.to_string();
        let count = self.metrics.requests.with_label_values(&self.labels.request_with_code(&text));
        let took = self.metrics.durations.with_label_values(&self.labels.request());
        let slow = (!self.labels.is_dry())
            .then(|| self.metrics.objective.with_label_values(&self.labels.stream()));
        let mut ending = Ending { begun: self.begun, count, took, slow, open: None };
        match answered {
            Ok(response) if self.is_stream && response.status() == StatusCode::OK => {
                let open = self.metrics.streams.with_label_values(&self.labels.stream());
                open.inc();
                ending.open = Some(open);
                Ok(response.map(|body| respond::kept(body, ending)))
            }
            Ok(response) => {
                if self.labels.reads() {
                    let size = response.body().size_hint().lower() as f64;
                    self.metrics.sizes.with_label_values(&self.labels.stream()).observe(size);
                }
                Ok(response)
            }
            refused => refused,
        }
    }
}

/// Counts a request when it is dropped.
struct Ending {
    begun: Instant,
    count: prometheus::IntCounter,
    took: Histogram,
    slow: Option<Histogram>,
    open: Option<IntGauge>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        let took = self.begun.elapsed().as_secs_f64();
        self.count.inc();
        self.took.observe(took);
        self.slow.iter().for_each(|family| family.observe(took));
        self.open.iter().for_each(|open| open.dec());
    }
}
