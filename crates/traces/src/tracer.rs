//! Begins the spans of one component, and hands over those that have ended.

use std::sync::Arc;

use tokio::sync::mpsc::Receiver;

use crate::config::Configuration;
use crate::context::SpanContext;
use crate::message;
use crate::queue::{Counts, Queue};
use crate::span::{Active, Kind, Span, child, id, random};

/// The spans of one component.
#[derive(Debug)]
pub struct Tracer {
    /// Traces begun here are recorded if the lower half of their id is below this.
    bound: u64,
    pub(crate) queue: Arc<Queue>,
}

impl Tracer {
    /// The spans that end come out of the receiver.
    pub(crate) fn with_queue(
        configuration: &Configuration,
    ) -> (Arc<Tracer>, Receiver<message::Span>) {
        let (queue, ended) = Queue::new();
        let rate = u64::from(configuration.sampling_rate_per_million);
        // Ids have 63 bits that count, as in OpenTelemetry's `TraceIDRatioBased`.
        let bound = u128::from(rate) * (1 << 63) / 1_000_000;
        let bound = u64::try_from(bound).unwrap_or(u64::MAX);
        (Arc::new(Tracer { bound, queue }), ended)
    }

    /// Begins a span for a request from outside. A sender that is not trusted with it does not decide whether its
    /// request is recorded: the span begins a trace of its own and is linked to the sender's.
    pub fn serve(
        self: &Arc<Tracer>,
        name: &str,
        sender: Option<SpanContext>,
        is_trusted: bool,
    ) -> Span {
        match sender {
            Some(parent) if is_trusted => child(&self.queue, &parent, (name, Kind::Server)),
            sender => {
                let mut span = self.root(name, Kind::Server);
                sender.iter().for_each(|sender| span.link(sender));
                span
            }
        }
    }

    /// Begins a trace.
    pub fn root(self: &Arc<Tracer>, name: &str, kind: Kind) -> Span {
        let (high, low) = (random(), random());
        let mut trace = [0; 16];
        trace[..8].copy_from_slice(&high.to_be_bytes());
        trace[8..].copy_from_slice(&low.to_be_bytes());
        let sampled = low >> 1 < self.bound;
        let context = SpanContext { trace, span: id(), sampled, state: String::new() };
        let active = Active { context, queue: Some(self.queue.clone()) };
        Span::begin(active, None, (name, kind))
    }

    /// What has become of the spans.
    pub fn counts(&self) -> Counts {
        self.queue.counts()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Endpoint;
    use crate::queue::QUEUE;
    use crate::{current, inject, start, within};

    fn tracer(rate: u32) -> (Arc<Tracer>, Receiver<message::Span>) {
        let endpoint = Endpoint::Tcp("localhost:4317".into());
        Tracer::with_queue(&Configuration { endpoint, sampling_rate_per_million: rate })
    }

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[tokio::test]
    async fn children_belong_to_the_span_that_the_task_works_for() {
        let (tracer, mut ended) = tracer(1_000_000);
        let outer = tracer.root("outer", Kind::Internal);
        let context = outer.context().clone();
        within(Some(&outer), async {
            let inner = start("inner", Kind::Client).expect("there is a span");
            within(Some(&inner), async {
                let mut headers = HeaderMap::new();
                inject(&mut headers);
                let sent = SpanContext::of_headers(&headers).expect("written");
                assert_eq!(sent, *inner.context());
            })
            .await;
        })
        .await;
        drop(outer);
        let (inner, outer) =
            (ended.recv().await.expect("inner"), ended.recv().await.expect("outer"));
        assert_eq!((inner.name.as_str(), outer.name.as_str()), ("inner", "outer"));
        assert_eq!((inner.parent_span_id, outer.parent_span_id), (context.span.to_vec(), vec![]));
        assert_eq!(inner.trace_id, outer.trace_id);
        assert!(outer.start_time_unix_nano <= inner.start_time_unix_nano);
        assert!(inner.end_time_unix_nano <= outer.end_time_unix_nano);
        assert_eq!(current(), None);
        assert!(start("alone", Kind::Internal).is_none(), "no span, no child");
    }

    use http::HeaderMap;

    #[test]
    fn senders_that_are_trusted_decide_what_is_recorded() {
        let (tracer, mut ended) = tracer(0);
        let sender = SpanContext::parse(PARENT).expect("valid");
        let span = tracer.serve("GET", Some(sender.clone()), true);
        assert!(span.is_recorded());
        assert_eq!(span.context().trace, sender.trace);
        drop(span);
        assert_eq!(ended.try_recv().expect("recorded").parent_span_id, sender.span);
        let stranger = tracer.serve("GET", Some(sender.clone()), false);
        assert!(!stranger.is_recorded(), "nothing is sampled that begins here");
        assert_ne!(stranger.context().trace, sender.trace);
        drop(stranger);
        assert!(ended.try_recv().is_err());
        let unsampled = SpanContext { sampled: false, ..sender };
        assert!(!tracer.serve("GET", Some(unsampled), true).is_recorded());
    }

    #[test]
    fn strangers_are_linked_and_a_full_queue_drops() {
        let (tracer, mut ended) = tracer(1_000_000);
        let sender = SpanContext::parse(PARENT).expect("valid");
        drop(tracer.serve("GET", Some(sender.clone()), false));
        let span = ended.try_recv().expect("recorded");
        assert_eq!(span.links[0].trace_id, sender.trace);
        assert!(span.parent_span_id.is_empty());
        for _ in 0..QUEUE + 7 {
            drop(tracer.root("many", Kind::Internal));
        }
        assert_eq!(tracer.counts(), Counts { sent: 0, dropped: 7 });
    }

    #[test]
    fn a_part_of_all_traces_is_recorded() {
        let (tracer, _ended) = tracer(250_000);
        let recorded =
            (0..20_000).filter(|_| tracer.root("x", Kind::Internal).is_recorded()).count();
        // Six standard deviations.
        assert!((4_600..5_400).contains(&recorded), "{recorded}");
    }
}
