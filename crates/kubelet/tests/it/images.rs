//! Images on their way into pods: names, logins, failures, volumes.

use base64::Engine;
use serde_json::{Value, json};

use crate::lifecycle::{Node, one};

fn waiting(status: &Value) -> Value {
    status["containerStatuses"][0]["state"]["waiting"].clone()
}

#[tokio::test]
async fn a_name_that_cannot_be_read_is_never_pulled() {
    let node = Node::start();
    node.create(one(json!({"image": "nginx:${TAG}"})));
    let status = node.status(|s| waiting(s)["reason"] == "InvalidImageName").await;
    let said = "Failed to apply default image tag \"nginx:${TAG}\": couldn't parse image name \"nginx:${TAG}\": invalid reference format";
    assert_eq!(waiting(&status)["message"], said);
    assert_eq!(status["phase"], "Pending");
    assert_eq!(node.event("InspectFailed").await["message"], said);
    assert_eq!(node.event("Failed").await["message"], "Error: InvalidImageName");
    assert!(node.images.pulls.lock().unwrap().is_empty());
    node.tasks.shutdown().await;
}

fn login(node: &Node, name: &str, auths: Value) {
    let text = json!({"auths": auths}).to_string();
    let data = base64::engine::general_purpose::STANDARD.encode(text);
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "default"}, "type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": data}});
    node.api.put(&format!("/api/v1/namespaces/default/secrets/{name}"), secret);
}

#[tokio::test]
async fn every_login_that_fits_is_tried_until_one_may() {
    let node = Node::start();
    let user = |name: &str| json!({"username": name, "password": "p"});
    login(&node, "first", json!({"docker.io": user("b"), "docker.io/missing": user("c")}));
    login(&node, "second", json!({"docker.io": user("a"), "elsewhere.example": user("d")}));
    let mut spec = one(json!({"image": "missing/private:1"}));
    spec["imagePullSecrets"] = json!([{"name": "first"}, {"name": "none"}, {"name": "second"}]);
    node.create(spec);
    node.status(|s| s["phase"] == "Running").await;
    let pulls = node.images.pulls.lock().unwrap().clone();
    let users: Vec<&str> = pulls.iter().map(|(_, user)| user.as_str()).collect();
    assert_eq!(users, ["c", "b", "a"], "the most specific first");
    let event = node.event("FailedToRetrieveImagePullSecret").await;
    let said = "Unable to retrieve some image pull secrets (none); attempting to pull the image may not succeed.";
    assert_eq!(event["message"], said);
    assert!(event["involvedObject"]["fieldPath"].is_null(), "it is about the pod");
    node.tasks.shutdown().await;
}

#[tokio::test]
async fn a_registry_that_does_not_answer_has_its_own_reason() {
    let node = Node::start();
    node.create(one(json!({"image": "missing/unavailable:1"})));
    let said = "image pull failed for missing/unavailable:1 because the registry is unavailable: no route to host";
    let status = node.status(|s| waiting(s)["reason"] == "RegistryUnavailable").await;
    assert_eq!(waiting(&status)["message"], said);
    let status = node.status(|s| waiting(s)["reason"] == "ImagePullBackOff").await;
    let backing =
        format!("Back-off pulling image \"missing/unavailable:1\": RegistryUnavailable: {said}");
    assert_eq!(waiting(&status)["message"], backing);
    assert_eq!(node.images.pulls.lock().unwrap().len(), 1, "one pull, then it waits");
    node.tasks.shutdown().await;
}

fn image_volume(reference: &str) -> Value {
    let mounts = json!([{"name": "v", "mountPath": "/v", "subPath": "a/b"}]);
    let mut spec = one(json!({"volumeMounts": mounts}));
    spec["volumes"] =
        json!([{"name": "v", "image": {"reference": reference, "pullPolicy": "IfNotPresent"}}]);
    spec
}

#[tokio::test]
async fn an_image_is_mounted_by_the_runtime() {
    let node = Node::start();
    node.create(image_volume("data:v1"));
    node.status(|s| s["phase"] == "Running").await;
    {
        let table = node.runtime.table.lock().unwrap();
        let (_, config, _) = table.containers.values().next().unwrap();
        let mount = config.mounts.iter().find(|m| m.container_path == "/v").unwrap();
        let image = mount.image.as_ref().unwrap();
        assert_eq!((&*image.image, &*image.user_specified_image), ("sha256:feed", "data:v1"));
        assert_eq!((&*mount.image_sub_path, &*mount.host_path), ("a/b", ""));
        assert!(mount.readonly);
    }
    node.tasks.shutdown().await;
}

#[tokio::test]
async fn an_image_volume_that_cannot_be_pulled_is_told_and_backs_off() {
    let node = Node::start();
    node.create(image_volume("missing/data:v1"));
    node.status(|s| waiting(s)["reason"] == "ErrImagePull").await;
    let status = node.status(|s| waiting(s)["reason"] == "ImagePullBackOff").await;
    let message = waiting(&status)["message"].as_str().unwrap().to_owned();
    let said = "Back-off pulling image \"missing/data:v1\": ErrImagePull: ";
    assert!(message.starts_with(said), "{message}");
    let pulling = node.event("Pulling").await;
    assert_eq!(pulling["message"], "Pulling image \"missing/data:v1\"");
    assert!(pulling["involvedObject"]["fieldPath"].is_null(), "volumes are the pod's");
    node.tasks.shutdown().await;
}

#[tokio::test]
async fn an_image_that_came_with_a_login_is_not_for_pods_without_it() {
    let node = Node::start();
    let auths = json!({"docker.io": {"username": "a", "password": "p"}});
    login(&node, "mine", auths);
    let mut spec = one(json!({"image": "missing/private:1"}));
    spec["imagePullSecrets"] = json!([{"name": "mine"}]);
    node.create(spec);
    node.status(|s| s["phase"] == "Running").await;
    // It is on the node now; the next pod has no login.
    node.images.here.lock().unwrap().insert("missing/private:1".into());
    let other = |name: &str, policy: &str| {
        let mut spec = one(json!({"image": "missing/private:1", "imagePullPolicy": policy}));
        spec["nodeName"] = json!("n1");
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default", "uid": name}, "spec": spec});
        node.api.put(&format!("/api/v1/namespaces/default/pods/{name}"), pod);
    };
    let reason = |name: &'static str, reason: &'static str| {
        let path = format!("/api/v1/namespaces/default/pods/{name}");
        node.api
            .until(move |api| api.get(&path).filter(|p| waiting(&p["status"])["reason"] == reason))
    };
    other("stranger", "IfNotPresent");
    reason("stranger", "ErrImagePull").await;
    other("waiter", "Never");
    reason("waiter", "ErrImageNeverPull").await;
    node.tasks.shutdown().await;
}
