//! Bodies that try to exhaust the stack, the memory or the time of the process.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::harness::{Answer, World};

const PODS: &str = "/api/v1/namespaces/default/pods";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const THINGS: &str = "/apis/example.com/v1/namespaces/default/things";

/// Depths around every limit, and far beyond any stack.
const DEPTHS: [usize; 4] = [130, 1_000, 98 * 1024, 500_000];

async fn send(world: &World, (method, path): (&str, &str), kind: &str, body: String) -> Answer {
    world.ask_as(&world.admin, (method, path), &[("content-type", kind)], body).await
}

fn refused(answer: &Answer, what: &str) {
    let status = answer.json();
    assert!((400..500).contains(&answer.code), "{what}: {} {status}", answer.code);
    assert_eq!(status["kind"], "Status", "{what}");
}

async fn define(world: &World, spec: Value) -> Answer {
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "things", "kind": "Thing"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {
                "openAPIV3Schema": {"type": "object", "properties": {"spec": spec}},
            }}],
        },
    });
    let answer = world.ask("POST", DEFINITIONS, &definition).await;
    if answer.code == 201 {
        let watch =
            format!("{DEFINITIONS}?watch=true&fieldSelector=metadata.name%3Dthings.example.com");
        world
            .until(&watch, |_, found| {
                let conditions = found["status"]["conditions"].as_array();
                let is = |c: &Value| c["type"] == "Established" && c["status"] == "True";
                conditions.is_some_and(|all| all.iter().any(is))
            })
            .await;
    }
    answer
}

fn with_open(open: &str, depth: usize) -> String {
    format!(
        r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"x"}},"spec":{}"#,
        open.repeat(depth)
    )
}

#[tokio::test]
async fn depth_is_refused_in_every_form() {
    let world = World::new().await;
    define(&world, json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})).await;
    let patches = [
        "application/json-patch+json",
        "application/merge-patch+json",
        "application/strategic-merge-patch+json",
        "application/apply-patch+yaml",
    ];
    for depth in DEPTHS {
        for open in ["[", r#"{"a":"#, "[[], "] {
            for path in [PODS, THINGS, MAPS] {
                for body in [open.repeat(depth), with_open(open, depth)] {
                    for kind in ["application/json", "application/yaml"] {
                        let answer = send(&world, ("POST", path), kind, body.clone()).await;
                        refused(&answer, &format!("{kind} {open} {depth} {path}"));
                    }
                    for kind in patches {
                        let path = format!("{path}/x?fieldManager=m");
                        let answer = send(&world, ("PATCH", &path), kind, body.clone()).await;
                        refused(&answer, &format!("{kind} {open} {depth}"));
                    }
                    let path = format!("{path}/x");
                    let deleted = send(&world, ("DELETE", &path), "application/json", body).await;
                    refused(&deleted, "delete options");
                }
            }
        }
        let nested = "\u{81}".chars().map(|c| c as u8).cycle().take(depth).collect::<Vec<u8>>();
        let headers = [("content-type", "application/cbor")];
        let answer = world.ask_as(&world.admin, ("POST", THINGS), &headers, nested).await;
        refused(&answer, "cbor");
    }
}

#[tokio::test]
async fn a_schema_may_be_no_deeper() {
    let world = World::new().await;
    let deep = (0..100).fold(
        json!({"type": "string"}),
        |below, _| json!({"type": "object", "properties": {"a": below}}),
    );
    refused(&define(&world, deep).await, "a deep schema");
    let fits = (0..50).fold(
        json!({"type": "string"}),
        |below, _| json!({"type": "object", "properties": {"a": below}}),
    );
    assert_eq!(define(&world, fits).await.code, 201);
}

#[tokio::test]
async fn patches_add_no_depth_and_no_bytes_without_end() {
    let world = World::new().await;
    define(&world, json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})).await;
    let thing = json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "t"},
        "spec": {"a": ["x"]}});
    assert_eq!(world.ask("POST", THINGS, &thing).await.code, 201);
    let path = format!("{THINGS}/t");
    let json_patch = "application/json-patch+json";
    let copies: Vec<Value> =
        (0..30).map(|_| json!({"op": "copy", "from": "/spec/a", "path": "/spec/a/-"})).collect();
    let answer = send(&world, ("PATCH", &path), json_patch, json!(copies).to_string()).await;
    assert_eq!(answer.code, 422, "{}", answer.json());
    let levels: Vec<Value> = (1..500)
        .map(|n| json!({"op": "add", "path": format!("/spec{}", "/b".repeat(n)), "value": {}}))
        .collect();
    let answer = send(&world, ("PATCH", &path), json_patch, json!(levels).to_string()).await;
    assert_eq!(answer.code, 422, "{}", answer.json());
    assert_eq!(world.ask("GET", &path, &Value::Null).await.json()["spec"], json!({"a": ["x"]}));
}

#[tokio::test]
async fn aliases_are_refused_before_they_grow() {
    let world = World::new().await;
    let mut bomb = String::from(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: bomb}\nx0: &x0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n",
    );
    for n in 1..12 {
        let refs = vec![format!("*x{}", n - 1); 9].join(",");
        writeln!(bomb, "x{n}: &x{n} [{refs}]").expect("writing to a String");
    }
    for (method, path, kind) in [
        ("POST", MAPS, "application/yaml"),
        (
            "PATCH",
            "/api/v1/namespaces/default/configmaps/bomb?fieldManager=m",
            "application/apply-patch+yaml",
        ),
    ] {
        let answer = send(&world, (method, path), kind, bomb.clone()).await;
        assert_eq!(answer.code, 400);
        let message = answer.json()["message"].to_string();
        assert!(message.contains("excessive aliasing"), "{message}");
    }
}

#[tokio::test]
async fn defaults_of_many_items_are_refused() {
    let world = World::new().await;
    let large = "x".repeat(10_000);
    let schema = json!({"type": "object", "properties": {"list": {"type": "array", "items": {
        "type": "object", "properties": {"text": {"type": "string", "default": large}},
    }}}});
    assert_eq!(define(&world, schema).await.code, 201);
    let thing = json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "t"},
        "spec": {"list": vec![json!({}); 100_000]}});
    assert_eq!(world.ask("POST", THINGS, &thing).await.code, 413);
}

#[tokio::test]
async fn small_maps_without_number_are_refused() {
    let world = World::new().await;
    define(&world, json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})).await;
    let list = vec![r#"{"a":0}"#; 300_000].join(",");
    let body = format!(
        r#"{{"apiVersion":"example.com/v1","kind":"Thing","metadata":{{"name":"t"}},"spec":{{"l":[{list}]}}}}"#
    );
    let answer = send(&world, ("POST", THINGS), "application/json", body).await;
    assert_eq!(answer.code, 400);
    assert!(answer.json()["message"].to_string().contains("too many values"));
}

#[tokio::test]
async fn findings_and_warnings_are_few() {
    let world = World::new().await;
    let mut data: Value =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "w"}});
    for n in 0..20_000 {
        data[format!("unknown{n}")] = json!(1);
    }
    let answer = world.ask("POST", &format!("{MAPS}?fieldValidation=Warn"), &data).await;
    assert_eq!(answer.code, 201);
    let told: Vec<_> = answer.headers.get_all("warning").iter().collect();
    assert!((1..=100).contains(&told.len()), "{} warnings", told.len());
    let size: usize = told.iter().map(|value| value.len()).sum();
    assert!(size < 8 * 1024, "{size} bytes");
    let strict = world.ask("POST", &format!("{MAPS}?fieldValidation=Strict"), &data).await;
    assert_eq!(strict.code, 400);
    assert!(strict.bytes.len() < 64 * 1024);
}

#[tokio::test]
async fn faults_are_few() {
    let world = World::new().await;
    let schema = json!({"type": "object", "additionalProperties": {"type": "array", "items": {
        "type": "integer",
    }}});
    assert_eq!(define(&world, schema).await.code, 201);
    let thing = json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "t"},
        "spec": {"k".repeat(100_000): vec!["x"; 100_000]}});
    let answer = world.ask("POST", THINGS, &thing).await;
    assert_eq!(answer.code, 422);
    assert!(answer.bytes.len() < 4 << 20, "{} bytes", answer.bytes.len());
}

/// Upstream's etcd takes no larger objects; managed fields are given up first, but not an apply's.
#[tokio::test]
async fn objects_larger_than_etcd_takes_are_refused() {
    const TEMPLATES: &str = "/api/v1/namespaces/default/podtemplates";
    let world = World::new().await;
    let too_large = |answer: &Answer| {
        let status = answer.json();
        assert_eq!(
            (answer.code, &status["message"]),
            (500, &"etcdserver: request is too large".into())
        );
    };
    let map = json!({"metadata": {"name": "large"}, "data": {"a": "x".repeat(1 << 20)}});
    assert_eq!(world.ask("POST", MAPS, &map).await.code, 201, "the most that a ConfigMap may have");

    let env: Vec<Value> = (0..32_000).map(|n| json!({"name": format!("A{n}")})).collect();
    let template = json!({
        "apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "wide"},
        "template": {"spec": {"containers": [{"name": "c", "image": "x", "env": env}]}},
    });
    let applied = ("PATCH", &*format!("{TEMPLATES}/wide?fieldManager=m"));
    let apply = "application/apply-patch+yaml";
    too_large(&send(&world, applied, apply, template.to_string()).await);
    let created = world.ask("POST", TEMPLATES, &template).await;
    assert_eq!(created.code, 201);
    assert!(created.json()["metadata"].get("managedFields").is_none());

    let long = json!([{"op": "add", "path": "/metadata/annotations", "value": {"a": "x"}}]);
    let path = ("PATCH", &*format!("{TEMPLATES}/wide"));
    let patched = send(&world, path, "application/json-patch+json", long.to_string()).await;
    assert_eq!(patched.code, 200, "untracked objects can be changed");
    let event = json!({
        "metadata": {"name": "e"}, "involvedObject": {"namespace": "default"},
        "message": "x".repeat(1 << 10), "source": {"component": "y".repeat(1600 * 1024)},
    });
    too_large(&world.ask("POST", "/api/v1/namespaces/default/events", &event).await);
}
