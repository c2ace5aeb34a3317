//! Batches, throttles, attempts and limits, in paused time.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use auth::{RequestInfo, User};
use jiff::Timestamp;
use serde_json::Value;
use tokio::time::Instant;

use crate::*;

/// Remembers what it is given; fails as often as it is told.
#[derive(Default)]
struct Other {
    lists: Mutex<Vec<Value>>,
    failures: Mutex<u32>,
}

impl Deliver for Other {
    fn deliver(
        &self,
        list: String,
    ) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + '_>> {
        Box::pin(async move {
            let mut failures = self.failures.lock().expect("no panic");
            if *failures > 0 {
                *failures -= 1;
                return Err("not now".to_owned());
            }
            self.lists.lock().expect("no panic").push(serde_json::from_str(&list).expect("JSON"));
            Ok(())
        })
    }
}

impl Other {
    fn sizes(&self) -> Vec<usize> {
        let lists = self.lists.lock().expect("no panic");
        lists.iter().map(|list| list["items"].as_array().map_or(0, Vec::len)).collect()
    }
}

const POLICY: &str =
    "{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: RequestResponse}]}";

fn auditor(sink: Sink) -> (Auditor, tokio::task::JoinSet<()>) {
    let (sinks, work) = Sinks::new(vec![sink]);
    let mut running = tokio::task::JoinSet::new();
    for part in work {
        running.spawn(part);
    }
    (Auditor::new(Policy::parse(POLICY).expect("a policy"), sinks), running)
}

fn webhook(other: &Arc<Other>, mode: Mode, truncation: Option<Truncation>) -> Sink {
    Sink::Webhook { to: other.clone(), mode, truncation, first_wait: Duration::from_secs(10) }
}

fn record(auditor: &Auditor) -> Arc<Record> {
    let info = RequestInfo::parse(&"GET".parse().expect("a method"), "/api/v1/nodes", false);
    let describe = |audited| Request {
        audited,
        id: "i",
        uri: "/api/v1/nodes",
        agent: "a",
        sources: Vec::new(),
        received: Timestamp::UNIX_EPOCH,
    };
    auditor.begin(&info, &User::new("u", &[]), describe).expect("told")
}

const BATCHING: Batching =
    Batching { buffer: 5, size: 2, wait: Duration::from_secs(30), throttle: Some((0.5, 1)) };

#[tokio::test(start_paused = true)]
async fn events_are_gathered_throttled_and_lost_when_too_many() {
    let other = Arc::new(Other::default());
    let (auditor, _running) = auditor(webhook(&other, Mode::Batch(BATCHING), None));
    let one = record(&auditor);
    for _ in 0..7 {
        assert!(one.tell(Stage::ResponseComplete).await, "a request never waits for a batch");
    }
    assert_eq!(auditor.counts(), (7, 2), "the buffer holds five");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(other.sizes(), [2], "the next list waits for the throttle");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(other.sizes(), [2, 2]);
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert_eq!(other.sizes(), [2, 2, 1], "a list that is not full goes when its time is over");
}

#[tokio::test(start_paused = true)]
async fn what_fails_is_sent_again_and_then_lost() {
    let other = Arc::new(Other::default());
    let (auditor, _running) = auditor(webhook(&other, Mode::BlockingStrict, None));
    *other.failures.lock().expect("no panic") = 2;
    let begun = Instant::now();
    assert!(record(&auditor).tell(Stage::RequestReceived).await);
    assert_eq!(begun.elapsed(), Duration::from_secs(25), "ten seconds, then fifteen");
    *other.failures.lock().expect("no panic") = 6;
    assert!(!record(&auditor).tell(Stage::RequestReceived).await, "strict: it must not go on");
    assert!(record(&auditor).tell(Stage::ResponseComplete).await, "too late to refuse it");
    assert_eq!(auditor.counts().1, 1);
}

#[tokio::test(start_paused = true)]
async fn large_events_lose_their_objects_and_too_large_ones_everything() {
    let truncation = Some(Truncation { max_event: 600, max_batch: 1_000 });
    let other = Arc::new(Other::default());
    let (auditor, _running) = auditor(webhook(&other, Mode::Blocking, truncation));
    let large = record(&auditor);
    large.request_object(&serde_json::json!({"data": "x".repeat(600)}));
    assert!(large.tell(Stage::ResponseComplete).await);
    let told = other.lists.lock().expect("no panic")[0]["items"][0].clone();
    assert!(told["requestObject"].is_null());
    assert_eq!(told["annotations"]["audit.k8s.io/truncated"], "true");
    large.annotate("a/b", "y".repeat(600));
    assert!(large.tell(Stage::ResponseComplete).await);
    assert_eq!((other.sizes(), auditor.counts()), (vec![1], (2, 1)));
}

#[tokio::test]
async fn annotations_stay_as_they_were_set_first_and_patches_are_told_with_objects() {
    const PATCH: &str = "patch.webhook.admission.k8s.io/round_0_index_0";
    for (level, patches) in [("RequestResponse", true), ("Metadata", false)] {
        let other = Arc::new(Other::default());
        let (sinks, _work) = Sinks::new(vec![webhook(&other, Mode::Blocking, None)]);
        let policy = Policy::parse(&POLICY.replace("RequestResponse", level)).expect("a policy");
        let one = record(&Auditor::new(policy, sinks));
        one.annotate("a", "1".into());
        one.annotate("a", "2".into());
        one.annotate(PATCH, "p".into());
        assert!(one.tell(Stage::ResponseComplete).await);
        let told = other.lists.lock().expect("no panic")[0]["items"][0]["annotations"].clone();
        assert_eq!(told["a"], "1");
        assert_eq!(told.get(PATCH).is_some(), patches, "{level}");
    }
}
