//! Priority levels, as clients see them.

use apiserver::User;
use serde_json::{Value, json};

use crate::harness::World;

const API: &str = "/apis/flowcontrol.apiserver.k8s.io/v1";

#[tokio::test]
async fn every_answer_names_its_flow_schema_and_level() {
    let world = World::new().await;
    let uid = async |plural: &str, name: &str| {
        let object = world.ask("GET", &format!("{API}/{plural}/{name}"), &Value::Null).await.json();
        object["metadata"]["uid"].as_str().expect("a uid").to_owned()
    };
    let named = |answer: &crate::harness::Answer| {
        ["x-kubernetes-pf-flowschema-uid", "x-kubernetes-pf-prioritylevel-uid"]
            .map(|header| answer.headers[header].to_str().expect("text").to_owned())
    };
    let answer = world.ask("GET", "/api/v1/nodes", &Value::Null).await;
    let exempt =
        [uid("flowschemas", "exempt").await, uid("prioritylevelconfigurations", "exempt").await];
    assert_eq!(named(&answer), exempt);
    // Also a refusal.
    let user = User::new("u", &["system:authenticated"]);
    let answer = world.ask_by(&user, ("GET", "/api/v1/nodes"), &Value::Null).await;
    assert_eq!(answer.code, 403);
    let usual = [
        uid("flowschemas", "global-default").await,
        uid("prioritylevelconfigurations", "global-default").await,
    ];
    assert_eq!(named(&answer), usual);

    // A schema of somebody's own takes effect while the server runs.
    let level = json!({"metadata": {"name": "mine"}, "spec": {"type": "Limited", "limited": {
        "nominalConcurrencyShares": 1, "limitResponse": {"type": "Reject"}}}});
    assert_eq!(
        world.ask("POST", &format!("{API}/prioritylevelconfigurations"), &level).await.code,
        201
    );
    let schema = json!({"metadata": {"name": "mine"}, "spec": {"matchingPrecedence": 9,
        "priorityLevelConfiguration": {"name": "mine"}, "distinguisherMethod": {"type": "ByUser"},
        "rules": [{"subjects": [{"kind": "User", "user": {"name": "u"}}],
            "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/version"]}]}]}});
    assert_eq!(world.ask("POST", &format!("{API}/flowschemas"), &schema).await.code, 201);
    let mine = [uid("flowschemas", "mine").await, uid("prioritylevelconfigurations", "mine").await];
    while named(&world.ask_by(&user, ("GET", "/version"), &Value::Null).await) != mine {
        tokio::task::yield_now().await;
    }
    let dump = world
        .ask("GET", "/debug/api_priority_and_fairness/dump_priority_levels", &Value::Null)
        .await;
    let text = String::from_utf8(dump.bytes.to_vec()).expect("text");
    assert!(text.lines().any(|line| line.starts_with("mine, 0, true, false, 0, 0, ")), "{text}");
    assert_eq!(
        world
            .ask_by(&user, ("GET", "/debug/api_priority_and_fairness/dump_queues"), &Value::Null)
            .await
            .code,
        403
    );
    let metrics = world.ask("GET", "/metrics", &Value::Null).await;
    let metrics = String::from_utf8(metrics.bytes.to_vec()).expect("text");
    assert!(metrics.contains("apiserver_flowcontrol_nominal_limit_seats{priority_level=\"mine\"}"));
}
