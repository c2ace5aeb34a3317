//! Reads of a node's credential: what is related to the node, by the field selectors of v1.36.

use apiserver::User;
use serde_json::{Value, json};

use crate::harness::World;

const PODS: &str = "/api/v1/namespaces/default/pods";

pub(crate) fn node(name: &str) -> User {
    User::new(&format!("system:node:{name}"), &["system:nodes", "system:authenticated"])
}

/// Two nodes with a pod each.
pub(crate) async fn world() -> World {
    let world = World::new().await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    for name in ["default", "other", "elsewhere"] {
        world.make(accounts, &json!({"metadata": {"name": name}})).await;
    }
    for (name, account) in [("n1", "default"), ("n2", "elsewhere")] {
        world.make("/api/v1/nodes", &json!({"metadata": {"name": name}})).await;
        let mine = format!("of-{name}");
        for (kind, path) in [("configmaps", "configmaps"), ("secrets", "secrets")] {
            let path = format!("/api/v1/namespaces/default/{path}");
            let object = json!({"metadata": {"name": format!("{mine}-{kind}")}});
            world.make(&path, &object).await;
        }
        let pod = json!({
            "metadata": {"name": format!("p-{name}"), "labels": {"app": "a"}},
            "spec": {
                "nodeName": name, "serviceAccountName": account,
                "containers": [{"name": "c", "image": "i", "envFrom": [
                    {"secretRef": {"name": format!("{mine}-secrets")}}]}],
                "volumes": [
                    {"name": "m", "configMap": {"name": format!("{mine}-configmaps")}},
                    {"name": "c", "persistentVolumeClaim": {"claimName": mine}}],
            },
        });
        world.make(PODS, &pod).await;
        world.make("/api/v1/namespaces/default/persistentvolumeclaims", &claim(&mine)).await;
        world.make("/api/v1/persistentvolumes", &volume(&mine)).await;
        let attachment = json!({"metadata": {"name": mine}, "spec": {"attacher": "d.example.com",
            "nodeName": name, "source": {"persistentVolumeName": mine}}});
        world.make("/apis/storage.k8s.io/v1/volumeattachments", &attachment).await;
    }
    for kind in ["configmaps", "secrets"] {
        let path = format!("/api/v1/namespaces/default/{kind}");
        world.make(&path, &json!({"metadata": {"name": "free"}})).await;
    }
    world
        .make("/api/v1/namespaces/kube-system/secrets", &json!({"metadata": {"name": "csi"}}))
        .await;
    world
}

fn claim(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteOnce"],
        "volumeName": name, "storageClassName": "", "resources": {"requests": {"storage": "1Gi"}}}})
}

/// Bound to the claim of the same name, with a secret that only its node needs.
fn volume(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteOnce"],
        "capacity": {"storage": "1Gi"}, "claimRef": {"namespace": "default", "name": name},
        "csi": {"driver": "d.example.com", "volumeHandle": name, "nodeStageSecretRef":
            {"namespace": "kube-system", "name": if name == "of-n1" { "csi" } else { "x" }}}}})
}

/// Code of a read; a watch that is allowed goes on, so that its head is all.
async fn code(world: &World, user: &User, path: &str) -> u16 {
    let request = http::Request::get(path).body(http_body_util::Full::<bytes::Bytes>::default());
    world.server.serve_as(user.clone(), request.expect("a request")).await.status().as_u16()
}

#[tokio::test]
async fn a_node_reads_what_its_pods_name() {
    let world = world().await;
    let n1 = node("n1");
    let ns = "/api/v1/namespaces/default";
    for path in [
        format!("{ns}/pods/p-n1"),
        "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1".into(),
        "/api/v1/pods?watch=1&fieldSelector=spec.nodeName%3Dn1".into(),
        format!("{ns}/pods?fieldSelector=metadata.name%3Dp-n1"),
        "/api/v1/nodes/n1".into(),
        "/api/v1/nodes?fieldSelector=metadata.name%3Dn1".into(),
        format!("{ns}/secrets/of-n1-secrets"),
        format!("{ns}/configmaps/of-n1-configmaps"),
        format!("{ns}/configmaps?watch=1&fieldSelector=metadata.name%3Dof-n1-configmaps"),
        format!("{ns}/persistentvolumeclaims/of-n1"),
        "/api/v1/persistentvolumes/of-n1".into(),
        "/api/v1/namespaces/kube-system/secrets/csi".into(),
        "/apis/storage.k8s.io/v1/volumeattachments/of-n1".into(),
        format!("{ns}/serviceaccounts/default"),
        "/api/v1/services".into(),
        "/apis/node.k8s.io/v1/runtimeclasses".into(),
        "/apis/storage.k8s.io/v1/csidrivers".into(),
        "/apis/resource.k8s.io/v1/resourceslices?fieldSelector=spec.nodeName%3Dn1".into(),
    ] {
        assert_eq!(code(&world, &n1, &path).await, 200, "{path}");
    }
}

#[tokio::test]
async fn a_node_reads_nothing_else() {
    let world = world().await;
    let n1 = node("n1");
    let ns = "/api/v1/namespaces/default";
    for (path, why) in [
        ("/api/v1/pods".to_owned(), "can only list/watch pods with spec.nodeName field selector"),
        (
            "/api/v1/pods?fieldSelector=spec.nodeName%3Dn2".into(),
            "can only list/watch pods with spec.nodeName field selector",
        ),
        (
            "/api/v1/pods?watch=1&fieldSelector=spec.nodeName%21%3Dn1".into(),
            "can only list/watch pods with spec.nodeName field selector",
        ),
        (format!("{ns}/pods/p-n2"), "no relationship found between node 'n1' and this object"),
        ("/api/v1/nodes".into(), "node 'n1' cannot read all nodes, only its own Node object"),
        ("/api/v1/nodes/n2".into(), "node 'n1' cannot read 'n2', only its own Node object"),
        (
            format!("{ns}/secrets/of-n2-secrets"),
            "no relationship found between node 'n1' and this object",
        ),
        (format!("{ns}/secrets/free"), "no relationship found between node 'n1' and this object"),
        (format!("{ns}/secrets"), "No Object name found"),
        (
            "/api/v1/secrets?fieldSelector=metadata.name%3Dof-n1-secrets".into(),
            "can only read namespaced object of this type",
        ),
        (
            format!("{ns}/configmaps/free"),
            "no relationship found between node 'n1' and this object",
        ),
        (
            format!("{ns}/persistentvolumeclaims/of-n2"),
            "no relationship found between node 'n1' and this object",
        ),
        (format!("{ns}/persistentvolumeclaims"), "can only get individual resources of this type"),
        (
            "/api/v1/persistentvolumes/of-n2".into(),
            "no relationship found between node 'n1' and this object",
        ),
        (
            "/apis/storage.k8s.io/v1/volumeattachments/of-n2".into(),
            "no relationship found between node 'n1' and this object",
        ),
        (
            format!("{ns}/serviceaccounts/other"),
            "no relationship found between node 'n1' and this object",
        ),
        (
            "/apis/resource.k8s.io/v1/resourceslices".into(),
            "can only list/watch/deletecollection resourceslices with nodeName field selector",
        ),
        (
            "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n2".into(),
            "can only access node lease with the same name as the requesting node",
        ),
        (
            "/apis/coordination.k8s.io/v1/namespaces/default/leases/n1".into(),
            "can only access leases in the \"kube-node-lease\" system namespace",
        ),
        (
            "/apis/storage.k8s.io/v1/csinodes/n2".into(),
            "can only access CSINode with the same name as the requesting node",
        ),
    ] {
        let (code, text) = world.ask_as(&n1, ("GET", &path), &[], "").await.told();
        assert!(code == 403 && text.ends_with(why), "{path}: {code} {text}");
    }
    for path in
        ["/apis/discovery.k8s.io/v1/endpointslices", "/apis/apps/v1/deployments", "/metrics"]
    {
        assert_eq!(code(&world, &n1, path).await, 403, "{path}");
    }
    let nobody = User::new("system:node:", &["system:nodes", "system:authenticated"]);
    let (code, text) = world.ask_as(&nobody, ("GET", "/api/v1/services"), &[], "").await.told();
    assert!(code == 403 && text.ends_with("unknown node for user \"system:node:\""), "{text}");
}

/// A mirror pod is the node's own writing: it gives no rights.
#[tokio::test]
async fn a_mirror_pod_gives_its_node_nothing() {
    let world = world().await;
    let pod = json!({
        "metadata": {"name": "m", "annotations": {"kubernetes.io/config.mirror": "x"}},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}], "volumes": [
            {"name": "m", "configMap": {"name": "free"}}]},
    });
    world.make(PODS, &pod).await;
    let path = "/api/v1/namespaces/default/configmaps/free";
    assert_eq!(code(&world, &node("n1"), path).await, 403);
    // Whoever writes it, it names no account and no secret.
    for (key, value, why) in [
        ("serviceAccountName", json!("default"), "a mirror pod may not reference service accounts"),
        ("imagePullSecrets", json!([{"name": "free"}]), "a mirror pod may not reference secrets"),
    ] {
        let mut pod = pod.clone();
        pod["spec"][key] = value;
        let told = format!("pods \"m\" is forbidden: {why}");
        assert_eq!(world.ask("POST", PODS, &pod).await.told(), (403, told));
    }
}
