//! Managers travel as text from a request to the store (`api::apply::folded`); nobody ever sees that.

use serde_json::{Value, json};

use crate::harness::World;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn map(value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"k": value}})
}

/// The managers that an answer shows.
fn managers(answer: &Value) -> Vec<&str> {
    let list = answer["metadata"]["managedFields"].as_array();
    let list = list.unwrap_or_else(|| panic!("no list of managers: {answer}"));
    list.iter().map(|entry| entry["manager"].as_str().unwrap_or_default()).collect()
}

#[tokio::test]
async fn what_is_not_stored_shows_its_managers_as_a_list() {
    let world = World::new().await;
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": "none"}});
    let access = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
        "spec": {"user": "u", "nonResourceAttributes": {"path": "/", "verb": "get"}}});
    for (path, body) in [
        ("/apis/authentication.k8s.io/v1/tokenreviews", &review),
        ("/apis/authorization.k8s.io/v1/subjectaccessreviews", &access),
    ] {
        assert_eq!(managers(&world.ask("POST", path, body).await.json()).len(), 1, "{path}");
    }
    let dry = format!("{MAPS}?dryRun=All&fieldManager=a");
    assert_eq!(managers(&world.ask("POST", &dry, &map("1")).await.json()), ["a"]);
    world.ask("POST", &format!("{MAPS}?fieldManager=a"), &map("1")).await;
    let changed = format!("{MAPS}/m?dryRun=All&fieldManager=b");
    // The first keeps the map, not its key.
    assert_eq!(managers(&world.ask("PUT", &changed, &map("2")).await.json()), ["a", "b"]);
    let patch = json!({"metadata": {"labels": {"x": "y"}}});
    assert_eq!(managers(&world.set(&changed, &patch).await), ["a", "b"]);
}

#[tokio::test]
async fn a_patch_of_managers_finds_a_list() {
    let world = World::new().await;
    world.ask("POST", &format!("{MAPS}?fieldManager=a"), &map("1")).await;
    let patch =
        json!([{"op": "replace", "path": "/metadata/managedFields/0/manager", "value": "c"}]);
    let headers = [("content-type", "application/json-patch+json")];
    let path = format!("{MAPS}/m");
    let patched = world.ask_as(&world.admin, ("PATCH", &path), &headers, patch.to_string()).await;
    assert_eq!((patched.code, managers(&patched.json())), (200, vec!["c"]));
    let forgotten = world.set(&path, &json!({"metadata": {"managedFields": [{}]}})).await;
    assert!(forgotten["metadata"].get("managedFields").is_none(), "{forgotten}");
}
