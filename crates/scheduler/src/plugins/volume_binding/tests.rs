//! Volumes by node, and what binding writes.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::{
    CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment,
};
use serde_json::{Value, json};

use super::*;
use crate::testing::{Bed, merge, node, pod, typed};

fn zoned(name: &str, zone: &str) -> Arc<Node> {
    node(name, json!({"metadata": {"labels": {"topology.kubernetes.io/zone": zone}}}))
}

fn class(bed: &Bed, name: &str, mode: &str, extra: Value) {
    let mut value = json!({"metadata": {"name": name}, "provisioner": "csi.example.com",
        "volumeBindingMode": mode});
    merge(&mut value, &extra);
    bed.listers.classes.put(Arc::new(typed::<StorageClass>(value)));
}

fn claim(bed: &Bed, name: &str, extra: Value) {
    let mut value = json!({"metadata": {"name": name, "namespace": "default", "uid": name,
        "resourceVersion": "1"}, "spec": {"storageClassName": "wait",
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "5Gi"}}}});
    merge(&mut value, &extra);
    bed.listers.claims.put(Arc::new(typed::<PersistentVolumeClaim>(value)));
}

fn volume(bed: &Bed, name: &str, on: &str, size: &str, extra: Value) {
    let mut value = json!({"metadata": {"name": name, "resourceVersion": "1"}, "spec": {
        "storageClassName": "wait", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": size},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
            {"key": "kubernetes.io/hostname", "operator": "In", "values": [on]}]}]}}},
        "status": {"phase": "Available"}});
    merge(&mut value, &extra);
    bed.listers.volumes.put(Arc::new(typed::<PersistentVolume>(value)));
}

fn bound_to(volume: &str) -> Value {
    json!({"metadata": {"annotations": {BIND_COMPLETED: "yes"}}, "spec": {"volumeName": volume}})
}

fn uses(name: &str, claim: &str) -> Arc<PodInfo> {
    pod(
        name,
        "100m",
        json!({"spec": {"volumes": [
        {"name": "v", "persistentVolumeClaim": {"claimName": claim}}]}}),
    )
}

fn bed() -> Bed {
    let bed = Bed::new(&[zoned("a", "a"), zoned("b", "b")]);
    class(&bed, "wait", "WaitForFirstConsumer", json!({}));
    class(&bed, "now", "Immediate", json!({}));
    bed
}

fn is_refused(bed: &mut Bed, pod: &Arc<PodInfo>, words: &str) {
    let answer = bed.answer(pod);
    assert!(answer.contains(words), "{answer}");
}

#[test]
fn claims_that_cannot_be_used_are_named() {
    let mut bed = bed();
    let start = "0/2 nodes are available: ";
    let mut told = |name: &str, words: &str| {
        let answer = bed.answer(&uses("p", name));
        assert_eq!(answer, format!("{start}{words}. not found"));
    };
    told("none", "persistentvolumeclaim \"none\" not found");
    claim(&bed, "unbound", json!({"spec": {"storageClassName": "now"}}));
    claim(&bed, "classless", json!({"spec": {"storageClassName": null}}));
    claim(&bed, "lost", json!({"status": {"phase": "Lost"}, "spec": {"volumeName": "gone"}}));
    claim(&bed, "ends", json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}));
    for (name, words) in [
        ("unbound", "pod has unbound immediate PersistentVolumeClaims"),
        ("classless", "pod has unbound immediate PersistentVolumeClaims"),
        ("lost", "persistentvolumeclaim \"lost\" bound to non-existent persistentvolume \"gone\""),
        ("ends", "persistentvolumeclaim \"ends\" is being deleted"),
    ] {
        let answer = bed.answer(&uses("p", name));
        assert_eq!(answer, format!("{start}{words}. not found"), "{name}");
    }
    let ephemeral = pod("p", "1", json!({"spec": {"volumes": [{"name": "v", "ephemeral": {}}]}}));
    is_refused(
        &mut bed,
        &ephemeral,
        "waiting for ephemeral volume controller to create the \
        persistentvolumeclaim \"p-v\"",
    );
    claim(&bed, "p-v", json!({}));
    is_refused(
        &mut bed,
        &ephemeral,
        "PVC default/p-v was not created for pod default/p (pod is \
        not owner)",
    );
}

#[test]
fn bound_claims_pull_the_pod_to_their_volume() {
    let mut bed = bed();
    volume(&bed, "v", "b", "5Gi", json!({}));
    claim(&bed, "c", bound_to("v"));
    assert_eq!(bed.answer(&uses("p", "c")), "b");
    volume(&bed, "far", "elsewhere", "5Gi", json!({}));
    claim(&bed, "c2", bound_to("far"));
    is_refused(
        &mut bed,
        &uses("p", "c2"),
        "2 node(s) didn't match PersistentVolume's node affinity",
    );
    claim(&bed, "c3", bound_to("missing"));
    is_refused(&mut bed, &uses("p", "c3"), "persistentvolume \"missing\" not found");
}

#[test]
fn a_waiting_claim_gets_the_smallest_volume_that_will_do() {
    let mut bed = bed();
    volume(&bed, "small", "a", "1Gi", json!({}));
    volume(&bed, "large", "b", "50Gi", json!({}));
    volume(&bed, "right", "b", "8Gi", json!({}));
    volume(&bed, "block", "b", "6Gi", json!({"spec": {"volumeMode": "Block"}}));
    volume(
        &bed,
        "taken",
        "b",
        "6Gi",
        json!({"spec": {"claimRef": {"name": "x", "namespace": "n"}}}),
    );
    volume(&bed, "mode", "b", "6Gi", json!({"spec": {"accessModes": ["ReadOnlyMany"]}}));
    claim(&bed, "c", json!({}));
    class(
        &bed,
        "wait",
        "WaitForFirstConsumer",
        json!({"provisioner": "kubernetes.io/no-provisioner"}),
    );
    bed.update();
    let p = uses("p", "c");
    let decision = bed.search.schedule(&bed.profile, &mut bed.snapshot, &p);
    let mut decision = decision.unwrap_or_else(|f| panic!("{f:?}"));
    assert_eq!(&*decision.node, "b");
    bed.profile.reserve(&mut decision.state, &p, &decision.node).unwrap();
    let assumed = bed.listers.volumes.get("", "right").unwrap();
    let promised = assumed.spec.as_ref().unwrap().claim_ref.clone().unwrap();
    assert_eq!((promised.name.as_deref(), promised.uid.as_deref()), (Some("c"), Some("c")));
    assert_eq!(assumed.metadata.annotations.as_ref().unwrap()[BOUND_BY_CONTROLLER], "yes");
    // What one pod was promised, the next does not get; it gives it back if it is not bound.
    claim(&bed, "d", json!({}));
    bed.update();
    let q = uses("q", "d");
    let mut second = bed.search.schedule(&bed.profile, &mut bed.snapshot, &q).unwrap();
    bed.profile.reserve(&mut second.state, &q, &second.node).unwrap();
    assert!(
        bed.listers.volumes.get("", "large").unwrap().spec.as_ref().unwrap().claim_ref.is_some()
    );
    bed.profile.unreserve(&mut decision.state, &p, "b");
    assert!(
        bed.listers.volumes.get("", "right").unwrap().spec.as_ref().unwrap().claim_ref.is_none()
    );
}

#[test]
fn a_claim_without_a_volume_is_provisioned_for_the_node() {
    let mut bed = bed();
    claim(&bed, "c", json!({}));
    bed.update();
    let p = uses("p", "c");
    let mut decision = bed.search.schedule(&bed.profile, &mut bed.snapshot, &p).unwrap();
    let chosen = decision.node.clone();
    bed.profile.reserve(&mut decision.state, &p, &chosen).unwrap();
    let assumed = bed.listers.claims.get("default", "c").unwrap();
    assert_eq!(assumed.metadata.annotations.as_ref().unwrap()[SELECTED_NODE], *chosen);
    // A claim that was promised to a node stays there.
    claim(&bed, "d", json!({"metadata": {"annotations": {SELECTED_NODE: "b"}}}));
    assert_eq!(bed.answer(&uses("q", "d")), "b");
    claim(&bed, "e", json!({"metadata": {"annotations": {SELECTED_NODE: "gone"}}}));
    is_refused(
        &mut bed,
        &uses("q", "e"),
        "2 node(s) didn't find available persistent volumes to bind",
    );
}

#[test]
fn provisioning_heeds_topology_and_capacity() {
    let mut bed = bed();
    claim(&bed, "c", json!({}));
    let only_b = json!({"allowedTopologies": [{"matchLabelExpressions": [
        {"key": "topology.kubernetes.io/zone", "values": ["b"]}]}]});
    class(&bed, "wait", "WaitForFirstConsumer", only_b);
    assert_eq!(bed.answer(&uses("p", "c")), "b");
    class(&bed, "wait", "WaitForFirstConsumer", json!({}));
    let driver =
        json!({"metadata": {"name": "csi.example.com"}, "spec": {"storageCapacity": true}});
    bed.listers.csi_drivers.put(Arc::new(typed::<CSIDriver>(driver)));
    is_refused(&mut bed, &uses("p", "c"), "2 node(s) did not have enough free storage");
    let capacity = |size: &str| {
        Arc::new(typed::<CSIStorageCapacity>(json!({"metadata": {"name": "x", "namespace": "n"},
            "storageClassName": "wait", "capacity": size, "nodeTopology": {"matchLabels": {
                "topology.kubernetes.io/zone": "a"}}})))
    };
    bed.listers.capacities.put(capacity("1Gi"));
    is_refused(&mut bed, &uses("p", "c"), "2 node(s) did not have enough free storage");
    bed.listers.capacities.put(capacity("10Gi"));
    assert_eq!(bed.answer(&uses("p", "c")), "a");
}

#[test]
fn zones_limits_and_exclusive_claims_are_heeded() {
    let mut bed = bed();
    let anywhere = |zone: Value| {
        json!({"metadata": {"labels": zone}, "spec": {"nodeAffinity": null,
            "csi": {"driver": "csi.example.com", "volumeHandle": "h"}}})
    };
    volume(&bed, "v", "", "5Gi", anywhere(json!({"topology.kubernetes.io/zone": "b__c"})));
    claim(&bed, "c", bound_to("v"));
    assert_eq!(bed.answer(&uses("p", "c")), "b");
    volume(&bed, "w", "", "5Gi", anywhere(json!({"topology.kubernetes.io/zone": "z"})));
    claim(&bed, "d", bound_to("w"));
    is_refused(&mut bed, &uses("p", "d"), "2 node(s) had no available volume zone");
    // A driver's limit: what is attached without a pod counts, too.
    volume(
        &bed,
        "x",
        "",
        "5Gi",
        json!({"spec": {"nodeAffinity": null,
        "csi": {"driver": "csi.example.com", "volumeHandle": "x"}}}),
    );
    volume(
        &bed,
        "y",
        "",
        "5Gi",
        json!({"spec": {"nodeAffinity": null,
        "csi": {"driver": "csi.example.com", "volumeHandle": "y"}}}),
    );
    claim(&bed, "cx", bound_to("x"));
    claim(&bed, "cy", bound_to("y"));
    for name in ["a", "b"] {
        let limit = json!({"metadata": {"name": name}, "spec": {"drivers": [{"name":
            "csi.example.com", "nodeID": name, "allocatable": {"count": 1}}]}});
        bed.listers.csi_nodes.put(Arc::new(typed::<CSINode>(limit)));
    }
    bed.place("a", uses("there", "cx"));
    assert_eq!(bed.answer(&uses("p", "cy")), "b");
    assert_eq!(bed.answer(&uses("p", "cx")), "b", "an idle node is preferred");
    let attached = json!({"metadata": {"name": "va"}, "spec": {"attacher": "csi.example.com",
        "nodeName": "b", "source": {"persistentVolumeName": "w"}}, "status": {"attached": true}});
    bed.listers.attachments.put(Arc::new(typed::<VolumeAttachment>(attached)));
    is_refused(&mut bed, &uses("p", "cy"), "2 node(s) exceed max volume count");
    assert_eq!(bed.answer(&uses("p", "cx")), "a", "it is there already");
    // One pod at a time.
    claim(&bed, "one", json!({"spec": {"accessModes": ["ReadWriteOncePod"]}}));
    merge_bound(&bed, "one", "x");
    bed.place("a", uses("holder", "one"));
    is_refused(
        &mut bed,
        &uses("p", "one"),
        "2 node(s) unavailable due to PersistentVolumeClaim \
        with ReadWriteOncePod access mode already in-use by another pod",
    );
    let disk = |name: &str, read_only: bool| {
        pod(
            name,
            "100m",
            json!({"spec": {"volumes": [{"name": "d", "gcePersistentDisk":
            {"pdName": "d", "readOnly": read_only}}]}}),
        )
    };
    bed.place("a", disk("d1", false));
    assert_eq!(bed.answer(&disk("d2", false)), "b");
    bed.place("b", disk("d2", true));
    is_refused(&mut bed, &disk("d3", false), "2 node(s) had no available disk");
    assert_eq!(bed.answer(&disk("d3", true)), "b");
}

fn merge_bound(bed: &Bed, name: &str, volume: &str) {
    let mut value = bound_to(volume);
    merge(&mut value, &json!({"spec": {"accessModes": ["ReadWriteOncePod"]}}));
    claim(bed, name, value);
}
