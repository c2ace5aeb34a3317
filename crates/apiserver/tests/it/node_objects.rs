//! Writes of a node's credential: its own node and what belongs to it, and the pods bound to it.

use apiserver::User;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rcgen::{CertificateParams, DnType, KeyPair};
use serde_json::{Value, json};

use crate::harness::World;
use crate::node_reads::{node, world};

const PODS: &str = "/api/v1/namespaces/default/pods";

async fn refused(world: &World, method: &str, path: &str, body: &Value, why: &str) {
    let (code, text) = world.ask_by(&node("n1"), (method, path), body).await.told();
    assert!(code == 403 && text.ends_with(why), "{method} {path}: {code} {text}");
}

async fn allowed(world: &World, method: &str, path: &str, body: &Value) -> Value {
    let answer = world.ask_by(&node("n1"), (method, path), body).await;
    assert!(answer.code < 300, "{method} {path}: {} {}", answer.code, answer.json());
    answer.json()
}

async fn mirror(world: &World) -> Value {
    let uid =
        world.ask("GET", "/api/v1/nodes/n1", &Value::Null).await.json()["metadata"]["uid"].clone();
    json!({
        "metadata": {"name": "m", "annotations": {"kubernetes.io/config.mirror": "x"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": uid,
                "controller": true}]},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]},
    })
}

#[tokio::test]
async fn a_node_creates_mirror_pods_that_name_nothing_and_are_its_own() {
    let world = world().await;
    let good = mirror(&world).await;
    let owner = |key: &str, value: Value| {
        let mut pod = good.clone();
        pod["metadata"]["ownerReferences"][0][key] = value;
        pod
    };
    let spec = |key: &str, value: Value| {
        let mut pod = good.clone();
        pod["spec"][key] = value;
        pod
    };
    let volume = |source: Value| {
        let mut source = source;
        source["name"] = "v".into();
        spec("volumes", json!([source]))
    };
    let mut plain = good.clone();
    plain["metadata"]["annotations"] = json!({});
    let mut orphan = good.clone();
    orphan["metadata"]["ownerReferences"] = json!([]);
    let mut two = good.clone();
    two["metadata"]["ownerReferences"] = json!([good["metadata"]["ownerReferences"][0],
        {"apiVersion": "v1", "kind": "Node", "name": "n2", "uid": "u"}]);
    let own = "node \"n1\" can only create pods with an owner reference set to itself";
    let uid = good["metadata"]["ownerReferences"][0]["uid"].as_str().expect("a uid");
    let mismatch = format!("node n1 UID mismatch: expected other got {uid}");
    for (pod, why) in [
        (
            plain,
            "pod does not have \"kubernetes.io/config.mirror\" annotation, node \"n1\" can only create mirror pods",
        ),
        (
            spec("nodeName", "n2".into()),
            "node \"n1\" can only create pods with spec.nodeName set to itself",
        ),
        (orphan, own),
        (two, "node \"n1\" can only create pods with a single owner reference set to itself"),
        (owner("name", "n2".into()), own),
        (owner("kind", "Pod".into()), own),
        (
            owner("controller", false.into()),
            "node \"n1\" can only create pods with a controller owner reference set to itself",
        ),
        (
            owner("blockOwnerDeletion", true.into()),
            "node \"n1\" must not set blockOwnerDeletion on an owner reference",
        ),
        (owner("uid", "other".into()), mismatch.as_str()),
        (
            // ServiceAccount looks at mirror pods first.
            spec("serviceAccountName", "default".into()),
            "a mirror pod may not reference service accounts",
        ),
        (
            spec("imagePullSecrets", json!([{"name": "free"}])),
            "a mirror pod may not reference secrets",
        ),
        (
            volume(json!({"secret": {"secretName": "free"}})),
            "a mirror pod may not reference secrets",
        ),
        (
            volume(json!({"configMap": {"name": "free"}})),
            "node \"n1\" can not create pods that reference configmaps",
        ),
        (
            volume(json!({"persistentVolumeClaim": {"claimName": "of-n2"}})),
            "node \"n1\" can not create pods that reference persistentvolumeclaims",
        ),
        (
            volume(json!({"projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}})),
            "a mirror pod may not use ServiceAccountToken volume projections",
        ),
        (
            volume(json!({"csi": {"driver": "d"}})),
            "node \"n1\" can not create pods that reference csidrivers (via CSI volumes)",
        ),
        (
            spec("resourceClaims", json!([{"name": "r", "resourceClaimName": "c"}])),
            "node \"n1\" can not create pods that reference resourceclaims",
        ),
    ] {
        refused(&world, "POST", PODS, &pod, why).await;
    }
    allowed(&world, "POST", PODS, &good).await;
    allowed(&world, "DELETE", &format!("{PODS}/m"), &Value::Null).await;
}

#[tokio::test]
async fn a_node_ends_and_describes_only_pods_bound_to_it() {
    let world = world().await;
    let own = format!("{PODS}/p-n1");
    let other = format!("{PODS}/p-n2");
    let status = json!({"status": {"phase": "Running"}});
    let why = "node \"n1\" can only delete pods with spec.nodeName set to itself";
    refused(&world, "DELETE", &other, &Value::Null, why).await;
    let eviction = |name: &str| json!({"metadata": {"name": name}});
    let why = "node n1 can only evict pods with spec.nodeName set to itself";
    refused(&world, "POST", &format!("{other}/eviction"), &eviction("p-n2"), why).await;
    let why = "node \"n1\" can only update pod status for pods with spec.nodeName set to itself";
    refused(&world, "PATCH", &format!("{other}/status"), &status, why).await;
    let labels = json!({"metadata": {"labels": {"app": "b"}}});
    let why = "node \"n1\" cannot update labels through pod status";
    refused(&world, "PATCH", &format!("{own}/status"), &labels, why).await;
    let claims =
        json!({"status": {"resourceClaimStatuses": [{"name": "r", "resourceClaimName": "c"}]}});
    let why = "node \"n1\" cannot update resource claim statues";
    refused(&world, "PATCH", &format!("{own}/status"), &claims, why).await;
    let extended = json!({"status": {"extendedResourceClaimStatus": {"resourceClaimName": "c",
        "requestMappings": []}}});
    let why = "node \"n1\" cannot update extended resource claim status";
    refused(&world, "PATCH", &format!("{own}/status"), &extended, why).await;
    // Neither the pod itself nor its binding is the node's to write.
    let binding = json!({"metadata": {"name": "p-n1"}, "target": {"name": "n1"}});
    for (method, path, body) in
        [("PATCH", own.clone(), &labels), ("POST", format!("{own}/binding"), &binding)]
    {
        assert_eq!(world.ask_by(&node("n1"), (method, &path), body).await.code, 403, "{path}");
    }
    allowed(&world, "PATCH", &format!("{own}/status"), &status).await;
    allowed(&world, "POST", &format!("{own}/eviction"), &eviction("p-n1")).await;
}

#[tokio::test]
async fn a_node_writes_its_own_node_without_steering_work_to_it() {
    let world = world().await;
    let (own, other) = ("/api/v1/nodes/n1", "/api/v1/nodes/n2");
    let why = "node \"n1\" is not allowed to modify node \"n2\"";
    let label = |key: &str| json!({"metadata": {"labels": {key: "x"}}});
    refused(&world, "PATCH", other, &label("a"), why).await;
    refused(&world, "PATCH", &format!("{other}/status"), &json!({"status": {"phase": ""}}), why)
        .await;
    let new = json!({"metadata": {"name": "n3"}});
    let why3 = "node \"n1\" is not allowed to modify node \"n3\"";
    refused(&world, "POST", "/api/v1/nodes", &new, why3).await;
    let taints = "node \"n1\" is not allowed to modify taints";
    for body in [
        json!({"spec": {"taints": null}}),
        json!({"spec": {"taints":
        [{"key": "k", "effect": "NoSchedule"}]}}),
    ] {
        refused(&world, "PATCH", own, &body, taints).await;
        refused(&world, "PATCH", &format!("{own}/status"), &body, taints).await;
    }
    // CVE-2025-5187.
    let owners = json!({"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "Node",
        "name": "gone", "uid": "u"}]}});
    let why = "node \"n1\" is not allowed to modify ownerReferences";
    refused(&world, "PATCH", own, &owners, why).await;
    refused(&world, "PATCH", &format!("{own}/status"), &owners, why).await;
    for key in
        ["node-restriction.kubernetes.io/x", "node-role.kubernetes.io/control-plane", "x.k8s.io/y"]
    {
        let why = format!("is not allowed to modify labels: {key}");
        refused(&world, "PATCH", own, &label(key), &why).await;
        refused(&world, "PATCH", &format!("{own}/status"), &label(key), &why).await;
    }
    let source = json!({"spec": {"configSource": {"configMap": {"namespace": "a", "name": "b",
        "kubeletConfigKey": "c"}}}});
    let why = "node \"n1\" is not allowed to update configSource to a new non-nil configSource";
    refused(&world, "PATCH", own, &source, why).await;
    assert_eq!(world.ask_by(&node("n1"), ("DELETE", own), &Value::Null).await.code, 403);
    allowed(&world, "PATCH", own, &label("topology.kubernetes.io/zone")).await;
    allowed(&world, "PATCH", own, &label("kubelet.kubernetes.io/x")).await;
    allowed(&world, "PATCH", &format!("{own}/status"), &json!({"status": {"phase": "Running"}}))
        .await;
}

#[tokio::test]
async fn a_node_registers_without_restricted_labels() {
    let world = World::new().await;
    let n1 = node("n1");
    let mut new = json!({"metadata": {"name": "n1", "labels": {"a.node-restriction.kubernetes.io/x": "x",
        "kubernetes.io/os": "linux"}}});
    let answer = world.ask_by(&n1, ("POST", "/api/v1/nodes"), &new).await;
    let why = "nodes \"n1\" is forbidden: node \"n1\" is not allowed to set the following labels: a.node-restriction.kubernetes.io/x";
    assert_eq!(answer.told(), (403, why.into()));
    new["metadata"]["labels"] = json!({"kubernetes.io/os": "linux", "example.com/x": "y"});
    new["spec"]["taints"] = json!([{"key": "k", "effect": "NoSchedule"}]);
    let answer = world.ask_by(&n1, ("POST", "/api/v1/nodes"), &new).await;
    assert_eq!(answer.code, 201, "{}", answer.json());
}

#[tokio::test]
async fn leases_and_csi_nodes_bear_the_nodes_name() {
    let world = world().await;
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    let lease = |name: &str| json!({"metadata": {"name": name}, "spec": {"holderIdentity": name}});
    let why = "can only access node lease with the same name as the requesting node";
    refused(&world, "POST", leases, &lease("n2"), why).await;
    let elsewhere = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
    let place = "can only access leases in the \"kube-node-lease\" system namespace";
    refused(&world, "POST", elsewhere, &lease("n1"), place).await;
    world.make(leases, &lease("n2")).await;
    for method in ["PUT", "PATCH", "DELETE"] {
        refused(&world, method, &format!("{leases}/n2"), &lease("n2"), why).await;
    }
    allowed(&world, "POST", leases, &lease("n1")).await;
    let csi_nodes = "/apis/storage.k8s.io/v1/csinodes";
    let csi_node = |name: &str| json!({"metadata": {"name": name}, "spec": {"drivers": []}});
    let why = "can only access CSINode with the same name as the requesting node";
    refused(&world, "POST", csi_nodes, &csi_node("n2"), why).await;
    world.make(csi_nodes, &csi_node("n2")).await;
    refused(&world, "PATCH", &format!("{csi_nodes}/n2"), &csi_node("n2"), why).await;
    refused(&world, "DELETE", &format!("{csi_nodes}/n2"), &Value::Null, why).await;
    allowed(&world, "POST", csi_nodes, &csi_node("n1")).await;
}

#[tokio::test]
async fn resource_slices_name_the_node() {
    let world = world().await;
    let slices = "/apis/resource.k8s.io/v1/resourceslices";
    let slice = |name: &str, node: &str| {
        json!({"metadata": {"name": name}, "spec": {
        "driver": "d.example.com", "nodeName": node,
        "pool": {"name": "p", "generation": 1, "resourceSliceCount": 1}}})
    };
    let why = "can only create ResourceSlice with the same NodeName as the requesting node";
    refused(&world, "POST", slices, &slice("s", "n2"), why).await;
    world.make(slices, &slice("s2", "n2")).await;
    let why = "no relationship found between node 'n1' and this object";
    refused(&world, "DELETE", &format!("{slices}/s2"), &Value::Null, why).await;
    let why = "can only list/watch/deletecollection resourceslices with nodeName field selector";
    refused(&world, "DELETE", slices, &Value::Null, why).await;
    allowed(&world, "POST", slices, &slice("s1", "n1")).await;
    let moved = json!({"spec": {"nodeName": "n2"}});
    let path = format!("{slices}/s1");
    let answer = world.ask_by(&node("n1"), ("PATCH", &path), &moved).await;
    assert_eq!(answer.code, 422, "{}", answer.json());
    let own = format!("{slices}?fieldSelector=spec.nodeName%3Dn1");
    allowed(&world, "DELETE", &own, &Value::Null).await;
    assert_eq!(world.ask("GET", &format!("{slices}/s2"), &Value::Null).await.code, 200);
}

#[tokio::test]
async fn of_claims_only_the_reported_state_is_the_nodes() {
    let world = world().await;
    let own = "/api/v1/namespaces/default/persistentvolumeclaims/of-n1";
    let size = json!({"status": {"capacity": {"storage": "2Gi"}}});
    let why = "no relationship found between node 'n1' and this object";
    let other = own.replace("of-n1", "of-n2");
    refused(&world, "PATCH", &format!("{other}/status"), &size, why).await;
    let why = "node \"n1\" is not allowed to update fields other than status.quantity and status.conditions: status.phase";
    let phase = json!({"status": {"phase": "Lost"}});
    refused(&world, "PATCH", &format!("{own}/status"), &phase, why).await;
    let labels = json!({"metadata": {"labels": {"a": "b"}}});
    let why = "node \"n1\" is not allowed to update fields other than status.quantity and status.conditions: metadata.labels";
    refused(&world, "PATCH", &format!("{own}/status"), &labels, why).await;
    assert_eq!(world.ask_by(&node("n1"), ("PATCH", own), &labels).await.code, 403);
    allowed(&world, "PATCH", &format!("{own}/status"), &size).await;
}

async fn token(world: &World, user: &User, account: &str, spec: &Value) -> (u16, String) {
    let path = format!("/api/v1/namespaces/default/serviceaccounts/{account}/token");
    let body =
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
    world.ask_by(user, ("POST", &path), &body).await.told()
}

#[tokio::test]
async fn a_node_asks_for_tokens_of_its_own_pods() {
    let world = world().await;
    let n1 = node("n1");
    let uid = |name: &str| {
        let path = format!("{PODS}/{name}");
        let world = &world;
        async move {
            let pod = world.ask("GET", &path, &Value::Null).await.json();
            pod["metadata"]["uid"].as_str().expect("a uid").to_owned()
        }
    };
    let (own, other) = (uid("p-n1").await, uid("p-n2").await);
    let bound = |name: &str, uid: &str| json!({"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid}});
    let with = |audiences: Value| {
        let mut spec = bound("p-n1", &own);
        spec["audiences"] = audiences;
        spec
    };
    let told = |why: &str| (403, format!("serviceaccounts \"default\" is forbidden: {why}"));
    for (spec, why) in [
        (json!({}), "node requested token not bound to a pod"),
        (
            json!({"boundObjectRef": {"apiVersion": "v1", "kind": "Node", "name": "n1"}}),
            "node requested token not bound to a pod",
        ),
        (bound("p-n1", ""), "node requested token with a pod binding without a uid"),
        (
            bound("p-n1", "x"),
            "the UID in the bound object reference (x) does not match the UID in record. The object might have been deleted and then recreated",
        ),
        (
            bound("p-n2", &other),
            "node requested token bound to a pod scheduled on a different node",
        ),
        (with(json!(["a", "b"])), "node may only request 0 or 1 audiences"),
        (
            with(json!(["vault"])),
            "error validating audience \"vault\": csidriver.storage.k8s.io \"d.example.com\" not found",
        ),
    ] {
        assert_eq!(token(&world, &n1, "default", &spec).await, told(why), "{spec}");
    }
    assert_eq!(token(&world, &n1, "default", &bound("p-n1", &own)).await.0, 201);
    // An account that no pod here uses is beyond it altogether.
    assert_eq!(token(&world, &n1, "other", &bound("p-n1", &own)).await.0, 403);
    let driver = json!({"metadata": {"name": "d.example.com"}, "spec": {"tokenRequests":
        [{"audience": "vault"}]}});
    world.make("/apis/storage.k8s.io/v1/csidrivers", &driver).await;
    assert_eq!(token(&world, &n1, "default", &with(json!(["vault"]))).await.0, 201);
    let why = "audience \"else\" not found in pod spec volume, system:node:n1 is not authorized to request tokens for this audience";
    assert_eq!(token(&world, &n1, "default", &with(json!(["else"]))).await, told(why));
    let rules = json!([{"verbs": ["request-serviceaccounts-token-audience"], "apiGroups": [""],
        "resources": ["else"]}]);
    world.grant("system:node:n1", &rules).await;
    assert_eq!(token(&world, &n1, "default", &with(json!(["else"]))).await.0, 201);
}

#[tokio::test]
async fn a_node_asks_for_certificates_in_its_own_name() {
    let world = world().await;
    let requests = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let request = |name: &str, signer: &str| {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
        let key = KeyPair::generate().expect("a key");
        let pem = params.serialize_request(&key).and_then(|r| r.pem()).expect("a request");
        json!({"metadata": {"generateName": "r-"}, "spec": {"request": BASE64_STANDARD.encode(pem),
            "signerName": signer, "usages": ["digital signature", "client auth"]}})
    };
    let why = "can only create a node CSR with CN=system:node:n1";
    for signer in ["kubernetes.io/kube-apiserver-client-kubelet", "kubernetes.io/kubelet-serving"] {
        refused(&world, "POST", requests, &request("system:node:n2", signer), why).await;
    }
    let signer = "kubernetes.io/kube-apiserver-client-kubelet";
    allowed(&world, "POST", requests, &request("system:node:n1", signer)).await;
}
