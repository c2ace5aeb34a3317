//! Who a request is by: each credential in its turn, and tokens that end with what they are bound to.

use apiserver::User;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pki::{Authority, CertSpec};
use serde_json::{Value, json};

use crate::harness::World;

const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";
const PODS: &str = "/api/v1/namespaces/default/pods";
const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";

async fn world() -> World {
    let world = World::new().await;
    for name in ["a", "b"] {
        world.make(ACCOUNTS, &json!({"metadata": {"name": name}})).await;
    }
    world
}

async fn request(world: &World, account: &str, body: &Value) -> crate::harness::Answer {
    let path = format!("{ACCOUNTS}/{account}/token");
    world.ask("POST", &path, body).await
}

async fn token(world: &World, account: &str, spec: Value) -> String {
    let answer = request(world, account, &json!({"spec": spec})).await;
    assert_eq!(answer.code, 201, "{}", answer.json());
    answer.json()["status"]["token"].as_str().expect("a token").to_owned()
}

async fn review(world: &World, token: &str, audiences: Value) -> Value {
    let body = json!({"spec": {"token": token, "audiences": audiences}});
    let answer = world.ask("POST", REVIEWS, &body).await;
    assert_eq!(answer.code, 201, "{}", answer.json());
    answer.json()["status"].clone()
}

async fn why(world: &World, token: &str) -> String {
    let status = review(world, token, Value::Null).await;
    assert!(status["authenticated"] != true, "{status}");
    status["error"].as_str().expect("an error").to_owned()
}

fn certificate(name: &str, group: Option<&str>) -> Vec<u8> {
    certificate_of(&CertSpec::client(name, group))
}

fn certificate_of(spec: &CertSpec) -> Vec<u8> {
    let authority = Authority::create("test").expect("a CA");
    let pair = authority.issue(spec).expect("issued");
    let text: String = pair.cert_pem.lines().filter(|line| !line.starts_with("--")).collect();
    base64::engine::general_purpose::STANDARD.decode(text).expect("base64")
}

async fn code(world: &World, headers: &[(&str, &str)], certificate: Option<&[u8]>) -> u16 {
    world.ask_outside(("GET", "/api/v1/namespaces"), headers, certificate).await.code
}

#[tokio::test]
async fn each_credential_is_tried() {
    let world = world().await;
    let admin = certificate("admin", Some("system:masters"));
    let good = format!("Bearer {}", token(&world, "a", json!({})).await);
    let bad = [("authorization", "Bearer bad")];
    assert_eq!(code(&world, &bad, Some(&admin)).await, 200, "the certificate is enough");
    assert_eq!(code(&world, &bad, None).await, 401);
    assert_eq!(code(&world, &[], None).await, 403, "anonymous");
    assert_eq!(code(&world, &[("authorization", "Basic YTpi")], None).await, 403, "says nothing");
    assert_eq!(code(&world, &[("authorization", &good)], None).await, 403, "an account");
    // A certificate without a name is nobody's, whatever its groups are.
    let nameless = certificate("", Some("system:masters"));
    assert_eq!(code(&world, &[], Some(&nameless)).await, 403);
    assert_eq!(code(&world, &bad, Some(&nameless)).await, 401);
    // A connection may outlive the certificate that it began with.
    let mut spec = CertSpec::client("admin", Some("system:masters"));
    spec.life = std::time::Duration::ZERO;
    let expired = certificate_of(&spec);
    assert_eq!(code(&world, &[], Some(&expired)).await, 401);
    assert_eq!(code(&world, &[("authorization", &good)], Some(&expired)).await, 403, "an account");
}

#[tokio::test]
async fn a_websocket_may_bring_its_token_among_protocols() {
    let world = world().await;
    let good = token(&world, "a", json!({})).await;
    let protocol = |token: &str| {
        let encoded = URL_SAFE_NO_PAD.encode(token);
        format!("base64url.bearer.authorization.k8s.io.{encoded}, v5.channel.k8s.io")
    };
    let (good, bad) = (protocol(&good), protocol("bad"));
    let sent = |protocols| {
        [("connection", "Upgrade"), ("upgrade", "websocket"), ("sec-websocket-protocol", protocols)]
    };
    let found = world.ask_outside(("GET", "/api/v1/namespaces"), &sent(&good), None).await;
    let (code, text) = found.told();
    assert!(code == 403 && text.contains("system:serviceaccount:default:a"), "{text}");
    let refused = world.ask_outside(("GET", "/api/v1/namespaces"), &sent(&bad), None).await;
    assert_eq!(refused.code, 401);
}

#[tokio::test]
async fn a_certificate_names_itself() {
    let world = world().await;
    let der = certificate("jane", Some("people"));
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let request = http::Request::post(path)
        .header("content-type", "application/json")
        .body(http_body_util::Full::<bytes::Bytes>::from("{}"))
        .expect("a request");
    let response = world.server.serve(request, Some(der.into())).await;
    let body = http_body_util::BodyExt::collect(response.into_body()).await.expect("a body");
    let found: Value = serde_json::from_slice(&body.to_bytes()).expect("JSON");
    let info = &found["status"]["userInfo"];
    assert_eq!(info["groups"], json!(["people", "system:authenticated"]));
    let id = info["extra"]["authentication.kubernetes.io/credential-id"][0].as_str();
    assert!(id.is_some_and(|id| id.starts_with("X509SHA256=") && id.len() == 75), "{info}");
}

#[tokio::test]
async fn tokens_end_with_what_they_are_bound_to() {
    let world = world().await;
    world.make("/api/v1/nodes", &json!({"metadata": {"name": "n1"}})).await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"serviceAccountName": "a",
        "containers": [{"name": "c", "image": "i"}]}});
    world.make(PODS, &pod).await;
    world.make(SECRETS, &json!({"metadata": {"name": "s"}})).await;
    let bound = |kind: &str, name: &str| json!({"boundObjectRef": {"apiVersion": "v1", "kind": kind, "name": name}});
    let free = token(&world, "a", json!({})).await;
    let invalidated = "service account token has been invalidated";
    for (kind, name, path) in [
        ("Node", "n1", "/api/v1/nodes/n1".to_owned()),
        ("Pod", "p", format!("{PODS}/p")),
        ("Secret", "s", format!("{SECRETS}/s")),
    ] {
        let own = token(&world, "a", bound(kind, name)).await;
        assert_eq!(review(&world, &own, Value::Null).await["authenticated"], true, "{kind}");
        assert_eq!(world.ask("DELETE", &path, &Value::Null).await.code, 200);
        assert_eq!(why(&world, &own).await, invalidated, "{kind}");
        let header = format!("Bearer {own}");
        assert_eq!(code(&world, &[("authorization", &header)], None).await, 401, "{kind}");
    }
    // Another node of the same name is another.
    world.make("/api/v1/nodes", &json!({"metadata": {"name": "n2"}})).await;
    let own = token(&world, "a", bound("Node", "n2")).await;
    world.ask("DELETE", "/api/v1/nodes/n2", &Value::Null).await;
    world.make("/api/v1/nodes", &json!({"metadata": {"name": "n2"}})).await;
    assert!(why(&world, &own).await.starts_with("node UID ("));
    assert_eq!(review(&world, &free, Value::Null).await["authenticated"], true);
    world.ask("DELETE", &format!("{ACCOUNTS}/a"), &Value::Null).await;
    assert_eq!(why(&world, &free).await, "serviceaccount \"a\" not found");
}

#[tokio::test]
async fn a_token_is_bound_to_a_pod_of_its_own_account_only() {
    let world = world().await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"serviceAccountName": "a",
        "containers": [{"name": "c", "image": "i"}]}});
    let made = world.make(PODS, &pod).await;
    let uid = made["metadata"]["uid"].as_str().expect("a uid");
    let bound = |kind: &str, version: &str, name: &str, uid: &str| json!({"spec": {"boundObjectRef": {"apiVersion": version, "kind": kind, "name": name, "uid": uid}}});
    let other = "Operation cannot be fulfilled on Pod \"p\": the UID in the bound object reference (x) does not match the UID in record. The object might have been deleted and then recreated".to_owned();
    for (account, body, wanted) in [
        ("b", bound("Pod", "v1", "p", uid), (400, "cannot bind token for serviceaccount \"b\" to pod running with different serviceaccount name.".to_owned())),
        ("a", bound("Pod", "v1", "p", "x"), (409, other)),
        ("a", bound("Pod", "v1", "q", ""), (404, "pods \"q\" not found".into())),
        ("a", bound("ConfigMap", "v1", "p", ""), (400, "cannot bind token to object of type /v1, Kind=ConfigMap".into())),
        ("a", bound("Pod", "apps/v1", "p", ""), (400, "cannot bind token to object of type apps/v1, Kind=Pod".into())),
        ("a", json!({"metadata": {"name": "b"}, "spec": {}}), (422, "TokenRequest.authentication.k8s.io \"a\" is invalid: metadata.name: Invalid value: \"b\": must match the service account name if specified".into())),
        ("a", json!({"spec": {"expirationSeconds": 599}}), (422, "TokenRequest.authentication.k8s.io \"\" is invalid: spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 10 minutes".into())),
        ("a", json!({"spec": {"expirationSeconds": 4_294_967_297_i64}}), (422, "TokenRequest.authentication.k8s.io \"\" is invalid: spec.expirationSeconds: Invalid value: 4294967297: may not specify a duration larger than 2^32 seconds".into())),
    ] {
        assert_eq!(request(&world, account, &body).await.told(), wanted, "{body}");
    }
    let stale = json!({"metadata": {"uid": "x"}, "spec": {}});
    let (code, text) = request(&world, "a", &stale).await.told();
    assert!(
        code == 409 && text.contains("the UID in the token request (x) does not match"),
        "{text}"
    );
}

#[tokio::test]
async fn a_review_tells_the_audiences_in_common() {
    let world = world().await;
    let own = token(&world, "a", json!({"audiences": ["x", "y"]})).await;
    let status = review(&world, &own, json!(["y", "z"])).await;
    assert_eq!((&status["authenticated"], &status["audiences"]), (&json!(true), &json!(["y"])));
    let status = review(&world, &own, json!(["z"])).await;
    let told = "token audiences [\"x\" \"y\"] is invalid for the target audiences [\"z\"]";
    assert!(status["authenticated"] != true && status["error"] == told, "{status}");
    // It is not for this API, which is what a request is asked for.
    let header = format!("Bearer {own}");
    assert_eq!(code(&world, &[("authorization", &header)], None).await, 401);
    assert_eq!(why(&world, "nonsense").await, "invalid bearer token");
    let none = world.ask("POST", REVIEWS, &json!({"spec": {}})).await.told();
    assert_eq!(none, (400, "token is required for TokenReview in authentication".into()));
}

#[tokio::test]
async fn anonymous_reads_health_and_version_only() {
    let world = world().await;
    let anonymous = User::anonymous();
    for (path, code) in [
        ("/healthz", 200),
        ("/livez", 200),
        ("/readyz", 200),
        ("/version", 200),
        ("/.well-known/openid-configuration", 403),
        ("/openid/v1/jwks", 403),
        ("/api", 403),
        ("/openapi/v2", 403),
        ("/api/v1/namespaces", 403),
    ] {
        assert_eq!(world.ask_as(&anonymous, ("GET", path), &[], "").await.code, code, "{path}");
    }
    let roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
    let all = world.ask("GET", roles, &Value::Null).await.json().to_string();
    assert!(!all.contains("openshift"));
}
