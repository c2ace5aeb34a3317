//! A server that is asked what may be done, between RBAC and the request.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use apiserver::{
    AuthorizationModes, Mode, ReviewFailure, ReviewWebhook, SubjectAccessReviews, User,
    WebhookSettings,
};
use serde_json::{Value, json};

use crate::harness::{Setup, World};

/// Decides by the verb: `list` is denied, `delete` cannot be told, what `jane` wants is allowed.
#[derive(Default)]
struct Knows(Mutex<Vec<Value>>);

impl SubjectAccessReviews for Knows {
    fn review<'a>(
        &'a self,
        spec: &'a Value,
    ) -> Pin<Box<dyn Future<Output = Result<Value, ReviewFailure>> + Send + 'a>> {
        self.0.lock().expect("no panic").push(spec.clone());
        let about = if spec["resourceAttributes"].is_null() {
            &spec["nonResourceAttributes"]
        } else {
            &spec["resourceAttributes"]
        };
        let answer = match about["verb"].as_str() {
            Some("list") => Ok(json!({"denied": true, "reason": "nobody lists"})),
            Some("delete") => {
                Err(ReviewFailure { message: "no route to it".into(), is_passing: false })
            }
            _ => Ok(json!({"allowed": spec["user"] == "jane", "reason": "as it says"})),
        };
        Box::pin(async move { answer })
    }
}

async fn world(knows: Arc<Knows>) -> World {
    let lives = (Duration::ZERO, Duration::ZERO);
    let settings = WebhookSettings::of_flags("/none".into(), "v1", lives);
    let webhook = Mode::Webhook(Arc::new(ReviewWebhook::new(settings, knows)));
    let authorization = AuthorizationModes(vec![Mode::Node, webhook, Mode::Rbac]);
    World::with(Setup { authorization, ..Setup::default() }).await
}

fn user(name: &str) -> User {
    User::new(name, &["system:authenticated"])
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn requests_are_allowed_denied_or_passed_on() {
    let knows = Arc::new(Knows::default());
    let world = world(knows.clone()).await;
    world
        .grant("joe", &json!([{"verbs": ["*"], "apiGroups": [""], "resources": ["configmaps"]}]))
        .await;
    let map = |name: &str| json!({"metadata": {"name": name}});
    let (jane, joe, eve) = (user("jane"), user("joe"), user("eve"));
    assert_eq!(world.ask_by(&jane, ("POST", MAPS), &map("a")).await.code, 201);
    assert_eq!(world.ask_by(&joe, ("POST", MAPS), &map("b")).await.code, 201, "RBAC is next");
    let refused = world.ask_by(&eve, ("POST", MAPS), &map("c")).await.told();
    assert_eq!(refused.0, 403);
    assert!(refused.1.ends_with("in the namespace \"default\": as it says"), "{}", refused.1);
    let list = format!("{MAPS}?labelSelector=a%3Db");
    let (code, told) = world.ask_by(&joe, ("GET", &list), &Value::Null).await.told();
    assert_eq!(code, 403, "RBAC is not asked any more");
    assert!(told.ends_with("nobody lists"), "{told}");
    let last = knows.0.lock().expect("no panic").last().cloned().expect("asked");
    assert_eq!(
        last["resourceAttributes"]["labelSelector"]["requirements"],
        json!([{"key": "a", "operator": "In", "values": ["b"]}])
    );
    assert_eq!(last["resourceAttributes"]["version"], "v1");
    let path = format!("{MAPS}/a");
    let deleted = world.ask_by(&joe, ("DELETE", &path), &Value::Null).await;
    assert_eq!(deleted.code, 200, "what cannot be told is passed on");
    let path = format!("{MAPS}/b");
    let failed = world.ask_by(&eve, ("DELETE", &path), &Value::Null).await.told();
    let wanted = format!("Internal Server Error: \"{path}\": no route to it");
    assert_eq!(failed, (500, wanted));
}

#[tokio::test]
async fn reviews_tell_what_the_server_said() {
    let world = world(Arc::default()).await;
    let review = async |user: &str, verb: &str| {
        let spec = json!({"user": user, "resourceAttributes": {"verb": verb, "resource": "pods"}});
        let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        world.make(path, &json!({"spec": spec})).await["status"].clone()
    };
    assert_eq!(review("jane", "get").await, json!({"allowed": true, "reason": "as it says"}));
    let denied = json!({"allowed": false, "denied": true, "reason": "nobody lists"});
    assert_eq!(review("jane", "list").await, denied);
    let unknown = json!({"allowed": false, "evaluationError": "no route to it"});
    assert_eq!(review("jane", "delete").await, unknown);
    let rules = json!({"spec": {"namespace": "default"}});
    let path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
    let rules = world.make(path, &rules).await["status"].clone();
    assert_eq!(rules["incomplete"], true);
    assert_eq!(
        rules["evaluationError"],
        "webhook authorizer does not support user rule resolution"
    );
    let none = world.ask("POST", path, &json!({"spec": {}})).await.told();
    assert_eq!(none, (400, "no namespace on request".into()));
}

/// Expressions, plugins and impersonation cannot wait for the server: they run again with its answer.
#[tokio::test]
async fn expressions_plugins_and_impersonation_hear_the_server() {
    let world = world(Arc::default()).await;
    let group = "/apis/admissionregistration.k8s.io/v1";
    let right =
        "authorizer.group('').resource('secrets').namespace('default').check('get').allowed()";
    let policy = json!({"metadata": {"name": "asks"}, "spec": {
        "matchConstraints": {"resourceRules": [{"operations": ["CREATE"], "apiGroups": [""],
            "apiVersions": ["v1"], "resources": ["configmaps"]}]},
        "validations": [{"expression": right, "message": "who may read secrets"}]}});
    world.make(&format!("{group}/validatingadmissionpolicies"), &policy).await;
    let binding = json!({"metadata": {"name": "asks"},
        "spec": {"policyName": "asks", "validationActions": ["Deny"]}});
    world.make(&format!("{group}/validatingadmissionpolicybindings"), &binding).await;
    let rules = json!([
        {"verbs": ["*"], "apiGroups": [""], "resources": ["configmaps", "users"]},
        {"verbs": ["create"], "apiGroups": ["*"], "resources": ["roles"]},
    ]);
    world.grant("joe", &rules).await;
    let map = |name: &str| json!({"metadata": {"name": name}});
    let (jane, joe) = (user("jane"), user("joe"));
    assert_eq!(world.ask_by(&jane, ("POST", MAPS), &map("a")).await.code, 201);
    let (code, told) = world.ask_by(&joe, ("POST", MAPS), &map("b")).await.told();
    assert_eq!(code, 422, "{told}");
    assert!(told.contains("who may read secrets"), "{told}");
    let roles = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles";
    let role = |name: &str| {
        json!({"metadata": {"name": name},
            "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"]}]})
    };
    // Jane may escalate, by word of the server; Joe holds the right neither way.
    assert_eq!(world.ask_by(&jane, ("POST", roles), &role("a")).await.code, 201);
    let (code, told) = world.ask_by(&joe, ("POST", roles), &role("b")).await.told();
    assert_eq!(code, 403);
    assert!(told.contains("attempting to grant RBAC permissions not currently held"), "{told}");
    let path = ("GET", "/api/v1/namespaces/default/configmaps/a");
    let headers = [("impersonate-user", "jane")];
    assert_eq!(world.ask_as(&user("eve"), path, &headers, "").await.code, 403);
    assert_eq!(world.ask_as(&joe, path, &headers, "").await.code, 200);
    assert_eq!(world.ask_as(&jane, path, &[("impersonate-user", "joe")], "").await.code, 200);
}
