//! Who may be somebody: bootstrap tokens, and requests without credentials.

use apiserver::Anonymous;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::harness::{Setup, World};

const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const WHOAMI: &str = "/version";

#[tokio::test]
async fn a_bootstrap_token_is_a_user_until_it_is_deleted() {
    let setup = Setup { authenticator: |usual| usual.with_bootstrap_tokens(), ..Setup::default() };
    let world = World::with(setup).await;
    let secret = json!({
        "metadata": {"name": "bootstrap-token-abcdef", "namespace": "kube-system"},
        "type": "bootstrap.kubernetes.io/token",
        "stringData": {
            "token-id": "abcdef", "token-secret": "0123456789abcdef",
            "usage-bootstrap-authentication": "true", "auth-extra-groups": "system:bootstrappers:nodes",
        },
    });
    let token = [("authorization", "Bearer abcdef.0123456789abcdef")];
    let unknown = world.ask_outside(("GET", WHOAMI), &token, None).await;
    assert_eq!(unknown.code, 401);
    let secrets = "/api/v1/namespaces/kube-system/secrets";
    assert_eq!(world.ask("POST", secrets, &secret).await.code, 201);

    let review = json!({"spec": {"token": "abcdef.0123456789abcdef"}});
    let path = "/apis/authentication.k8s.io/v1/tokenreviews";
    let known = world.ask("POST", path, &review).await.json();
    assert_eq!(
        known["status"]["user"],
        json!({
            "username": "system:bootstrap:abcdef",
            "groups": ["system:bootstrappers", "system:bootstrappers:nodes", "system:authenticated"],
        }),
        "{known}"
    );
    assert_eq!(world.ask_outside(("GET", WHOAMI), &token, None).await.code, 200);
    let forged = [("authorization", "Bearer abcdef.0123456789abcdee")];
    assert_eq!(world.ask_outside(("GET", WHOAMI), &forged, None).await.code, 401);
    let one = format!("{secrets}/bootstrap-token-abcdef");
    assert_eq!(world.ask("DELETE", &one, &serde_json::Value::Null).await.code, 200);
    assert_eq!(world.ask_outside(("GET", WHOAMI), &token, None).await.code, 401);
}

#[tokio::test]
async fn a_bootstrap_token_is_nothing_where_it_is_not_switched_on() {
    let world = World::new().await;
    let token = [("authorization", "Bearer abcdef.0123456789abcdef")];
    assert_eq!(world.ask_outside(("GET", WHOAMI), &token, None).await.code, 401);
}

#[tokio::test]
async fn nobody_may_ask_only_where_that_is_said() {
    let world = World::new().await;
    assert_eq!(world.ask_outside(("GET", "/livez"), &[], None).await.code, 200);
    assert_eq!(world.ask_outside(("GET", "/api/v1/pods"), &[], None).await.told().0, 403);
    let nowhere = |usual: apiserver::Authenticator| usual.with_anonymous(Anonymous::Nowhere);
    let world = World::with(Setup { authenticator: nowhere, ..Setup::default() }).await;
    assert_eq!(
        world.ask_outside(("GET", "/livez"), &[], None).await.told(),
        (401, "Unauthorized".into())
    );
    let at = |usual: apiserver::Authenticator| {
        usual.with_anonymous(Anonymous::At(vec!["/livez".into()]))
    };
    let world = World::with(Setup { authenticator: at, ..Setup::default() }).await;
    assert_eq!(world.ask_outside(("GET", "/livez"), &[], None).await.code, 200);
    assert_eq!(world.ask_outside(("GET", "/readyz"), &[], None).await.code, 401);
}

#[tokio::test]
async fn a_token_in_a_secret_is_its_accounts_until_the_secret_goes() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("audit.log");
    let policy = "{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: Metadata}]}";
    let world = World::audited(policy, &log).await;
    // What the audit says of the requests for a path, under a key.
    let annotated = |uri: &str, key: &str| -> Vec<String> {
        let text = std::fs::read_to_string(&log).expect("the log");
        let events = text.lines().map(serde_json::from_str::<serde_json::Value>);
        let events =
            events.map(|event| event.expect("JSON")).filter(|event| event["requestURI"] == uri);
        let values = events.filter_map(|event| {
            event["annotations"][format!("authentication.k8s.io/{key}")].as_str().map(str::to_owned)
        });
        values.collect()
    };
    let account = json!({"metadata": {"name": "robot"}});
    let namespaced = |what: &str| format!("/api/v1/namespaces/default/{what}");
    assert_eq!(world.ask("POST", &namespaced("serviceaccounts"), &account).await.code, 201);
    let config = controllers::Config {
        controllers: vec!["serviceaccount-token".into()],
        cluster_ca_pem: "PEM".into(),
        tokens: Some(world.tokens.clone()),
        ..controllers::Config::default()
    };
    let informers = client::Informers::new(world.client(), world.tasks.clone());
    controllers::run(&informers, &world.tasks, config).expect("started");
    let secret = json!({
        "metadata": {"name": "robot", "annotations": {"kubernetes.io/service-account.name": "robot"}},
        "type": "kubernetes.io/service-account-token",
    });
    let one = namespaced("secrets/robot");
    assert_eq!(world.ask("POST", &namespaced("secrets"), &secret).await.code, 201);
    let token = loop {
        let filled = world.ask("GET", &one, &serde_json::Value::Null).await.json();
        if let Some(token) = filled["data"]["token"].as_str() {
            assert_eq!(filled["data"]["namespace"], "ZGVmYXVsdA==");
            break STANDARD.decode(token).expect("base64");
        }
        tokio::task::yield_now().await;
    };
    let token = String::from_utf8(token).expect("text");
    let bearer = format!("Bearer {token}");
    let ask = async || {
        world.ask_outside(("GET", WHOAMI), &[("authorization", bearer.as_str())], None).await
    };
    assert_eq!(ask().await.code, 200);
    let review = json!({"spec": {"token": token}});
    let known = world.ask("POST", REVIEWS, &review).await.json();
    assert_eq!(known["status"]["user"]["username"], "system:serviceaccount:default:robot");

    let invalid =
        json!({"metadata": {"labels": {"kubernetes.io/legacy-token-invalid-since": "2026-01-01"}}});
    assert_eq!(world.ask_by(&world.admin, ("PATCH", &one), &invalid).await.code, 200);
    assert_eq!(annotated(WHOAMI, "legacy-token-invalidated"), [] as [&str; 0]);
    assert_eq!(ask().await.code, 401);
    assert_eq!(annotated(WHOAMI, "legacy-token-invalidated"), ["robot/default"]);
    world.ask("POST", REVIEWS, &review).await;
    assert_eq!(annotated(REVIEWS, "legacy-token-invalidated"), ["robot/default"]);
    assert_eq!(annotated(REVIEWS, "legacy-token-manual-secret"), ["robot"], "of the first review");
    let valid = json!({"metadata": {"labels": {"kubernetes.io/legacy-token-invalid-since": null}}});
    assert_eq!(world.ask_by(&world.admin, ("PATCH", &one), &valid).await.code, 200);
    assert_eq!(ask().await.code, 200);

    // The use is noted, and since when that is done.
    let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date().to_string();
    let watch = format!("{}?watch=true&resourceVersion=0", namespaced("secrets"));
    world
        .until(&watch, |_, o| {
            o["metadata"]["labels"]["kubernetes.io/legacy-token-last-used"] == today
        })
        .await;
    let since = "/api/v1/namespaces/kube-system/configmaps?watch=true&resourceVersion=0";
    let is_since = |_: &str, o: &serde_json::Value| {
        o["metadata"]["name"] == "kube-apiserver-legacy-service-account-token-tracking"
            && o["data"]["since"] == today
    };
    let config = world.until(since, is_since).await;
    let mut broken = config;
    broken["data"]["since"] = "whenever".into();
    let path = "/api/v1/namespaces/kube-system/configmaps/kube-apiserver-legacy-service-account-token-tracking";
    let broken = world.ask("PUT", path, &broken).await.json();
    let revision = broken["metadata"]["resourceVersion"].as_str().unwrap_or("");
    world.until(&since.replace('0', revision), is_since).await;

    // A Secret that came with its account is warned of.
    assert_eq!(ask().await.warnings(), [] as [&str; 0]);
    let made = json!({"secrets": [{"name": "robot"}]});
    assert_eq!(
        world
            .ask_by(&world.admin, ("PATCH", &namespaced("serviceaccounts/robot")), &made)
            .await
            .code,
        200
    );
    assert_eq!(
        ask().await.warnings(),
        [
            "299 - \"Use tokens from the TokenRequest API or manually created secret-based tokens instead of auto-generated secret-based tokens.\""
        ]
    );
    let metrics = world.ask("GET", "/metrics", &serde_json::Value::Null).await;
    let metrics = String::from_utf8_lossy(&metrics.bytes).into_owned();
    for (name, count) in [
        ("legacy_manual_token_uses", 4),
        ("legacy_auto_token_uses", 1),
        ("invalid_legacy_auto_token_uses", 2),
    ] {
        let line = format!("serviceaccount_{name}_total {count}\n");
        assert!(metrics.contains(&line), "{line}{metrics}");
    }

    // The account goes, and with it the Secret.
    let path = namespaced("serviceaccounts/robot");
    assert_eq!(world.ask("DELETE", &path, &serde_json::Value::Null).await.code, 200);
    while world.ask("GET", &one, &serde_json::Value::Null).await.code != 404 {
        tokio::task::yield_now().await;
    }
    assert_eq!(ask().await.code, 401);
}
