//! Custom resources from their definition to their end.

use serde_json::{Value, json};

use crate::harness::World;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const GIZMOS: &str = "/apis/example.com/v1/namespaces/default/gizmos";

fn definition(versions: &Value) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "gizmos.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "gizmos", "singular": "gizmo", "kind": "Gizmo", "listKind": "GizmoList"},
            "versions": versions,
        },
    })
}

fn version(name: &str, storage: bool) -> Value {
    json!({
        "name": name, "served": true, "storage": storage,
        "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {
            "spec": {"type": "object", "properties": {
                "size": {"type": "integer", "default": 3, "maximum": 9},
                "name": {"type": "string"},
                "ports": {
                    "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port"],
                    "items": {"type": "object", "required": ["port"], "properties": {"port": {"type": "integer"}, "host": {"type": "string"}}},
                },
            }, "x-kubernetes-validations": [
                {"rule": "!has(oldSelf.name) || self.name == oldSelf.name", "message": "name is immutable"},
                {"rule": "self.size < 9 || has(self.name)", "messageExpression": "'size %d needs a name'.format([self.size])", "fieldPath": ".size"},
            ]},
            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        }}},
    })
}

fn gizmo(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Gizmo", "metadata": {"name": name}, "spec": spec})
}

async fn established(world: &World) {
    let path = format!("{DEFINITIONS}?watch=true");
    let is = |_: &str, object: &Value| {
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|c| c["type"] == "Established" && c["status"] == "True")
    };
    world.until(&path, is).await;
}

async fn world() -> World {
    let world = World::new().await;
    let versions = json!([version("v1", true), version("v1beta1", false)]);
    let made = world.ask("POST", DEFINITIONS, &definition(&versions)).await;
    assert_eq!(made.code, 201, "{}", made.json());
    established(&world).await;
    // Being served follows being established at once, by the same task.
    while world.ask("GET", GIZMOS, &Value::Null).await.code == 404 {
        tokio::task::yield_now().await;
    }
    world
}

#[tokio::test]
async fn objects_are_pruned_defaulted_validated_and_versioned() {
    let world = world().await;
    let made = world.ask("POST", GIZMOS, &gizmo("a", &json!({"name": "x", "bogus": 1}))).await;
    assert_eq!((made.code, &made.json()["spec"]), (201, &json!({"name": "x", "size": 3})));
    let other = "/apis/example.com/v1beta1/namespaces/default/gizmos";
    assert_eq!(
        world.ask("GET", &format!("{other}/a"), &Value::Null).await.json()["apiVersion"],
        "example.com/v1beta1"
    );
    let list = world.ask("GET", other, &Value::Null).await.json();
    assert_eq!(list["kind"], "GizmoList");
    assert_eq!(list["items"][0]["apiVersion"], "example.com/v1beta1");
    for (spec, field, message) in [
        (
            json!({"size": "3"}),
            "spec.size",
            "Invalid value: \"string\": spec.size in body must be of type integer: \"string\"",
        ),
        (
            json!({"size": 10, "name": "x"}),
            "spec.size",
            "Invalid value: 10: spec.size in body should be less than or equal to 9",
        ),
        (json!({"size": 9}), "spec.size", "Invalid value: size 9 needs a name"),
        (
            json!({"ports": [{"port": 1}, {"port": 1}]}),
            "spec.ports[1]",
            "Duplicate value: {\"port\":1}",
        ),
        (json!({"ports": [{}]}), "spec.ports[0].port", "Required value"),
    ] {
        let refused = world.ask("POST", GIZMOS, &gizmo("b", &spec)).await.json();
        let causes = refused["details"]["causes"].as_array().cloned().unwrap_or_default();
        let found = causes.iter().any(|c| c["field"] == field && c["message"] == message);
        assert!(found, "{spec}: {refused}");
    }
}

#[tokio::test]
async fn a_transition_rule_compares_with_the_former_state() {
    let world = world().await;
    world.ask("POST", GIZMOS, &gizmo("a", &json!({"name": "x"}))).await;
    let headers = [("content-type", "application/merge-patch+json")];
    let path = format!("{GIZMOS}/a");
    let patch = |body: &'static str| world.ask_as(&world.admin, ("PATCH", &path), &headers, body);
    assert_eq!(patch(r#"{"spec":{"size":4}}"#).await.code, 200);
    let refused = patch(r#"{"spec":{"name":"y"}}"#).await;
    assert_eq!(refused.code, 422);
    assert_eq!(
        refused.json()["details"]["causes"][0]["message"],
        "Invalid value: name is immutable"
    );
}

#[tokio::test]
async fn list_maps_are_applied_by_key() {
    let world = world().await;
    let headers = [("content-type", "application/apply-patch+yaml")];
    for (manager, port) in [("a", 1), ("b", 2)] {
        let path = format!("{GIZMOS}/a?fieldManager={manager}");
        let body = gizmo("a", &json!({"ports": [{"port": port, "host": manager}]})).to_string();
        let applied = world.ask_as(&world.admin, ("PATCH", &path), &headers, body).await;
        assert!(applied.code < 300, "{}", applied.json());
    }
    let ports =
        &world.ask("GET", &format!("{GIZMOS}/a"), &Value::Null).await.json()["spec"]["ports"];
    assert_eq!(*ports, json!([{"host": "a", "port": 1}, {"host": "b", "port": 2}]));
}

#[tokio::test]
async fn a_definition_goes_after_its_objects() {
    let world = world().await;
    world.ask("POST", GIZMOS, &gizmo("a", &json!({}))).await;
    let documents = world.ask("GET", "/openapi/v3", &Value::Null).await.json();
    assert!(documents["paths"]["apis/example.com/v1"].is_object());
    let path = format!("{DEFINITIONS}/gizmos.example.com");
    let revision =
        world.ask("GET", DEFINITIONS, &Value::Null).await.json()["metadata"]["resourceVersion"]
            .clone();
    assert_eq!(world.ask("DELETE", &path, &Value::Null).await.code, 200);
    let watch =
        format!("{DEFINITIONS}?watch=true&resourceVersion={}", revision.as_str().unwrap_or("0"));
    world
        .until(&watch, |kind, object| {
            kind == "DELETED" && object["metadata"]["name"] == "gizmos.example.com"
        })
        .await;
    while world.ask("GET", GIZMOS, &Value::Null).await.code != 404 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn two_definitions_cannot_have_the_same_kind() {
    let world = world().await;
    let mut second = definition(&json!([version("v1", true)]));
    second["metadata"]["name"] = "others.example.com".into();
    second["spec"]["names"] =
        json!({"plural": "others", "singular": "other", "kind": "Gizmo", "listKind": "OtherList"});
    assert_eq!(world.ask("POST", DEFINITIONS, &second).await.code, 201);
    let path = format!("{DEFINITIONS}?watch=true");
    let told = world
        .until(&path, |_, object| {
            object["metadata"]["name"] == "others.example.com"
                && object["status"]["conditions"].is_array()
        })
        .await;
    let conditions = told["status"]["conditions"].as_array().expect("conditions");
    let names = conditions.iter().find(|c| c["type"] == "NamesAccepted").expect("the condition");
    assert_eq!((&names["status"], &names["reason"]), (&json!("False"), &json!("KindConflict")));
}

/// A default that comes later is seen on what is stored already.
#[tokio::test]
async fn stored_objects_are_shown_with_todays_defaults() {
    let world = world().await;
    world.ask("POST", GIZMOS, &gizmo("a", &json!({}))).await;
    let patch = r#"[{"op": "add", "value": "late", "path":
        "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/name/default"}]"#;
    let path = format!("{DEFINITIONS}/gizmos.example.com");
    let headers = [("content-type", "application/json-patch+json")];
    let patched = world.ask_as(&world.admin, ("PATCH", &path), &headers, patch).await;
    assert_eq!(patched.code, 200, "{}", patched.json());
    let one = format!("{GIZMOS}/a");
    let shown = async {
        while world.ask("GET", &one, &Value::Null).await.json()["spec"]["name"] != "late" {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), shown)
        .await
        .expect("the default shows");
    let list = world.ask("GET", GIZMOS, &Value::Null).await.json();
    assert_eq!(list["items"][0]["spec"], json!({"name": "late", "size": 3}));
}

#[tokio::test]
async fn objects_of_free_form_are_applied() {
    let world = World::new().await;
    let open = json!([{
        "name": "v1", "served": true, "storage": true,
        "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
    }]);
    assert_eq!(world.ask("POST", DEFINITIONS, &definition(&open)).await.code, 201);
    established(&world).await;
    while world.ask("GET", GIZMOS, &Value::Null).await.code == 404 {
        tokio::task::yield_now().await;
    }
    let headers = [("content-type", "application/apply-patch+yaml")];
    let mut body = gizmo("a", &json!({"anything": [1, {"x": 2}]}));
    body["more"] = json!({"y": true});
    let path = format!("{GIZMOS}/a?fieldManager=m&fieldValidation=Strict");
    let applied = world.ask_as(&world.admin, ("PATCH", &path), &headers, body.to_string()).await;
    assert_eq!(applied.code, 201, "{}", applied.json());
    assert_eq!(applied.json()["more"], json!({"y": true}));
}

#[tokio::test]
async fn objects_are_sent_in_cbor() {
    let world = world().await;
    let headers = [("accept", "application/cbor"), ("content-type", "application/cbor")];
    let mut body = Vec::new();
    api::cbor::encode_untagged(&gizmo("a", &json!({"name": "x", "bogus": 1})), &mut body);
    let made = world.ask_as(&world.admin, ("POST", GIZMOS), &headers, body).await;
    let read = api::cbor::decode(&made.bytes).expect("CBOR");
    assert_eq!((made.code, &read["spec"]), (201, &json!({"name": "x", "size": 3})));
    assert_eq!(made.headers["warning"], "299 - \"unknown field \\\"spec.bogus\\\"\"");
    let list = world.ask_as(&world.admin, ("GET", GIZMOS), &headers, "").await;
    let list = api::cbor::decode(&list.bytes).expect("CBOR");
    assert_eq!(list["items"][0]["spec"]["size"], 3);
}

/// Clients begin again, and see what is served now.
#[tokio::test]
async fn watches_end_when_their_definition_changes() {
    let world = world().await;
    let request = http::Request::get(format!("{GIZMOS}?watch=true"))
        .body(http_body_util::Full::<bytes::Bytes>::default())
        .expect("a request");
    let watch = world.server.serve_as(world.admin.clone(), request).await.into_body();
    let headers = [("content-type", "application/json-patch+json")];
    let path = format!("{DEFINITIONS}/gizmos.example.com");
    // What only labels the definition changes nothing.
    let label = r#"[{"op": "add", "path": "/metadata/labels", "value": {"a": "b"}}]"#;
    assert_eq!(world.ask_as(&world.admin, ("PATCH", &path), &headers, label).await.code, 200);
    world.ask("POST", GIZMOS, &gizmo("a", &json!({}))).await;
    let patch = r#"[{"op": "replace", "path": "/spec/versions/1/served", "value": false}]"#;
    assert_eq!(world.ask_as(&world.admin, ("PATCH", &path), &headers, patch).await.code, 200);
    let end = http_body_util::BodyExt::collect(watch);
    let seen = tokio::time::timeout(std::time::Duration::from_secs(20), end).await;
    let seen = seen.expect("the watch ends").expect("never fails").to_bytes();
    assert!(seen.starts_with(b"{\"type\":\"ADDED\""), "{seen:?}");
}

/// A definition whose spec has this schema.
fn with_spec(spec: &Value) -> Value {
    definition(&json!([{
        "name": "v1", "served": true, "storage": true,
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}},
    }]))
}

fn causes(refused: &Value) -> Vec<(String, String)> {
    let causes = refused["details"]["causes"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
    causes.iter().map(|c| (text(&c["field"]), text(&c["message"]))).collect()
}

#[tokio::test]
async fn rules_that_do_not_fit_their_schema_are_refused() {
    let world = World::new().await;
    let rules = "spec.validation.openAPIV3Schema.properties[spec].x-kubernetes-validations[0]";
    for (rule, field, message) in [
        (
            json!({"rule": "self.size + 'x' == 'y'"}),
            "rule",
            "found no matching overload for '_+_' applied to '(int, string)'",
        ),
        (json!({"rule": "self.other > 1"}), "rule", "undefined field 'other'"),
        (json!({"rule": "self.size"}), "rule", "cel expression must evaluate to a bool"),
        (
            json!({"rule": "self.size > 1", "messageExpression": "self.size"}),
            "messageExpression",
            "messageExpression must evaluate to a string",
        ),
        (
            json!({"rule": "self.names.all(a, self.names.all(b, a != b))"}),
            "rule",
            "Forbidden: estimated rule cost exceeds budget by factor of more than 100x (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)",
        ),
    ] {
        let spec = json!({
            "type": "object", "x-kubernetes-validations": [rule],
            "properties": {
                "size": {"type": "integer"},
                "names": {"type": "array", "items": {"type": "string"}},
            },
        });
        let refused = world.ask("POST", DEFINITIONS, &with_spec(&spec)).await;
        assert_eq!(refused.code, 422, "{rule}");
        let found = causes(&refused.json());
        let told =
            found.iter().any(|(f, m)| *f == format!("{rules}.{field}") && m.contains(message));
        assert!(told, "{rule}: {found:?}");
    }
}

/// Lists of lists of short strings, each within the limits of an estimate; together they are too
/// dear for one object, and a long list is for one call.
#[tokio::test]
async fn rules_of_an_object_share_a_budget() {
    let world = World::new().await;
    let pairs = json!([{"rule": "self.all(a, self.all(b, a.size() + b.size() >= 0))"}]);
    let short = |most: u32| {
        json!({
            "type": "array", "maxItems": most, "items": {"type": "string", "maxLength": 5},
            "x-kubernetes-validations": pairs,
        })
    };
    let lists = json!({"type": "array", "maxItems": 400, "items": short(50)});
    let spec = json!({"type": "object", "properties": {
        "first": lists, "second": lists, "long": short(400),
    }});
    let made = world.ask("POST", DEFINITIONS, &with_spec(&spec)).await;
    assert_eq!(made.code, 201, "{}", made.json());
    established(&world).await;
    while world.ask("GET", GIZMOS, &Value::Null).await.code == 404 {
        tokio::task::yield_now().await;
    }
    let full = vec![vec!["x"; 50]; 400];
    let fits = world.ask("POST", GIZMOS, &gizmo("a", &json!({"first": full}))).await;
    assert_eq!(fits.code, 201, "{}", fits.json());
    let budget = "validation failed due to running out of cost budget, no further validation rules will be run";
    let call = "'operation cancelled: actual cost limit exceeded': no further validation rules will be run due to call cost exceeds limit for rule: self.all(a, self.all(b, a.size() + b.size() >= 0))";
    for (spec, place, message) in [
        (json!({"first": full, "second": full}), "spec.second[", budget),
        (json!({"long": vec!["x"; 400]}), "spec.long", call),
    ] {
        let refused = world.ask("POST", GIZMOS, &gizmo("b", &spec)).await;
        assert_eq!(refused.code, 422);
        let found = causes(&refused.json());
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].0.starts_with(place), "{found:?}");
        assert_eq!(found[0].1, format!("Invalid value: \"array\": {message}"));
    }
}

/// Without a webhook, versions differ by what they know: an object has the defaults of the version it
/// is stored in, and is shown without what the version asked for has not.
#[tokio::test]
async fn each_version_shows_what_it_knows() {
    let world = World::new().await;
    let version = |name: &str, storage: bool, own: &str| {
        json!({
            "name": name, "served": true, "storage": storage, "deprecated": !storage,
            "selectableFields": [{"jsonPath": format!(".spec.{own}")}],
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {
                "type": "object", "properties": {
                    "size": {"type": "integer", "default": if storage { 3 } else { 5 }},
                    (own): {"type": "string"},
                }}}}},
        })
    };
    let versions = json!([version("v1", true, "first"), version("v1beta1", false, "second")]);
    assert_eq!(world.ask("POST", DEFINITIONS, &definition(&versions)).await.code, 201);
    established(&world).await;
    while world.ask("GET", GIZMOS, &Value::Null).await.code == 404 {
        tokio::task::yield_now().await;
    }
    let other = GIZMOS.replace("/v1/", "/v1beta1/");
    world.ask("POST", GIZMOS, &gizmo("a", &json!({"first": "x"}))).await;
    let mut beta = gizmo("b", &json!({"second": "y"}));
    beta["apiVersion"] = "example.com/v1beta1".into();
    let made = world.ask("POST", &other, &beta).await;
    // The stored version has no such field.
    assert_eq!(made.json()["spec"], json!({"size": 5}));
    assert_eq!(
        made.headers["warning"],
        "299 - \"example.com/v1beta1 Gizmo is deprecated; use example.com/v1 Gizmo\""
    );
    let one = world.ask("GET", &format!("{other}/a"), &Value::Null).await.json();
    assert_eq!(one["spec"], json!({"size": 3}));
    let found = async |path: &str, field: &str| {
        let list = world.ask("GET", &format!("{path}?fieldSelector={field}"), &Value::Null).await;
        list.json()["items"].as_array().map(Vec::len)
    };
    assert_eq!(found(GIZMOS, "spec.first=x").await, Some(1));
    assert_eq!(found(&other, "spec.first=x").await, None);
    assert_eq!(found(&other, "spec.second=").await, Some(2));
}

#[tokio::test]
async fn versions_are_listed_in_kubernetes_order() {
    let world = World::new().await;
    let versions =
        ["v1alpha1", "v10", "v2beta1", "v2"].map(|name| version(name, name == "v1alpha1"));
    let made = world.ask("POST", DEFINITIONS, &definition(&json!(versions))).await;
    assert_eq!(made.code, 201, "{}", made.json());
    established(&world).await;
    let mut group = world.ask("GET", "/apis/example.com", &Value::Null).await;
    while group.code == 404 {
        tokio::task::yield_now().await;
        group = world.ask("GET", "/apis/example.com", &Value::Null).await;
    }
    let group = group.json();
    assert_eq!(group["preferredVersion"]["version"], "v10");
    let listed: Vec<&str> = group["versions"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|version| version["version"].as_str())
        .collect();
    assert_eq!(listed, ["v10", "v2", "v2beta1", "v1alpha1"]);
    let all = world.ask("GET", "/apis", &Value::Null).await.json();
    let last = all["groups"].as_array().and_then(|groups| groups.last().cloned());
    assert_eq!(last.expect("groups")["name"], "example.com");
}

#[tokio::test]
async fn finalizers_of_custom_resources_need_no_domain() {
    let world = world().await;
    let mut object = gizmo("a", &json!({}));
    object["metadata"]["finalizers"] = json!(["resources-finalizer.argocd.argoproj.io"]);
    let made = world.ask("POST", GIZMOS, &object).await;
    assert_eq!(made.code, 201, "{}", made.json());
    object = gizmo("b", &json!({}));
    object["metadata"]["finalizers"] = json!(["not a name"]);
    assert_eq!(world.ask("POST", GIZMOS, &object).await.code, 422);
    let maps = "/api/v1/namespaces/default/configmaps";
    let map = json!({"metadata": {"name": "m", "finalizers": ["plain"]}});
    assert_eq!(world.ask("POST", maps, &map).await.code, 422);
}
