//! Golden cases of StatefulSets: order, scaling, updates, claims and their retention, and the status.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::claims::{claims, is_foreign, with_owners};
use super::identity::{is_member, ordinal};
use super::plan::{Act, Plan, State, Version, plan};
use super::status::status;
use super::{is_claim_of, template};
use crate::meta::name;

fn set(more: Value) -> StatefulSet {
    let mut spec = json!({"replicas": 3, "serviceName": "svc",
        "selector": {"matchLabels": {"s": "s"}},
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
        "podManagementPolicy": "OrderedReady",
        "template": {"metadata": {"labels": {"s": "s"}},
            "spec": {"containers": [{"name": "c", "image": "new"}]}}});
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "n", "uid": "u",
        "generation": 1}, "spec": spec}))
    .unwrap()
}

fn with_claims(more: Value) -> StatefulSet {
    let mut spec = json!({"volumeClaimTemplates": [{"metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"]}}]});
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    set(spec)
}

/// `state`: a phase, `Ready`, or `Ending`.
fn pod(own: &str, revision: &str, state: &str) -> Arc<Pod> {
    let (phase, ready) = match state {
        "Ready" | "Ending" => ("Running", "True"),
        phase => (phase, "False"),
    };
    let ends = (state == "Ending").then_some("2026-01-01T00:00:30Z");
    let value = json!({"metadata": {"name": own, "uid": own, "namespace": "n",
        "deletionTimestamp": ends, "labels": {"s": "s", "controller-revision-hash": revision,
            "statefulset.kubernetes.io/pod-name": own}},
        "spec": {"containers": []}, "status": {"phase": phase, "conditions": [{"type": "Ready",
            "status": ready, "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
    Arc::new(serde_json::from_value(value).unwrap())
}

fn all(states: &[(&str, &str, &str)]) -> Vec<Arc<Pod>> {
    states.iter().map(|(own, revision, state)| pod(own, revision, state)).collect()
}

type Claims = BTreeMap<String, Arc<PersistentVolumeClaim>>;

/// Runs `with` on the state that these make.
fn on<T>(
    set: &StatefulSet,
    pods: &[Arc<Pod>],
    there: &Claims,
    with: impl FnOnce(&State<'_>) -> T,
) -> T {
    let template = |image: &str| {
        let mut template = set.spec.as_ref().unwrap().template.clone();
        template.spec.as_mut().unwrap().containers[0].image = Some(image.into());
        template
    };
    let version = |name: &str| Version { name: name.into(), template: template(name) };
    with(&State {
        set,
        pods,
        current: &version("old"),
        update: &version("new"),
        claim: &|own| there.get(own).cloned(),
        now: &Time("2026-01-01T00:01:00Z".parse().unwrap()),
    })
}

fn run(set: &StatefulSet, pods: &[(&str, &str, &str)]) -> Plan {
    on(set, &all(pods), &Claims::new(), plan)
}

/// The acts in short.
fn short(plan: &Plan) -> Vec<String> {
    let act = |act: &Act| match act {
        Act::Create { pod, .. } => {
            format!("+{} {}", name(&pod.metadata), template::revision_of(pod))
        }
        Act::AddClaims { claims, .. } => format!("claims {}", claims.len()),
        Act::Correct(pod) => format!("~{}", name(&pod.metadata)),
        Act::Own { claim, .. } => format!("own {}", name(&claim.metadata)),
        Act::Delete(pod) => format!("-{}", name(&pod.metadata)),
        Act::Wait(why) => format!("wait: {why}"),
    };
    plan.stages.iter().flatten().map(act).collect()
}

#[test]
fn pods_are_created_in_order() {
    let ordered = set(json!({}));
    assert_eq!(short(&run(&ordered, &[])), ["+web-0 new"]);
    assert!(short(&run(&ordered, &[("web-0", "new", "Pending")])).is_empty());
    assert!(short(&run(&ordered, &[("web-0", "new", "Running")])).is_empty());
    assert_eq!(short(&run(&ordered, &[("web-0", "new", "Ready")])), ["+web-1 new"]);
    // A gap is filled before anything else.
    let gap = [("web-0", "new", "Ready"), ("web-2", "new", "Ready")];
    assert_eq!(short(&run(&ordered, &gap)), ["+web-1 new"]);
    let unavailable = set(json!({"minReadySeconds": 61}));
    assert!(short(&run(&unavailable, &[("web-0", "new", "Ready")])).is_empty());
}

#[test]
fn parallel_pods_come_and_go_together() {
    let parallel = set(json!({"podManagementPolicy": "Parallel"}));
    assert_eq!(short(&run(&parallel, &[])), ["+web-0 new", "+web-1 new", "+web-2 new"]);
    let many = [
        ("web-0", "new", "Pending"),
        ("web-1", "new", "Ready"),
        ("web-2", "new", "Ready"),
        ("web-3", "new", "Ready"),
        ("web-4", "new", "Running"),
    ];
    assert_eq!(short(&run(&parallel, &many)), ["-web-4", "-web-3"]);
}

#[test]
fn ordinals_may_start_later() {
    let later = set(json!({"replicas": 2, "ordinals": {"start": 5}}));
    assert_eq!(short(&run(&later, &[])), ["+web-5 new"]);
    let pods = [("web-4", "new", "Ready"), ("web-5", "new", "Ready"), ("web-6", "new", "Ready")];
    assert_eq!(short(&run(&later, &pods)), ["-web-4"]);
}

#[test]
fn pods_beyond_go_one_by_one_from_the_end() {
    let two = set(json!({"replicas": 2}));
    let ready = |own| (own, "new", "Ready");
    let pods = [ready("web-0"), ready("web-1"), ready("web-2"), ready("web-3")];
    assert_eq!(short(&run(&two, &pods)), ["-web-3"]);
    let ending = [ready("web-0"), ready("web-1"), ready("web-2"), ("web-3", "new", "Ending")];
    assert!(short(&run(&two, &ending)).is_empty());
    // One that does not work is waited for, but for itself.
    let broken = [ready("web-0"), ready("web-1"), ("web-2", "new", "Running"), ready("web-3")];
    assert_eq!(short(&run(&two, &broken)), ["-web-3"]);
    let last = [ready("web-0"), ready("web-1"), ready("web-2"), ("web-3", "new", "Running")];
    assert_eq!(short(&run(&two, &last)), ["-web-3"]);
    let blocked =
        [ready("web-0"), ready("web-1"), ("web-2", "new", "Running"), ("web-3", "new", "Running")];
    assert!(short(&run(&two, &blocked)).is_empty());
}

#[test]
fn ended_pods_are_deleted_and_come_again() {
    let ordered = set(json!({}));
    let failed = [("web-0", "new", "Failed"), ("web-1", "new", "Ready")];
    assert_eq!(short(&run(&ordered, &failed)), ["-web-0"]);
    assert_eq!(short(&run(&ordered, &[("web-0", "new", "Succeeded")])), ["-web-0"]);
}

#[test]
fn updates_go_from_the_end_and_wait() {
    let rolling = set(json!({}));
    let old = |own| (own, "old", "Ready");
    let pods = [old("web-0"), old("web-1"), old("web-2")];
    let plan = run(&rolling, &pods);
    assert_eq!((short(&plan), plan.outdated), (vec!["-web-2".to_owned()], 1));
    let next = [old("web-0"), old("web-1"), ("web-2", "new", "Ready")];
    assert_eq!(short(&run(&rolling, &next)), ["-web-1"]);
    let on_delete = set(json!({"updateStrategy": {"type": "OnDelete"}}));
    assert!(short(&run(&on_delete, &pods)).is_empty());
    let parallel = set(json!({"podManagementPolicy": "Parallel"}));
    let waits = [old("web-0"), old("web-1"), ("web-2", "new", "Running")];
    assert!(short(&run(&parallel, &waits)).is_empty());
}

#[test]
fn a_partition_keeps_the_current_version_below_it() {
    let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 2}});
    let partitioned = set(json!({"updateStrategy": strategy}));
    let old = |own| (own, "old", "Ready");
    let pods = [old("web-0"), old("web-1"), old("web-2")];
    assert_eq!(short(&run(&partitioned, &pods)), ["-web-2"]);
    let done = [old("web-0"), old("web-1"), ("web-2", "new", "Ready")];
    assert!(short(&run(&partitioned, &done)).is_empty());
    assert_eq!(short(&run(&partitioned, &[])), ["+web-0 old"]);
    let top = [old("web-0"), old("web-1")];
    assert_eq!(short(&run(&partitioned, &top)), ["+web-2 new"]);
}

#[test]
fn several_may_be_updated_at_once() {
    let strategy = |most: Value| json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0, "maxUnavailable": most}});
    let old = |own| (own, "old", "Ready");
    let pods = [old("web-0"), old("web-1"), old("web-2")];
    let two = set(json!({"updateStrategy": strategy(json!(2))}));
    assert_eq!(short(&run(&two, &pods)), ["-web-2", "-web-1"]);
    let percent = set(json!({"updateStrategy": strategy(json!("1%"))}));
    assert_eq!(short(&run(&percent, &pods)), ["-web-2"]);
    let parallel = set(json!({"updateStrategy": strategy(json!(2)),
        "podManagementPolicy": "Parallel"}));
    let waits = [old("web-0"), old("web-1"), ("web-2", "new", "Running")];
    assert_eq!(short(&run(&parallel, &waits)), ["-web-1"]);
}

#[test]
fn a_pod_has_a_name_a_host_and_its_claims() {
    let set = with_claims(json!({}));
    let plan = run(&set, &[]);
    let Act::Create { pod, claims } = &plan.stages[0][0] else { panic!("{plan:?}") };
    let labels = pod.metadata.labels.as_ref().unwrap();
    assert_eq!(labels["statefulset.kubernetes.io/pod-name"], "web-0");
    assert_eq!(labels["apps.kubernetes.io/pod-index"], "0");
    let spec = pod.spec.as_ref().unwrap();
    assert_eq!((spec.hostname.as_deref(), spec.subdomain.as_deref()), (Some("web-0"), Some("svc")));
    let volume = &spec.volumes.as_ref().unwrap()[0];
    let source = volume.persistent_volume_claim.as_ref().unwrap();
    assert_eq!((volume.name.as_str(), source.claim_name.as_str()), ("data", "data-web-0"));
    assert_eq!(claims[0].metadata.name.as_deref(), Some("data-web-0"));
    assert_eq!(claims[0].metadata.labels.as_ref().unwrap()["s"], "s");
    assert!(is_claim_of(&set, &claims[0]));
    assert!(is_member(&set, pod) && ordinal(pod) == Some(0));
}

fn claim(more: Value) -> PersistentVolumeClaim {
    serde_json::from_value(json!({"metadata": {"name": "data-web-0", "namespace": "n",
        "uid": "c", "ownerReferences": more["owners"], "deletionTimestamp": more["ends"]}}))
    .unwrap()
}

fn there(claim: PersistentVolumeClaim) -> Claims {
    Claims::from([("data-web-0".to_owned(), Arc::new(claim))])
}

#[test]
fn a_claim_that_ends_is_waited_for() {
    let set = with_claims(json!({}));
    let ending = there(claim(json!({"ends": "2026-01-01T00:00:00Z"})));
    let plan = on(&set, &[], &ending, plan);
    assert_eq!(short(&plan), ["wait: pvc data-web-0 is being deleted"]);
    let pending = all(&[("web-0", "new", "Pending")]);
    assert_eq!(short(&on(&set, &pending, &Claims::new(), super::plan::plan)), ["claims 1"]);
}

#[test]
fn a_claim_of_an_earlier_pod_is_not_used_again() {
    let set = with_claims(json!({"persistentVolumeClaimRetentionPolicy":
        {"whenScaled": "Delete", "whenDeleted": "Retain"}}));
    let of_pod = json!([{"apiVersion": "v1", "kind": "Pod", "name": "web-0", "uid": "earlier"}]);
    let stale = there(claim(json!({"owners": of_pod})));
    assert!(short(&on(&set, &[], &stale, plan)).is_empty());
}

#[test]
fn retention_decides_who_owns_a_claim() {
    let owners = |scaled: &str, deleted: &str, own: &str, present: Value| {
        let set = with_claims(json!({"persistentVolumeClaimRetentionPolicy":
            {"whenScaled": scaled, "whenDeleted": deleted}}));
        let claim = claim(json!({"owners": present}));
        let new = with_owners(&set, &pod(own, "new", "Ready"), &claim)?;
        let refs = new.metadata.owner_references.unwrap_or_default();
        Some(refs.into_iter().map(|r| r.kind).collect::<Vec<_>>())
    };
    let none = || json!([]);
    let of_set = || {
        json!([{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web",
        "uid": "u", "controller": true}])
    };
    let (retain, delete) = ("Retain", "Delete");
    let kinds = |kind: &str| Some(vec![kind.to_owned()]);
    assert_eq!(owners(retain, retain, "web-0", none()), None);
    assert_eq!(owners(retain, retain, "web-0", of_set()), Some(vec![]));
    assert_eq!(owners(retain, delete, "web-0", none()), kinds("StatefulSet"));
    assert_eq!(owners(retain, delete, "web-0", of_set()), None);
    assert_eq!(owners(delete, retain, "web-0", none()), None);
    assert_eq!(owners(delete, retain, "web-9", none()), kinds("Pod"));
    assert_eq!(owners(delete, delete, "web-0", none()), kinds("StatefulSet"));
    assert_eq!(owners(delete, delete, "web-9", of_set()), kinds("Pod"));
}

#[test]
fn a_claim_of_another_controller_is_left_alone() {
    let set = with_claims(json!({"persistentVolumeClaimRetentionPolicy":
        {"whenScaled": "Retain", "whenDeleted": "Delete"}}));
    let foreign = json!({"apiVersion": "x/v1", "kind": "X", "name": "x", "uid": "x",
        "controller": true});
    let ours = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "uid": "u"});
    let pod = pod("web-0", "new", "Ready");
    let alone = claim(json!({"owners": [foreign]}));
    assert!(is_foreign(&set, &pod, &alone) && with_owners(&set, &pod, &alone).is_none());
    let both = claim(json!({"owners": [foreign, ours]}));
    let left = with_owners(&set, &pod, &both).unwrap().metadata.owner_references.unwrap();
    assert_eq!((left.len(), left[0].kind.as_str()), (1, "X"));
    // What an earlier set of the name owns goes with it.
    let mut earlier = ours.clone();
    earlier["uid"] = "earlier".into();
    assert!(with_owners(&set, &pod, &claim(json!({"owners": [earlier]}))).is_none());
    assert_eq!(claims(&set, 0).len(), 1);
}

#[test]
fn the_status_counts_pods_and_completes_the_update() {
    let counted = |pods: &[(&str, &str, &str)]| {
        let (set, pods) = (set(json!({})), all(pods));
        let status = on(&set, &pods, &Claims::new(), |state| {
            let plan = plan(state);
            status(state, &plan, 0).0
        });
        serde_json::to_value(status).unwrap()
    };
    let ready = |own, revision| (own, revision, "Ready");
    assert_eq!(
        counted(&[ready("web-0", "old"), ready("web-1", "old"), ready("web-2", "new")]),
        json!({"replicas": 3, "readyReplicas": 3, "availableReplicas": 3, "currentReplicas": 1,
            "updatedReplicas": 1, "currentRevision": "old", "updateRevision": "new",
            "collisionCount": 0, "observedGeneration": 1})
    );
    assert_eq!(
        counted(&[ready("web-0", "new"), ready("web-1", "new"), ready("web-2", "new")]),
        json!({"replicas": 3, "readyReplicas": 3, "availableReplicas": 3, "currentReplicas": 3,
            "updatedReplicas": 3, "currentRevision": "new", "updateRevision": "new",
            "collisionCount": 0, "observedGeneration": 1})
    );
}

#[test]
fn strangers_have_no_place() {
    let set = set(json!({}));
    let member = |own: &str| is_member(&set, &pod(own, "new", "Ready"));
    assert!(member("web-0") && !member("web-x-0") && !member("web-") && !member("web"));
    assert!(!is_claim_of(&set, &claim(json!({}))));
}
