//! What the audit's log says of requests.

use std::path::PathBuf;

use apiserver::User;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

use crate::harness::World;

const POLICY: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
omitManagedFields: true
rules:
- {level: None, users: [quiet]}
- {level: RequestResponse, resources: [{group: '', resources: [configmaps]}]}
- {level: Request, resources: [{group: '', resources: [secrets]}]}
- {level: Metadata, resources: [{group: '', resources: [pods, namespaces]}]}
- {level: Metadata, nonResourceURLs: [/version]}
";

struct Audited {
    world: World,
    folder: tempfile::TempDir,
}

impl Audited {
    async fn new() -> Audited {
        let folder = tempfile::tempdir().expect("a folder");
        let world = World::audited(POLICY, &folder.path().join("audit.log")).await;
        Audited { world, folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("audit.log")
    }

    /// What was told since the last look.
    fn told(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.path()).expect("a log");
        std::fs::write(self.path(), "").expect("emptied");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    fn one(&self) -> Value {
        let mut all = self.told();
        assert_eq!(all.len(), 1, "{all:#?}");
        all.remove(0)
    }
}

fn without_times(mut event: Value) -> Value {
    for key in ["requestReceivedTimestamp", "stageTimestamp", "auditID"] {
        let told = event.as_object_mut().expect("an object").remove(key);
        assert!(told.is_some_and(|value| value.is_string()), "{key}");
    }
    event
}

#[tokio::test]
async fn a_request_is_told_as_its_rule_says() {
    let audited = Audited::new().await;
    let world = &audited.world;
    audited.told();
    let maps = "/api/v1/namespaces/default/configmaps";
    let body = json!({"metadata": {"name": "a"}, "data": {"k": "v"}});
    assert_eq!(world.ask("POST", maps, &body).await.code, 201);
    let mut event = without_times(audited.one());
    let response = event["responseObject"].take();
    assert_eq!(response["data"]["k"], "v");
    assert!(
        response["metadata"]["uid"].is_string() && response["metadata"]["managedFields"].is_null()
    );
    assert_eq!(
        event,
        json!({
            "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "RequestResponse",
            "stage": "ResponseComplete", "requestURI": maps, "verb": "create",
            "user": {"username": "admin", "groups": ["system:masters", "system:authenticated"]},
            "objectRef": {"resource": "configmaps", "namespace": "default", "name": "a", "apiVersion": "v1"},
            "responseStatus": {"metadata": {}, "code": 201},
            "requestObject": {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a"}, "data": {"k": "v"}},
            "responseObject": null,
            "annotations": {"authorization.k8s.io/decision": "allow", "authorization.k8s.io/reason": ""},
        })
    );

    let patch = [("content-type", "application/merge-patch+json")];
    let path = format!("{maps}/a?fieldManager=me");
    let answer =
        world.ask_as(&world.admin, ("PATCH", &path), &patch, r#"{"data":{"x":"y"}}"#).await;
    assert_eq!(answer.code, 200);
    let event = audited.one();
    assert_eq!(
        (&event["requestObject"], &event["requestURI"]),
        (&json!({"data": {"x": "y"}}), &json!(path))
    );

    let secret = json!({"metadata": {"name": "s"}, "stringData": {"k": "v"}});
    world.ask("POST", "/api/v1/namespaces/default/secrets", &secret).await;
    let event = audited.one();
    assert_eq!(event["level"], "Request");
    assert!(event["requestObject"].is_object() && event["responseObject"].is_null());

    world.ask("GET", "/api/v1/nodes", &Value::Null).await;
    let quiet = User::new("quiet", &["system:masters"]);
    world.ask_by(&quiet, ("GET", maps), &Value::Null).await;
    assert_eq!(audited.told(), Vec::<Value>::new(), "no rule, and a rule that says nothing");
}

#[tokio::test]
async fn a_refusal_is_told_with_its_reason() {
    let audited = Audited::new().await;
    let world = &audited.world;
    audited.told();
    let user = User::new("u", &["system:authenticated"]);
    world.ask_by(&user, ("GET", "/api/v1/namespaces/default/pods/p"), &Value::Null).await;
    let event = audited.one();
    assert_eq!(
        event["annotations"],
        json!({"authorization.k8s.io/decision": "forbid", "authorization.k8s.io/reason": ""})
    );
    let status = &event["responseStatus"];
    assert_eq!(
        (status["code"].as_u64(), status["reason"].as_str()),
        (Some(403), Some("Forbidden"))
    );
    let message = r#"pods "p" is forbidden: User "u" cannot get resource "pods" in API group "" in the namespace "default""#;
    assert_eq!(status["message"], message);

    let viewer = [
        ("impersonate-user", "i"),
        ("impersonate-group", "system:masters"),
        ("user-agent", "tool/1"),
    ];
    world.ask_as(&world.admin, ("GET", "/api/v1/namespaces/default/pods/p"), &viewer, "").await;
    let event = audited.one();
    assert_eq!(event["user"]["username"], "admin");
    assert_eq!(event["impersonatedUser"]["username"], "i");
    assert_eq!(
        (&event["userAgent"], &event["responseStatus"]["code"]),
        (&json!("tool/1"), &json!(404))
    );
}

#[tokio::test]
async fn a_refusal_that_has_warnings_is_told_with_its_reason_too() {
    let audited = Audited::new().await;
    audited.told();
    // An unknown field is a warning, and the name is refused.
    let body = json!({"metadata": {"name": "NO"}, "unknown": 1});
    let path = "/api/v1/namespaces/default/configmaps?fieldValidation=Warn";
    let answer = audited.world.ask("POST", path, &body).await;
    assert_eq!((answer.code, answer.headers.contains_key("warning")), (422, true));
    let status = &audited.one()["responseStatus"];
    assert_eq!((&status["reason"], &status["code"]), (&json!("Invalid"), &json!(422)));
}

#[tokio::test]
async fn a_watch_is_told_when_it_begins_and_when_it_ends() {
    let audited = Audited::new().await;
    audited.told();
    let watch = Request::get("/api/v1/namespaces?watch=1").body(Full::<Bytes>::default());
    let response =
        audited.world.server.serve_as(audited.world.admin.clone(), watch.expect("a request")).await;
    let event = audited.one();
    assert_eq!((&event["stage"], &event["verb"]), (&json!("ResponseStarted"), &json!("watch")));
    let mut body = response.into_body();
    body.frame().await.expect("a namespace").expect("a body never fails");
    drop(body);
    // The end is told by a task of its own.
    let mut rest = audited.told();
    while rest.is_empty() {
        tokio::task::yield_now().await;
        rest = audited.told();
    }
    assert_eq!(
        (&rest[0]["stage"], &rest[0]["responseStatus"]["code"]),
        (&json!("ResponseComplete"), &json!(200))
    );
}

#[tokio::test]
async fn who_is_not_known_is_told_and_every_answer_has_a_name() {
    let audited = Audited::new().await;
    audited.told();
    let ask = |headers: &[(&str, &str)]| {
        let mut request = Request::get("/version");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        audited.world.server.serve(request.body(Full::<Bytes>::default()).expect("a request"), None)
    };
    let response = ask(&[("authorization", "Bearer nobody")]).await;
    assert_eq!(response.status(), 401);
    let event = audited.one();
    assert_eq!(event["responseStatus"]["message"], "Authentication failed, attempted: bearer");
    assert_eq!(event["stage"], "ResponseStarted");
    assert_eq!(event["auditID"], response.headers()["audit-id"].to_str().expect("text"));

    let response = ask(&[("audit-id", "mine"), ("x-forwarded-for", "192.0.2.1")]).await;
    assert_eq!(
        (response.status().as_u16(), &response.headers()["audit-id"]),
        (200, &"mine".parse::<http::HeaderValue>().expect("a value"))
    );
    let event = audited.one();
    assert_eq!((&event["auditID"], &event["sourceIPs"]), (&json!("mine"), &json!(["192.0.2.1"])));
    assert_eq!(event["user"]["username"], "system:anonymous");
    assert!(event.get("objectRef").is_none());
}
