//! Requests, queues and lending, in paused time.

use std::sync::Arc;
use std::time::Duration;

use auth::{RequestInfo, User};
use serde_json::{Value, json};

use crate::{FlowControl, Place, Refusal};

fn level(name: &str, shares: u32, response: Value) -> Value {
    json!({"metadata": {"name": name, "uid": format!("{name}-uid")}, "spec": {"type": "Limited", "limited": {
        "nominalConcurrencyShares": shares, "lendablePercent": 50, "limitResponse": response,
    }}})
}

fn queue(length: u32) -> Value {
    json!({"type": "Queue", "queuing": {"queues": 64, "handSize": 6, "queueLengthLimit": length}})
}

fn schema(name: &str, level: &str, precedence: u32, resources: &[&str]) -> Value {
    json!({"metadata": {"name": name, "uid": format!("{name}-uid")}, "spec": {
        "matchingPrecedence": precedence, "priorityLevelConfiguration": {"name": level},
        "distinguisherMethod": {"type": "ByUser"},
        "rules": [{
            "subjects": [{"kind": "Group", "group": {"name": "g"}}],
            "resourceRules": [{"verbs": ["*"], "apiGroups": [""], "resources": resources,
                "namespaces": ["*"], "clusterScope": false}],
        }],
    }})
}

fn user(name: &str) -> User {
    User::new(name, &["g", "system:authenticated"])
}

fn pods() -> RequestInfo {
    RequestInfo::parse(&http::Method::GET, "/api/v1/namespaces/n/pods", false)
}

fn control(seats: u32, length: u32) -> Arc<FlowControl> {
    let control = FlowControl::new(seats, Duration::from_secs(15));
    let levels = [level("work", 95, queue(length))];
    control.configure(&[schema("pods", "work", 500, &["pods"])], &levels);
    Arc::new(control)
}

async fn enter(control: &FlowControl, who: &str) -> Result<Place, Refusal> {
    control.enter(&user(who), &pods(), || 1).await.map_err(|refused| refused.why)
}

#[tokio::test(start_paused = true)]
async fn requests_are_told_apart_and_named() {
    let control = control(100, 10);
    let names = enter(&control, "u").await.expect("a seat").names.clone();
    assert_eq!((names.schema.as_str(), names.level_uid.as_str()), ("pods", "work-uid"));
    let other = RequestInfo::parse(&http::Method::GET, "/api/v1/nodes", false);
    let names = control.enter(&user("u"), &other, || 1).await.expect("a seat").names.clone();
    assert_eq!(names.schema, "catch-all");
    let admin = User::new("a", &["system:masters"]);
    let names = control.enter(&admin, &pods(), || 1).await.expect("a seat").names.clone();
    assert_eq!(names.level, "exempt");
}

#[tokio::test(start_paused = true)]
async fn a_noisy_user_waits_and_a_quiet_one_does_not() {
    let control = control(10, 1_000);
    let work = |control: Arc<FlowControl>, who: &'static str| async move {
        let begun = tokio::time::Instant::now();
        let place = enter(&control, who).await;
        let waited = begun.elapsed();
        tokio::time::sleep(Duration::from_millis(100)).await;
        drop(place);
        waited
    };
    let mut noisy = tokio::task::JoinSet::new();
    for _ in 0..500 {
        noisy.spawn(work(control.clone(), "noisy"));
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut quiet = Vec::new();
    for _ in 0..20 {
        quiet.push(work(control.clone(), "quiet").await);
    }
    let worst = quiet.iter().max().expect("some");
    assert!(*worst <= Duration::from_millis(100), "one turn at most: {quiet:?}");
    let waits = noisy.join_all().await;
    assert!(waits.iter().max().expect("some") > &Duration::from_secs(4), "who sends much waits");
}

#[tokio::test(start_paused = true)]
async fn who_cannot_be_served_is_told_why() {
    let control = control(1, 2);
    // One seat each: the level has 95 of 100 shares, the other the rest.
    let held = enter(&control, "u").await.expect("a seat");
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..12 {
        let control = control.clone();
        waiting.spawn(async move { enter(&control, "u").await.map(drop) });
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(enter(&control, "u").await.map(drop), Err(Refusal::QueueFull), "six queues of two");
    assert!(control.dump_queues().lines().count() == 7, "{}", control.dump_queues());
    let all = waiting.join_all().await;
    assert!(all.iter().all(|end| *end == Err(Refusal::TimeOut)), "{all:?}");
    drop(held);
    assert!(enter(&control, "u").await.is_ok(), "who was sent away holds nothing");

    control.configure(
        &[schema("pods", "work", 500, &["pods"])],
        &[level("work", 95, json!({"type": "Reject"}))],
    );
    let _held = enter(&control, "u").await.expect("a seat");
    assert_eq!(enter(&control, "u").await.map(drop), Err(Refusal::ConcurrencyLimit));
    let figures = control.figures();
    assert!(
        figures.iter().any(|family| family.name == "apiserver_flowcontrol_rejected_requests_total"
            && family.figures.len() == 3),
        "{figures:?}"
    );
    let figure = |name: &str| {
        let family = figures.iter().find(|family| family.name.ends_with(name)).expect("a family");
        let pods = |(labels, _): &&(Vec<(&str, String)>, f64)| labels[1].1 == "pods";
        family.figures.iter().find(pods).map(|(_, figure)| *figure)
    };
    // Three of all who came got a seat; one holds it, and nobody waits.
    assert_eq!(figure("_dispatched_requests_total"), Some(3.0));
    assert_eq!(figure("_current_executing_requests"), Some(1.0));
    assert_eq!(figure("_current_executing_seats"), Some(1.0));
    assert_eq!(figure("_current_inqueue_requests"), Some(0.0));
    let waits = control.waits();
    let family = "apiserver_flowcontrol_request_wait_duration_seconds";
    for line in [
        // Twelve waited as long as they may; two were sent away at once.
        format!(
            "{family}_bucket{{execute=\"false\",flow_schema=\"pods\",priority_level=\"work\",le=\"10\"}} 2\n"
        ),
        format!(
            "{family}_count{{execute=\"false\",flow_schema=\"pods\",priority_level=\"work\"}} 14\n"
        ),
        format!(
            "{family}_bucket{{execute=\"true\",flow_schema=\"pods\",priority_level=\"work\",le=\"0\"}} 3\n"
        ),
    ] {
        assert!(waits.contains(&line), "{line} is not in\n{waits}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_waiting_leaves_no_trace() {
    let control = control(1, 10);
    let held = enter(&control, "u").await.expect("a seat");
    let given_up = tokio::time::timeout(Duration::from_secs(1), enter(&control, "v")).await;
    assert!(given_up.is_err());
    let next = tokio::spawn({
        let control = control.clone();
        async move { enter(&control, "w").await.map(drop) }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(held);
    assert_eq!(next.await.expect("no panic"), Ok(()));
    assert!(
        control.dump_levels().contains("work, 0, true, false, 0, 0, 2, 0, 0, 1"),
        "{}",
        control.dump_levels()
    );
}

#[tokio::test(start_paused = true)]
async fn a_wide_request_has_the_level_alone() {
    let control = control(4, 10);
    let wide = control.enter(&user("u"), &pods(), || 10).await.expect("alone");
    let narrow = tokio::spawn({
        let control = control.clone();
        async move { enter(&control, "v").await.map(drop) }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!narrow.is_finished());
    drop(wide);
    assert_eq!(narrow.await.expect("no panic"), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn seats_that_nobody_needs_are_lent() {
    let control = FlowControl::new(100, Duration::from_secs(600));
    let levels = [level("busy", 45, queue(1_000)), level("idle", 50, queue(1_000))];
    control.configure(&[schema("pods", "busy", 500, &["pods"])], &levels);
    let control = Arc::new(control);
    let limit = |name: &str| {
        let look = control.looks().into_iter().find(|look| look.settings.name == name);
        look.map_or(0, |look| look.limit)
    };
    assert_eq!((limit("busy"), limit("idle")), (45, 50));
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..90 {
        let control = control.clone();
        all.spawn(async move {
            let place = enter(&control, "u").await;
            tokio::time::sleep(Duration::from_secs(120)).await;
            drop(place);
        });
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    control.lend_once();
    assert_eq!((limit("busy"), limit("idle")), (70, 25), "the idle one keeps half of its own");
    all.shutdown().await;
    for _ in 0..60 {
        tokio::time::sleep(Duration::from_secs(10)).await;
        control.lend_once();
    }
    assert!(limit("idle") > 40, "what is not needed comes back: {}", limit("idle"));
}
