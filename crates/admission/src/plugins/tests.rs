//! The chain with a cluster of a few objects: each plugin's changes, and each of its refusals.

use api::Status;
use api::registry::{Registry, Resource};
use auth::{RequestInfo, User};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::attributes::{Attributes, Operation};
use crate::chain::Chain;
use crate::fakes::Fake;
use crate::reinvocation::Reinvocation;
use crate::versions::Single;

fn usual() -> Vec<(&'static str, Value)> {
    vec![
        ("namespaces", json!({"metadata": {"name": "default"}})),
        ("serviceaccounts", json!({"metadata": {"name": "default", "namespace": "default"}})),
        (
            "nodes",
            json!({"metadata": {"name": "n", "labels": {
            "topology.kubernetes.io/zone": "z", "topology.kubernetes.io/region": "r", "other": "o"}}}),
        ),
        (
            "priorityclasses",
            json!({"metadata": {"name": "high"}, "value": 7, "preemptionPolicy": "Never"}),
        ),
    ]
}

/// Both phases for a path; the object after them.
async fn run(
    cluster: &Fake,
    operation: Operation,
    (group, resource, subresource): (&str, &str, &str),
    (name, old, object): (&str, Option<&Value>, Value),
) -> Result<Value, Status> {
    let row = Registry::built_in().find(group, "v1", resource, subresource).expect("a row");
    run_row(cluster, operation, (row, &User::default()), (name, old, object)).await
}

/// As [`run`], by somebody, for a resource that the server need not have.
async fn run_row(
    cluster: &Fake,
    operation: Operation,
    (row, user): (&Resource, &User),
    (name, old, object): (&str, Option<&Value>, Value),
) -> Result<Value, Status> {
    let namespace = if row.namespaced { "default" } else { "" };
    let info = RequestInfo {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        ..RequestInfo::parse(&http::Method::POST, "/api/v1/x", false)
    };
    let attributes = Attributes {
        operation,
        user,
        info: &info,
        row,
        name,
        old,
        dry_run: false,
        options: &|| Value::Null,
        now: Timestamp::UNIX_EPOCH,
        deadline: None,
        cluster,
        versions: &Single,
        reinvocation: &Reinvocation::default(),
        warn: &|_| {},
        annotate: &|_, _| {},
    };
    let (chain, mut object) = (Chain::default(), object);
    chain.mutate(&attributes, &mut object).await?;
    chain.validate(&attributes, &object).await?;
    Ok(object)
}

fn pod(spec: Value) -> Value {
    json!({"metadata": {"name": "p", "namespace": "default"}, "spec": spec})
}

async fn create_pod(spec: Value) -> Result<Value, Status> {
    let cluster = Fake::with(&usual());
    run(&cluster, Operation::Create, ("", "pods", ""), ("p", None, pod(spec))).await
}

#[tokio::test]
async fn a_pod_gets_account_token_priority_and_tolerations() {
    let made = create_pod(json!({"containers": [{"name": "c"}]})).await.expect("admitted");
    let spec = &made["spec"];
    assert_eq!(spec["serviceAccountName"], "default");
    assert_eq!(
        (&spec["priority"], &spec["preemptionPolicy"]),
        (&json!(0), &json!("PreemptLowerPriority"))
    );
    assert_eq!(spec["tolerations"].as_array().map(Vec::len), Some(2));
    assert_eq!(spec["containers"][0]["volumeMounts"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn a_pod_does_not_choose_what_its_class_decides() {
    let classed = json!({"priorityClassName": "high"});
    let made = create_pod(classed.clone()).await.expect("admitted");
    assert_eq!(
        (&made["spec"]["priority"], &made["spec"]["preemptionPolicy"]),
        (&json!(7), &json!("Never"))
    );
    let mut same = classed.clone();
    same["priority"] = 7.into();
    create_pod(same).await.expect("the class's own number");
    for (key, value, why) in [
        (
            "priority",
            json!(8),
            "the integer value of priority (8) must not be provided in pod spec; priority admission controller computed 7 from the given PriorityClass name",
        ),
        (
            "preemptionPolicy",
            json!("PreemptLowerPriority"),
            "the string value of PreemptionPolicy (PreemptLowerPriority) must not be provided in pod spec; priority admission controller computed Never from the given PriorityClass name",
        ),
        ("priorityClassName", json!("absent"), "no PriorityClass with name absent was found"),
    ] {
        let mut spec = classed.clone();
        spec[key] = value;
        let refused = create_pod(spec).await.expect_err("refused");
        assert_eq!(refused.message, format!("pods \"p\" is forbidden: {why}"));
    }
}

#[tokio::test]
async fn a_bound_pod_has_its_nodes_topology() {
    let made = create_pod(json!({"nodeName": "n"})).await.expect("admitted");
    let labels = json!({"topology.kubernetes.io/zone": "z", "topology.kubernetes.io/region": "r"});
    assert_eq!(made["metadata"]["labels"], labels);
    let cluster = Fake::with(&usual());
    for (kind, copied) in [("Node", labels), ("", Value::Null)] {
        let binding = json!({"metadata": {"name": "p"}, "target": {"kind": kind, "name": "n"}});
        let path = ("", "pods", "binding");
        let bound = run(&cluster, Operation::Create, path, ("p", None, binding)).await;
        assert_eq!(bound.expect("admitted")["metadata"]["labels"], copied, "{kind}");
    }
}

#[tokio::test]
async fn namespaces_end_and_some_never_do() {
    let namespaces = ("", "namespaces", "");
    let cluster = Fake::with(&[(
        "namespaces",
        json!({"metadata": {"name": "default", "deletionTimestamp": "2026-01-01T00:00:00Z"}}),
    )]);
    let delete = |name: &'static str| {
        let old = json!({"metadata": {"name": name}});
        let cluster = &cluster;
        async move { run(cluster, Operation::Delete, namespaces, (name, Some(&old), Value::Null)).await }
    };
    for name in ["default", "kube-system", "kube-public"] {
        let refused = delete(name).await.expect_err("refused");
        assert!(
            refused.message.ends_with("this namespace may not be deleted"),
            "{}",
            refused.message
        );
    }
    delete("other").await.expect("admitted");
    let made = |operation, old: Option<Value>| {
        let cluster = &cluster;
        async move {
            let object = json!({"metadata": {"name": "c"}});
            run(cluster, operation, ("", "configmaps", ""), ("c", old.as_ref(), object)).await
        }
    };
    let refused = made(Operation::Create, None).await.expect_err("refused");
    assert_eq!(
        refused.message,
        "configmaps \"c\" is forbidden: unable to create new content in namespace default because it is being terminated"
    );
    made(Operation::Update, Some(json!({}))).await.expect("its controllers finish their work");
    let nowhere = Fake::with(&[]);
    let object = json!({"metadata": {"name": "c"}});
    let absent =
        run(&nowhere, Operation::Create, ("", "configmaps", ""), ("c", None, object)).await;
    assert_eq!(absent.expect_err("refused").code, 404);
}

#[tokio::test]
async fn a_pod_is_resized_on_a_node_that_exists() {
    let cluster = Fake::with(&usual());
    for (node, admitted) in [("n", true), ("", true), ("gone", false)] {
        let object = pod(json!({"nodeName": node}));
        let path = ("", "pods", "resize");
        let resized =
            run(&cluster, Operation::Update, path, ("p", Some(&object), object.clone())).await;
        assert_eq!(resized.is_ok(), admitted, "{node}");
    }
}

#[tokio::test]
async fn a_new_node_is_tainted() {
    let cluster = Fake::with(&[]);
    let node = json!({"metadata": {"name": "n"}, "spec": {}});
    let made = run(&cluster, Operation::Create, ("", "nodes", ""), ("n", None, node)).await;
    let taint = json!([{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]);
    assert_eq!(made.expect("admitted")["spec"]["taints"], taint);
}

#[tokio::test]
async fn claims_are_bounded_when_they_grow_too() {
    let mut objects = usual();
    objects.push((
        "limitranges",
        json!({"metadata": {"name": "l", "namespace": "default"}, "spec": {"limits": [
        {"type": "PersistentVolumeClaim", "max": {"storage": "2Gi"}}]}}),
    ));
    let cluster = Fake::with(&objects);
    let claim = |size: &str| {
        json!({"metadata": {"name": "c", "namespace": "default"},
            "spec": {"resources": {"requests": {"storage": size}}}, "status": {"phase": "Bound"}})
    };
    let path = ("", "persistentvolumeclaims", "");
    let made = run(&cluster, Operation::Create, path, ("c", None, claim("3Gi"))).await;
    assert!(
        made.expect_err("refused")
            .message
            .contains("maximum storage usage per PersistentVolumeClaim is 2Gi")
    );
    let old = claim("1Gi");
    let grown = run(&cluster, Operation::Update, path, ("c", Some(&old), claim("3Gi"))).await;
    assert!(
        grown
            .expect_err("refused")
            .message
            .contains("maximum storage usage per PersistentVolumeClaim is 2Gi")
    );
}

/// ClusterTrustBundles are not served, since their API is off by default; the plugin is ready for them.
#[tokio::test]
async fn trust_bundles_of_a_signer_need_the_right_to_attest_for_it() {
    let group = "certificates.k8s.io";
    let known = Registry::built_in().find(group, "v1", "certificatesigningrequests", "");
    let row = Resource {
        version: "v1beta1",
        name: "clustertrustbundles",
        kind: "ClusterTrustBundle",
        ..known.expect("a row").clone()
    };
    let cluster = Fake::with(&usual());
    let bundle = |signer: &str, label: &str| {
        let meta = json!({"name": "b", "labels": {"a": label}});
        json!({"metadata": meta, "spec": {"signerName": signer, "trustBundle": "PEM"}})
    };
    let (nobody, admin) = (User::new("jane", &[]), User::new("admin", &["system:masters"]));
    let ask = async |operation, user: &User, old: Option<&Value>, new: Value| {
        run_row(&cluster, operation, (&row, user), ("b", old, new)).await
    };
    let why = "clustertrustbundles.certificates.k8s.io \"b\" is forbidden: user not permitted to attest for \
               signerName \"example.com/s\"";
    let of_signer = bundle("example.com/s", "1");
    let refused = ask(Operation::Create, &nobody, None, of_signer.clone()).await;
    assert_eq!(refused.expect_err("no right").message, why);
    let changed = bundle("example.com/s", "2");
    let refused = ask(Operation::Update, &nobody, Some(&of_signer), changed.clone()).await;
    assert_eq!(refused.expect_err("no right").message, why);
    ask(Operation::Create, &nobody, None, bundle("", "1")).await.expect("of no signer");
    ask(Operation::Create, &admin, None, of_signer.clone()).await.expect("a right to everything");
    ask(Operation::Update, &admin, Some(&of_signer), changed).await.expect("a right to everything");
}
