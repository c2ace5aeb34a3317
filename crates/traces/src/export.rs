//! Sends spans to a collector in batches, as OpenTelemetry's batch processor does by default.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use grpc::{Channel, Dial, Settings};
use tokio::sync::mpsc::Receiver;
use tokio::time::Instant;

use crate::config::Configuration;
use crate::message::{
    ExportTraceServiceRequest, ExportTraceServiceResponse, Resource, ResourceSpans, Scope,
    ScopeSpans, Span,
};
use crate::queue::Queue;
use crate::span::{Value, attribute};
use crate::tracer::Tracer;

/// Spans that are sent together (`OTEL_BSP_MAX_EXPORT_BATCH_SIZE`).
const BATCH: usize = 512;
/// Longest wait for more (`OTEL_BSP_SCHEDULE_DELAY`).
const DELAY: Duration = Duration::from_secs(5);
/// Longest wait for the collector (`OTEL_EXPORTER_OTLP_TIMEOUT`).
const DEADLINE: Duration = Duration::from_secs(10);
/// Longest answer that is read, in bytes: it says how many spans were refused, and why.
const ANSWER_MAX: usize = 64 << 10;
const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
/// Upstream's instrumentation scope.
const SCOPE: &str = "k8s.io/component-base/tracing";

impl Tracer {
    /// A tracer, and the work that sends its spans for as long as it lives. `resource` names the component, e.g.
    /// `service.name`.
    pub fn new<D: Dial + 'static>(
        configuration: &Configuration,
        resource: &[(&str, String)],
        dial: D,
    ) -> (Arc<Tracer>, impl Future<Output = ()> + Send + 'static) {
        let (tracer, ended) = Tracer::with_queue(configuration);
        let settings = Settings {
            peer: "the collector of traces",
            origin: "http://localhost".into(),
            headers: &[],
            decorate: None,
            deadline: DEADLINE,
            message_max: ANSWER_MAX,
        };
        let attributes = resource.iter();
        let attributes = attributes.map(|(key, text)| attribute(key, Value::from(text.as_str())));
        let exporter = Exporter {
            queue: Arc::downgrade(&tracer.queue),
            resource: Resource { attributes: attributes.collect() },
            channel: Channel::new(dial, settings),
            is_away: false,
        };
        (tracer, exporter.run(ended))
    }
}

struct Exporter<D> {
    /// The spans end when nobody makes any more.
    queue: std::sync::Weak<Queue>,
    resource: Resource,
    channel: Channel<D>,
    /// The collector did not answer; its silence is told once.
    is_away: bool,
}

impl<D: Dial> Exporter<D> {
    async fn run(mut self, mut ended: Receiver<Span>) {
        let mut spans = Vec::with_capacity(BATCH);
        loop {
            let Some(first) = ended.recv().await else { return };
            spans.push(first);
            let due = Instant::now() + DELAY;
            while spans.len() < BATCH {
                let room = BATCH - spans.len();
                match tokio::time::timeout_at(due, ended.recv_many(&mut spans, room)).await {
                    Ok(0) | Err(_) => break,
                    Ok(_) => {}
                }
            }
            self.send(std::mem::take(&mut spans)).await;
        }
    }

    async fn send(&mut self, spans: Vec<Span>) {
        let count = spans.len() as u64;
        let scope = Some(Scope { name: SCOPE.into() });
        let resource = Some(self.resource.clone());
        let scope_spans = vec![ScopeSpans { scope, spans }];
        let question = ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans { resource, scope_spans }],
        };
        let answer: Result<ExportTraceServiceResponse, _> =
            self.channel.call(EXPORT, &question).await;
        let refused = match answer {
            Ok(answer) => {
                let refused = answer.partial_success.unwrap_or_default();
                if refused.rejected_spans > 0 {
                    let why = refused.error_message;
                    tracing::warn!(spans = refused.rejected_spans, why, "spans were refused");
                }
                self.is_away = false;
                u64::try_from(refused.rejected_spans).unwrap_or(0).min(count)
            }
            Err(error) => {
                if !std::mem::replace(&mut self.is_away, true) {
                    tracing::warn!(%error, "spans are dropped until the collector answers again");
                }
                count
            }
        };
        if let Some(queue) = self.queue.upgrade() {
            queue.count(count - refused, refused);
        }
    }
}
