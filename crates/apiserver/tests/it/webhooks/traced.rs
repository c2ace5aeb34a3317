//! Traces: spans of requests and of what they cause, at a collector made by the test.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use grpc::server::Methods;
use grpc::{Connection, Dial};
use http_body_util::Full;
use pki::{Authority, CertSpec};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::json;
use traces::{
    Configuration, Endpoint, ExportTraceServiceRequest, ExportTraceServiceResponse, Kind,
    SpanContext, Tracer, any_value,
};

use super::{CONFIG_MAPS, config_map, validate, webhook, world_with};
use crate::harness::World;

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[derive(Clone, Default)]
struct Collector {
    got: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
    came: Arc<tokio::sync::Notify>,
    tasks: Arc<grpc::Tasks>,
}

impl Dial for Collector {
    fn dial(&self) -> Pin<Box<dyn Future<Output = Result<Connection, String>> + Send + '_>> {
        Box::pin(async {
            let (near, far) = tokio::io::duplex(1 << 20);
            let (got, came) = (self.got.clone(), self.came.clone());
            let path = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
            let methods = Methods::new(4 << 20).unary(path, move |q: ExportTraceServiceRequest| {
                got.lock().expect("sound").push(q);
                came.notify_one();
                async { Ok(ExportTraceServiceResponse::default()) }
            });
            let serve = Arc::new(methods).serve(far);
            self.tasks.spawn("collector", async move { drop(serve.await) });
            Connection::open(near, None).await
        })
    }
}

/// A span as the collector has it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    name: String,
    trace: Vec<u8>,
    span: Vec<u8>,
    parent: Vec<u8>,
    attributes: Vec<(String, String)>,
}

impl Seen {
    fn get(&self, key: &str) -> &str {
        let found = self.attributes.iter().find(|(name, _)| name == key);
        found.map_or("", |(_, value)| value)
    }
}

impl Collector {
    fn tracer(&self, rate: u32) -> Arc<Tracer> {
        let endpoint = Endpoint::Tcp("collector:4317".into());
        let configuration = Configuration { endpoint, sampling_rate_per_million: rate };
        let resource = [("service.name", "apiserver".to_owned())];
        let (tracer, sending) = Tracer::new(&configuration, &resource, self.clone());
        self.tasks.spawn("exporter", sending);
        tracer
    }

    fn count(&self, name: &str) -> usize {
        let all = self.got.lock().expect("sound");
        let scopes = all.iter().flat_map(|q| &q.resource_spans).flat_map(|r| &r.scope_spans);
        scopes.flat_map(|s| &s.spans).filter(|span| span.name == name).count()
    }

    /// All spans that ended before this. A marker follows them, and so many others that no batch with it waits.
    async fn spans(&self, tracer: &Arc<Tracer>) -> Vec<Seen> {
        let parent = SpanContext::parse(PARENT).expect("a context");
        let end = |name: &str| drop(tracer.serve(name, Some(parent.clone()), true));
        let before = self.count("marker");
        end("marker");
        for _ in 0..512 {
            end("filler");
        }
        let came = async {
            while self.count("marker") == before {
                self.came.notified().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), came).await.expect("the marker comes");
        let all = self.got.lock().expect("sound");
        let resources = all.iter().flat_map(|q| &q.resource_spans);
        let spans = resources.flat_map(|r| &r.scope_spans).flat_map(|s| &s.spans);
        let text = |value: &traces::AnyValue| match value.value.as_ref() {
            Some(any_value::Value::String(text)) => text.clone(),
            Some(any_value::Value::Int(number)) => number.to_string(),
            Some(any_value::Value::Bool(flag)) => flag.to_string(),
            None => String::new(),
        };
        let seen =
            spans.filter(|span| !matches!(span.name.as_str(), "filler" | "marker")).map(|span| {
                Seen {
                    name: span.name.clone(),
                    trace: span.trace_id.clone(),
                    span: span.span_id.clone(),
                    parent: span.parent_span_id.clone(),
                    attributes: span
                        .attributes
                        .iter()
                        .map(|a| (a.key.clone(), a.value.as_ref().map(text).unwrap_or_default()))
                        .collect(),
                }
            });
        seen.collect()
    }
}

/// A certificate of an administrator, or of somebody else.
fn certificate(group: &str) -> Arc<[u8]> {
    let authority = Authority::create("ca").expect("an authority");
    let pair = authority.issue(&CertSpec::client("jane", Some(group))).expect("issued");
    let der = CertificateDer::from_pem_slice(pair.cert_pem.as_bytes()).expect("PEM");
    Arc::from(der.to_vec())
}

async fn send(world: &World, group: &str, parent: Option<&str>, name: &str) -> u16 {
    let mut request = http::Request::post(CONFIG_MAPS)
        .header("content-type", "application/json")
        .header("user-agent", "tests")
        .header("audit-id", "the-request");
    if let Some(parent) = parent {
        request = request.header("traceparent", parent).header("tracestate", "vendor=1");
    }
    let body = config_map(name, json!({})).to_string();
    let request = request.body(Full::new(Bytes::from(body))).expect("a request");
    world.server.serve(request, Some(certificate(group))).await.status().as_u16()
}

#[tokio::test]
async fn a_request_its_verb_and_its_webhook_are_one_trace() {
    let collector = Collector::default();
    let tracer = collector.tracer(0);
    let (world, hook) = world_with(Some(tracer.clone())).await;
    validate(&world, webhook(&hook, "/allow", &["CREATE"], "/v1/configmaps")).await;
    hook.take_seen();
    assert_eq!(send(&world, "system:masters", Some(PARENT), "a").await, 201);
    let asked = hook.take_seen();
    let sent = SpanContext::of_headers(&asked[0].headers).expect("the webhook is told the span");
    assert_eq!(sent.state, "vendor=1");

    let spans = collector.spans(&tracer).await;
    let find = |name: &str| {
        spans.iter().find(|s| s.name == name).unwrap_or_else(|| panic!("{name}: {spans:?}"))
    };
    let request = find("POST /api/v1/namespaces/{:namespace}/configmaps");
    let (verb, call) = (find("Create"), find("Call validating webhook"));
    let parent = SpanContext::parse(PARENT).expect("a context");
    assert_eq!(request.parent, parent.span);
    assert_eq!((&verb.parent, &call.parent), (&request.span, &verb.span));
    assert!(spans.iter().all(|s| s.trace == parent.trace));
    assert_eq!(sent.span.to_vec(), call.span);
    for (key, value) in [
        ("http.request.method", "POST"),
        ("http.target", CONFIG_MAPS),
        ("http.response.status_code", "201"),
        ("user_agent.original", "tests"),
        ("audit-id", "the-request"),
    ] {
        assert_eq!(request.get(key), value, "{key}");
    }
    for (key, value) in [
        ("verb", "create"),
        ("resource", "configmaps"),
        ("namespace", "default"),
        ("api-version", "v1"),
        ("scope", "resource"),
        ("audit-id", "the-request"),
    ] {
        assert_eq!(verb.get(key), value, "{key}");
    }
    for (key, value) in [
        ("configuration", "test"),
        ("webhook", "allow.example.com"),
        ("operation", "CREATE"),
        ("resource", "/v1, Resource=configmaps"),
    ] {
        assert_eq!(call.get(key), value, "{key}");
    }
    assert_eq!(call.get("UID"), asked[0].review["request"]["uid"].as_str().expect("a uid"));
}

#[tokio::test]
async fn who_is_not_trusted_decides_nothing() {
    let collector = Collector::default();
    let tracer = collector.tracer(0);
    let (world, hook) = world_with(Some(tracer.clone())).await;
    // A stranger's context asks for a recording and gets none; the request is answered as ever.
    assert_eq!(send(&world, "strangers", Some(PARENT), "a").await, 403);
    validate(&world, webhook(&hook, "/allow", &["CREATE"], "/v1/configmaps")).await;
    assert_eq!(send(&world, "system:masters", None, "b").await, 201);
    let malformed = "00-zz-00f067aa0ba902b7-01";
    assert_eq!(send(&world, "system:masters", Some(malformed), "c").await, 201);
    assert_eq!(collector.spans(&tracer).await, []);
    let all = collector.tracer(1_000_000);
    let (world, _hook) = world_with(Some(all.clone())).await;
    assert_eq!(send(&world, "strangers", Some(PARENT), "a").await, 403);
    let spans = collector.spans(&all).await;
    let own = SpanContext::parse(PARENT).expect("a context").trace;
    assert!(!spans.is_empty() && spans.iter().all(|s| s.trace != own), "{spans:?}");
}

#[tokio::test]
async fn without_a_tracer_contexts_are_passed_on() {
    let (world, hook) = world_with(None).await;
    validate(&world, webhook(&hook, "/allow", &["CREATE"], "/v1/configmaps")).await;
    hook.take_seen();
    assert_eq!(send(&world, "system:masters", Some(PARENT), "a").await, 201);
    assert_eq!(hook.take_seen()[0].headers["traceparent"], PARENT);
    assert_eq!(send(&world, "system:masters", None, "b").await, 201);
    assert!(!hook.take_seen()[0].headers.contains_key("traceparent"));
    assert!(traces::start("alone", Kind::Internal).is_none());
}
