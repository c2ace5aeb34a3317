//! Custom resources in two versions, with a webhook between them.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

use crate::harness::{Answer, Here, World};
use crate::hook::{Hook, Mood, authority};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const V1: &str = "/apis/example.com/v1/namespaces/default/gizmos";
const V2: &str = "/apis/example.com/v2/namespaces/default/gizmos";

fn version(name: &str, field: &str, default: i64, storage: bool) -> Value {
    json!({
        "name": name, "served": true, "storage": storage,
        "selectableFields": [{"jsonPath": format!(".spec.{field}")}],
        "additionalPrinterColumns": [{"name": field, "type": "integer", "jsonPath": format!(".spec.{field}")}],
        "subresources": {"status": {}, "scale": {
            "specReplicasPath": format!(".spec.{field}"), "statusReplicasPath": ".status.replicas"}},
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {
            "spec": {"type": "object", "properties": {
                (field): {"type": "integer", "default": default},
                "colour": {"type": "string"},
            }},
            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        }}},
    })
}

fn definition(client: &Value, storage: &str) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "gizmos.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "gizmos", "singular": "gizmo", "kind": "Gizmo", "listKind": "GizmoList"},
            "conversion": {"strategy": "Webhook", "webhook": {
                "clientConfig": client, "conversionReviewVersions": ["v1", "v1beta1"]}},
            "versions": [
                version("v1", "size", 3, storage == "v1"), version("v2", "width", 7, storage == "v2")],
        },
    })
}

fn service(bundle: &str) -> Value {
    json!({"service": {"namespace": "default", "name": "hook", "path": "/convert"}, "caBundle": bundle})
}

async fn ok(answer: impl Future<Output = Answer>) -> Value {
    let answer = answer.await;
    assert!(answer.code < 300, "{}: {}", answer.code, answer.json());
    answer.json()
}

/// A world with the webhook as a service, and the definition served.
async fn world() -> (World, Hook) {
    let hook = Hook::start(&["hook.default.svc"]).await;
    let world = World::with_dialer(Arc::new(Here(hook.address))).await;
    let ports = json!([{"name": "https", "port": 443, "targetPort": 8443}]);
    let made = json!({"metadata": {"name": "hook"}, "spec": {"ports": ports}});
    ok(world.ask("POST", "/api/v1/namespaces/default/services", &made)).await;
    let slice = json!({
        "metadata": {"name": "hook", "labels": {"kubernetes.io/service-name": "hook"}},
        "addressType": "IPv4", "ports": [{"name": "https", "port": 8443}],
        "endpoints": [{"addresses": ["192.0.2.7"], "conditions": {"ready": true}}],
    });
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    ok(world.ask("POST", slices, &slice)).await;
    serve(&world, &definition(&service(&hook.bundle), "v1")).await;
    (world, hook)
}

async fn serve(world: &World, definition: &Value) {
    ok(world.ask("POST", DEFINITIONS, definition)).await;
    let served = async {
        while world.ask("GET", V1, &Value::Null).await.code == 404 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), served).await.expect("served");
}

fn gizmo(version: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": format!("example.com/{version}"), "kind": "Gizmo", "metadata": {"name": name}, "spec": spec})
}

async fn patch(world: &World, path: &str, kind: &str, body: &Value) -> Answer {
    let kind = format!("application/{kind}");
    let headers = [("content-type", kind.as_str())];
    world.ask_as(&world.admin, ("PATCH", path), &headers, body.to_string()).await
}

#[tokio::test]
async fn both_versions_are_read_and_written() {
    let (world, hook) = world().await;
    ok(world.ask("POST", V1, &gizmo("v1", "a", &json!({"size": 5})))).await;
    assert_eq!(hook.take_asked(), [0usize; 0], "nothing is converted to the stored version");
    let seen = ok(world.ask("GET", &format!("{V2}/a"), &Value::Null)).await;
    assert_eq!(
        (&seen["apiVersion"], &seen["spec"]),
        (&json!("example.com/v2"), &json!({"width": 5}))
    );
    // Labels are the webhook's to change; the rest of the metadata is not.
    assert_eq!(seen["metadata"]["labels"], json!({"seen": "yes"}));
    assert_eq!(seen["metadata"]["generation"], 1);
    // The defaults are those of the version that was sent.
    let made =
        ok(world.ask("POST", V2, &gizmo("v2", "b", &json!({"size": 1, "colour": "red"})))).await;
    assert_eq!(made["spec"], json!({"width": 7, "colour": "red"}));
    let stored = ok(world.ask("GET", &format!("{V1}/b"), &Value::Null)).await;
    assert_eq!(stored["spec"], json!({"size": 7, "colour": "red"}));
    let mut sent = made.clone();
    sent["spec"]["width"] = 8.into();
    let put = ok(world.ask("PUT", &format!("{V2}/b"), &sent)).await;
    assert_eq!((&put["spec"]["width"], &put["metadata"]["generation"]), (&json!(8), &json!(2)));
    let merged =
        patch(&world, &format!("{V2}/b"), "merge-patch+json", &json!({"spec": {"width": 9}})).await;
    assert_eq!(merged.json()["spec"]["width"], 9);
    let status = json!({"status": {"replicas": 4}});
    let written = patch(&world, &format!("{V2}/b/status"), "merge-patch+json", &status).await;
    assert_eq!(written.json()["status"], json!({"replicas": 4}), "{}", written.json());
    let scale = ok(world.ask("GET", &format!("{V2}/b/scale"), &Value::Null)).await;
    assert_eq!((&scale["spec"]["replicas"], &scale["status"]["replicas"]), (&json!(9), &json!(4)));
    let scaled = patch(
        &world,
        &format!("{V2}/b/scale"),
        "merge-patch+json",
        &json!({"spec": {"replicas": 2}}),
    )
    .await;
    assert_eq!(scaled.json()["spec"]["replicas"], 2, "{}", scaled.json());
    let stored = ok(world.ask("GET", &format!("{V1}/b"), &Value::Null)).await;
    assert_eq!(stored["spec"]["size"], 2);
    ok(world.ask("DELETE", &format!("{V2}/b"), &Value::Null)).await;
    assert_eq!(*hook.connections.lock().expect("sound"), 1, "one connection serves all requests");
}

#[tokio::test]
async fn a_list_is_converted_by_one_request() {
    let (world, hook) = world().await;
    for n in 1..=5 {
        ok(world.ask("POST", V1, &gizmo("v1", &format!("g{n}"), &json!({"size": n})))).await;
    }
    let list = ok(world.ask("GET", V2, &Value::Null)).await;
    assert_eq!(
        (&list["kind"], &list["apiVersion"]),
        (&json!("GizmoList"), &json!("example.com/v2"))
    );
    let widths: Vec<&Value> =
        list["items"].as_array().expect("items").iter().map(|i| &i["spec"]["width"]).collect();
    assert_eq!(widths, [1, 2, 3, 4, 5]);
    assert_eq!(hook.take_asked(), [5]);
    let selected =
        ok(world.ask("GET", &format!("{V2}?fieldSelector=spec.width=4"), &Value::Null)).await;
    assert_eq!(selected["items"].as_array().map(Vec::len), Some(1));
    assert_eq!(selected["items"][0]["metadata"]["name"], "g4");
    let unknown = world.ask("GET", &format!("{V2}?fieldSelector=spec.size=4"), &Value::Null).await;
    assert_eq!(unknown.json()["message"], "field label not supported: spec.size");
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let table = world.ask_as(&world.admin, ("GET", V2), &[("accept", accept)], "").await.json();
    assert_eq!(table["columnDefinitions"][1]["name"], "width");
    assert_eq!(table["rows"][2]["cells"], json!(["g3", 3]));
    // From now on new ones are stored in the other version: lists hold both.
    let storage = json!([
        {"op": "replace", "path": "/spec/versions/0/storage", "value": false},
        {"op": "replace", "path": "/spec/versions/1/storage", "value": true}]);
    let changed =
        patch(&world, &format!("{DEFINITIONS}/gizmos.example.com"), "json-patch+json", &storage)
            .await;
    assert_eq!(changed.json()["status"]["storedVersions"], json!(["v1", "v2"]));
    hook.take_asked();
    let stored_so = async {
        let mut n = 6;
        loop {
            ok(world.ask("POST", V2, &gizmo("v2", &format!("h{n}"), &json!({"width": n})))).await;
            if hook.take_asked().is_empty() {
                break;
            }
            n += 1;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), stored_so).await.expect("the other version");
    for (path, field) in [(V1, "size"), (V2, "width")] {
        let list = ok(world.ask("GET", path, &Value::Null)).await;
        let items = list["items"].as_array().expect("items");
        assert!(items.len() > 5 && items.iter().all(|i| i["spec"][field].is_i64()), "{list}");
    }
    ok(world.ask("DELETE", &format!("{V2}?fieldSelector=spec.width=4"), &Value::Null)).await;
    let left = ok(world.ask("GET", V1, &Value::Null)).await;
    let names: Vec<&str> = left["items"]
        .as_array()
        .expect("items")
        .iter()
        .filter_map(|i| i["metadata"]["name"].as_str())
        .collect();
    assert!(!names.contains(&"g4") && names.contains(&"g3"), "{names:?}");
}

/// Events of a watch, one after the other.
struct Events {
    body: http_body_util::combinators::BoxBody<bytes::Bytes, std::convert::Infallible>,
    text: Vec<u8>,
}

impl Events {
    async fn of(world: &World, path: &str) -> Events {
        let request =
            http::Request::get(path).body(Full::<bytes::Bytes>::default()).expect("sound");
        let body = world.server.serve_as(world.admin.clone(), request).await.into_body();
        Events { body, text: Vec::new() }
    }

    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.text.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.text.drain(..=end).collect();
                return serde_json::from_slice(&line).ok();
            }
            let frame = self.body.frame().await?.expect("never fails");
            self.text.extend_from_slice(&frame.into_data().unwrap_or_default());
        }
    }
}

#[tokio::test]
async fn watchers_see_their_version_and_share_conversions() {
    let (world, hook) = world().await;
    ok(world.ask("POST", V1, &gizmo("v1", "a", &json!({"size": 1})))).await;
    let mut all = Events::of(&world, &format!("{V2}?watch=true")).await;
    let mut some = Events::of(&world, &format!("{V2}?watch=true&fieldSelector=spec.width=2")).await;
    let first = all.next().await.expect("the present state");
    assert_eq!((&first["type"], &first["object"]["spec"]), (&json!("ADDED"), &json!({"width": 1})));
    ok(patch_json(&world, "a", 2)).await;
    let change = all.next().await.expect("the change");
    assert_eq!(
        (&change["type"], &change["object"]["spec"]),
        (&json!("MODIFIED"), &json!({"width": 2}))
    );
    assert_eq!(some.next().await.expect("it matches now")["type"], "ADDED");
    ok(patch_json(&world, "a", 3)).await;
    assert_eq!(some.next().await.expect("no more")["type"], "DELETED");
    assert_eq!(all.next().await.expect("the change")["object"]["spec"]["width"], 3);
    assert_eq!(hook.take_asked(), [1, 1, 1], "each state was converted once for both");
    ok(world.ask("DELETE", &format!("{V1}/a"), &Value::Null)).await;
    let gone = all.next().await.expect("the end");
    assert_eq!((&gone["type"], &gone["object"]["spec"]["width"]), (&json!("DELETED"), &json!(3)));
    // A dead webhook ends the watch with its error instead of holding it.
    ok(world.ask("POST", V1, &gizmo("v1", "b", &json!({})))).await;
    all.next().await.expect("the new one");
    hook.set(Mood::Refuses);
    ok(patch_json(&world, "b", 2)).await;
    let error = all.next().await.expect("the error");
    assert_eq!((&error["type"], &error["object"]["code"]), (&json!("ERROR"), &json!(500)));
    assert_eq!(
        error["object"]["message"],
        "conversion webhook for example.com/v1, Kind=Gizmo failed: not today"
    );
    assert_eq!(all.next().await, None);
}

async fn patch_json(world: &World, name: &str, size: i64) -> Answer {
    let body = json!({"spec": {"size": size}});
    patch(world, &format!("{V1}/{name}"), "merge-patch+json", &body).await
}

#[tokio::test]
async fn managers_of_several_versions_own_their_fields() {
    let (world, hook) = world().await;
    let apply = async |path: &str, manager: &str, object: Value, force: bool| {
        let path = format!("{path}/a?fieldManager={manager}&force={force}");
        patch(&world, &path, "apply-patch+yaml", &object).await
    };
    ok(apply(V1, "one", gizmo("v1", "a", &json!({"size": 4, "colour": "red"})), false)).await;
    // The same field by its other name, with another value.
    let refused = apply(V2, "two", gizmo("v2", "a", &json!({"width": 5})), false).await;
    let told = refused.json();
    assert_eq!(refused.code, 409, "{told}");
    assert_eq!(told["details"]["causes"][0]["field"], ".spec.size");
    let forced = ok(apply(V2, "two", gizmo("v2", "a", &json!({"width": 5})), true)).await;
    assert_eq!(forced["spec"], json!({"width": 5, "colour": "red"}));
    let owned = |object: &Value| -> Vec<(String, String, Value)> {
        let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
        let text = |v: &Value| v.as_str().unwrap_or("").to_owned();
        entries
            .iter()
            .map(|e| (text(&e["manager"]), text(&e["apiVersion"]), e["fieldsV1"]["f:spec"].clone()))
            .collect()
    };
    assert_eq!(
        owned(&forced),
        [
            ("one".into(), "example.com/v1".into(), json!({"f:colour": {}})),
            ("two".into(), "example.com/v2".into(), json!({"f:width": {}})),
        ]
    );
    // An update in one version takes a field from the manager who named it in the other.
    let path = format!("{V1}/a?fieldManager=three");
    let updated = patch(&world, &path, "merge-patch+json", &json!({"spec": {"size": 6}})).await;
    assert_eq!(
        owned(&updated.json()),
        [
            ("one".into(), "example.com/v1".into(), json!({"f:colour": {}})),
            ("three".into(), "example.com/v1".into(), json!({"f:size": {}})),
        ]
    );
    // What is applied no more goes, in whichever version it was applied.
    let without = ok(apply(V2, "one", gizmo("v2", "a", &json!({})), false)).await;
    assert_eq!(without["spec"], json!({"width": 6}), "{without}");
    assert!(!hook.take_asked().is_empty());
}

#[tokio::test]
async fn failures_are_told_and_pass() {
    let (world, hook) = world().await;
    ok(world.ask("POST", V1, &gizmo("v1", "a", &json!({})))).await;
    let one = format!("{V2}/a");
    let subject = "conversion webhook for example.com/v1, Kind=Gizmo";
    for (mood, why) in [
        (Mood::Refuses, "failed: not today"),
        (Mood::Short, "returned 0 objects, expected 1"),
        (Mood::Renames, "returned invalid object: must have the same name: a != other"),
        (
            Mood::Fails,
            "failed: an error on the server (\"broken\") has prevented the request from succeeding",
        ),
    ] {
        hook.set(mood);
        let refused = world.ask("GET", &one, &Value::Null).await;
        let told = refused.json();
        assert_eq!((refused.code, &told["message"]), (500, &json!(format!("{subject} {why}"))));
    }
    let refused = world.ask("POST", V2, &gizmo("v2", "b", &json!({}))).await;
    let told = refused.json()["message"].as_str().unwrap_or("").to_owned();
    assert!(
        told.starts_with("conversion webhook for example.com/v2, Kind=Gizmo failed: "),
        "{told}"
    );
    hook.set(Mood::Renames);
    let list = world.ask("GET", V2, &Value::Null).await.json();
    assert_eq!(
        list["message"],
        "conversion webhook for example.com/v2, Kind=GizmoList returned invalid converted object at index 0: must have the same name: a != other"
    );
    // The stored version never needs the webhook.
    ok(world.ask("GET", &format!("{V1}/a"), &Value::Null)).await;
    hook.set(Mood::Good);
    ok(world.ask("GET", &one, &Value::Null)).await;
}

#[tokio::test]
async fn a_webhook_that_cannot_be_trusted_or_reached_is_told() {
    let (world, hook) = world().await;
    ok(world.ask("POST", V1, &gizmo("v1", "a", &json!({})))).await;
    let port = hook.address.port();
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let dead = free.local_addr().expect("bound");
    drop(free);
    let at_service = "Post \"https://hook.default.svc:443/convert?timeout=30s\": ";
    let here = format!("Post \"https://localhost:{port}/convert?timeout=30s\": ");
    for (client, why) in [
        (
            service(&authority().0),
            format!(
                "{at_service}tls: failed to verify certificate: x509: certificate signed by unknown authority"
            ),
        ),
        (
            json!({"service": {"namespace": "default", "name": "none", "path": "/convert"}, "caBundle": hook.bundle}),
            "Post \"https://none.default.svc:443/convert?timeout=30s\": service \"none\" not found"
                .into(),
        ),
        (
            json!({"url": format!("https://localhost:{port}/convert"), "caBundle": hook.bundle}),
            format!(
                "{here}tls: failed to verify certificate: x509: certificate is valid for hook.default.svc, not localhost"
            ),
        ),
        (
            json!({"url": format!("https://{dead}/convert"), "caBundle": hook.bundle}),
            format!(
                "Post \"https://{dead}/convert?timeout=30s\": dial tcp {dead}: connect: connection refused"
            ),
        ),
    ] {
        let change = json!([{"op": "replace", "path": "/spec/conversion/webhook/clientConfig", "value": client}]);
        let path = format!("{DEFINITIONS}/gizmos.example.com");
        ok(patch(&world, &path, "json-patch+json", &change)).await;
        let expected = format!("conversion webhook for example.com/v1, Kind=Gizmo failed: {why}");
        let told = async {
            loop {
                let refused = world.ask("GET", &format!("{V2}/a"), &Value::Null).await.json();
                if refused["message"] == expected {
                    break;
                }
                tokio::task::yield_now().await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(10), told).await;
        let last = world.ask("GET", &format!("{V2}/a"), &Value::Null).await.json();
        assert!(in_time.is_ok(), "{expected}\n{}", last["message"]);
    }
    // What is configured again works again.
    let change = json!([{"op": "replace", "path": "/spec/conversion/webhook/clientConfig", "value": service(&hook.bundle)}]);
    ok(patch(&world, &format!("{DEFINITIONS}/gizmos.example.com"), "json-patch+json", &change))
        .await;
    let back = async {
        while world.ask("GET", &format!("{V2}/a"), &Value::Null).await.code != 200 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), back).await.expect("it recovers");
}

#[tokio::test]
async fn a_certificate_may_vouch_for_itself() {
    let hook = Hook::self_signed(&["localhost", "127.0.0.1"]).await;
    let world = World::new().await;
    let url = |host: &str| format!("https://{host}:{}/convert", hook.address.port());
    let client = json!({"url": url("127.0.0.1"), "caBundle": hook.bundle});
    serve(&world, &definition(&client, "v1")).await;
    ok(world.ask("POST", V1, &gizmo("v1", "a", &json!({})))).await;
    let seen = ok(world.ask("GET", &format!("{V2}/a"), &Value::Null)).await;
    assert_eq!(seen["spec"], json!({"width": 3}));
    // For its own names only.
    let other = json!([{"op": "replace", "path": "/spec/conversion/webhook/clientConfig/url", "value": url("127.0.0.2")}]);
    ok(patch(&world, &format!("{DEFINITIONS}/gizmos.example.com"), "json-patch+json", &other))
        .await;
    let refused = async {
        while world.ask("GET", &format!("{V2}/a"), &Value::Null).await.code == 200 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), refused).await.expect("it is refused");
}

#[tokio::test]
async fn a_webhook_that_does_not_answer_is_given_up() {
    let (world, hook) = world().await;
    ok(world.ask("POST", V1, &gizmo("v1", "a", &json!({})))).await;
    ok(world.ask("GET", &format!("{V2}/a"), &Value::Null)).await;
    hook.set(Mood::Hangs);
    // The clock stands still until there is nothing to do but wait.
    tokio::time::pause();
    let begun = tokio::time::Instant::now();
    let refused = world.ask("GET", &format!("{V2}/a"), &Value::Null).await.json();
    assert_eq!(
        refused["message"],
        "conversion webhook for example.com/v1, Kind=Gizmo failed: Post \"https://hook.default.svc:443/convert?timeout=30s\": context deadline exceeded"
    );
    assert!(begun.elapsed() >= Duration::from_secs(30));
}

#[tokio::test]
async fn the_definition_must_say_how_to_ask() {
    let world = World::new().await;
    let (good, _) = authority();
    for (client, field, why) in [
        (
            json!({}),
            "webhookClientConfig",
            "Required value: exactly one of url or service is required",
        ),
        (
            json!({"url": "http://a/b"}),
            "webhookClientConfig.url",
            "Invalid value: \"http\": 'https' is the only allowed URL scheme; desired format: https://host[/path]",
        ),
        (json!({"service": {"name": "a"}}), "webhookClientConfig.service.name", "Required value"),
        (
            json!({"url": "https://a", "caBundle": "bm9uZQ=="}),
            "webhookClientConfig.caBundle",
            "Invalid value: \"bm9uZQ==\": unable to load root certificates: unable to parse bytes as PEM block",
        ),
    ] {
        let refused = world.ask("POST", DEFINITIONS, &definition(&client, "v1")).await.json();
        let cause = &refused["details"]["causes"][0];
        let field = format!("spec.conversion.{field}");
        assert_eq!((&cause["field"], &cause["message"]), (&json!(field), &json!(why)), "{refused}");
    }
    let fine =
        definition(&json!({"service": {"namespace": "a", "name": "b"}, "caBundle": good}), "v1");
    let made = ok(world.ask("POST", DEFINITIONS, &fine)).await;
    assert_eq!(made["spec"]["conversion"]["webhook"]["clientConfig"]["service"]["port"], 443);
}
