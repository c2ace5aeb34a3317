//! Spans on their way to a collector made by the test.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use grpc::server::Methods;
use grpc::{Connection, Dial, Tasks};
use traces::{
    Configuration, Counts, Endpoint, ExportTraceServiceRequest, ExportTraceServiceResponse, Kind,
    Tracer, any_value,
};

/// A collector at the other end of a pipe.
#[derive(Clone, Default)]
struct Collector {
    got: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
    is_away: Arc<AtomicBool>,
    tasks: Arc<Tasks>,
}

impl Dial for Collector {
    fn dial(&self) -> Pin<Box<dyn Future<Output = Result<Connection, String>> + Send + '_>> {
        Box::pin(async {
            if self.is_away.load(Ordering::Relaxed) {
                return Err("connection refused".into());
            }
            let (near, far) = tokio::io::duplex(1 << 20);
            let (got, away) = (self.got.clone(), self.is_away.clone());
            let path = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
            let methods = Methods::new(4 << 20).unary(path, move |q: ExportTraceServiceRequest| {
                let (got, away) = (got.clone(), away.clone());
                async move {
                    if away.load(Ordering::Relaxed) {
                        return Err(grpc::server::Status::new(grpc::Code::Unavailable, "away"));
                    }
                    got.lock().unwrap().push(q);
                    Ok(ExportTraceServiceResponse::default())
                }
            });
            let serve = Arc::new(methods).serve(far);
            self.tasks.spawn("collector", async move { drop(serve.await) });
            Connection::open(near, None).await
        })
    }
}

impl Collector {
    /// The names of the spans in each batch.
    fn batches(&self) -> Vec<Vec<String>> {
        let spans = |q: &ExportTraceServiceRequest| {
            let scopes = q.resource_spans.iter().flat_map(|r| &r.scope_spans);
            scopes.flat_map(|s| &s.spans).map(|s| s.name.clone()).collect()
        };
        self.got.lock().unwrap().iter().map(spans).collect()
    }
}

fn start(collector: &Collector, tasks: &Tasks) -> Arc<Tracer> {
    let endpoint = Endpoint::Tcp("collector:4317".into());
    let configuration = Configuration { endpoint, sampling_rate_per_million: 1_000_000 };
    let resource = [("service.name", "apiserver".to_owned())];
    let (tracer, sending) = Tracer::new(&configuration, &resource, collector.clone());
    tasks.spawn("exporter", sending);
    tracer
}

#[tokio::test(start_paused = true)]
async fn spans_reach_the_collector_in_batches() {
    let (collector, tasks) = (Collector::default(), Tasks::default());
    let tracer = start(&collector, &tasks);
    let mut span = tracer.root("one", Kind::Server);
    span.set("http.request.method", "GET");
    span.set("http.response.status_code", 200);
    span.set("text", "x".repeat(10_000));
    span.fail("not today");
    drop(span);
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(collector.batches().is_empty(), "more may come");
    drop(tracer.root("two", Kind::Internal));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(collector.batches(), [["one", "two"]]);
    let sent = collector.got.lock().unwrap()[0].clone();
    let resource = sent.resource_spans[0].resource.as_ref().unwrap();
    assert_eq!(resource.attributes[0].key, "service.name");
    let scope = &sent.resource_spans[0].scope_spans[0];
    assert_eq!(scope.scope.as_ref().unwrap().name, "k8s.io/component-base/tracing");
    let one = &scope.spans[0];
    assert_eq!((one.trace_id.len(), one.span_id.len(), one.kind), (16, 8, 2));
    let status = one.status.as_ref().unwrap();
    assert_eq!((status.code, status.message.as_str()), (2, "not today"));
    let values: Vec<_> = one
        .attributes
        .iter()
        .map(|a| (a.key.as_str(), a.value.clone().unwrap().value.unwrap()))
        .collect();
    assert_eq!(values[0], ("http.request.method", any_value::Value::String("GET".into())));
    assert_eq!(values[1], ("http.response.status_code", any_value::Value::Int(200)));
    assert_eq!(values[2].1, any_value::Value::String("x".repeat(4096)), "long texts are cut");
    for _ in 0..600 {
        drop(tracer.root("many", Kind::Internal));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(collector.batches()[1].len(), 512, "a full batch does not wait");
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(collector.batches()[2].len(), 88);
    assert_eq!(tracer.counts(), Counts { sent: 602, dropped: 0 });
}

#[tokio::test(start_paused = true)]
async fn a_collector_that_is_away_costs_spans_and_nothing_else() {
    let (collector, tasks) = (Collector::default(), Tasks::default());
    let tracer = start(&collector, &tasks);
    collector.is_away.store(true, Ordering::Relaxed);
    for _ in 0..5_000 {
        drop(tracer.root("lost", Kind::Internal));
    }
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(
        tracer.counts(),
        Counts { sent: 0, dropped: 5_000 },
        "2048 waited, the rest went at once"
    );
    collector.is_away.store(false, Ordering::Relaxed);
    drop(tracer.root("back", Kind::Internal));
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(collector.batches(), [["back"]]);
    collector.is_away.store(true, Ordering::Relaxed);
    drop(tracer.root("refused", Kind::Internal));
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(tracer.counts(), Counts { sent: 1, dropped: 5_001 });
}
