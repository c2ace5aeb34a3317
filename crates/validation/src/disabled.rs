//! Fields of features that are off in v1.36 by default: dropped from what is sent, unless the object
//! uses them already.

use api::registry::Resource;
use serde_json::Value;

use crate::value::{items, items_mut};

const CONTAINERS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// Drops the fields of disabled features from an object that is created or replaces `old`.
pub fn drop_disabled(row: &Resource, object: &mut Value, old: Option<&Value>) {
    let spec_in_use = |key: &str| old.is_some_and(|old| !old["spec"][key].is_null());
    let row = row.current();
    match (row.group, row.name) {
        // CoordinatedLeaderElection
        ("coordination.k8s.io", "leases") => {
            for key in ["strategy", "preferredHolder"] {
                if !spec_in_use(key) {
                    remove(&mut object["spec"], key);
                }
            }
        }
        // CrossNamespaceVolumeDataSource
        ("", "persistentvolumeclaims") => {
            drop_data_source(&mut object["spec"], old.map(|old| &old["spec"]));
        }
        // VolumeLimitScaling
        ("storage.k8s.io", "csidrivers") if !spec_in_use("preventPodSchedulingIfMissing") => {
            remove(&mut object["spec"], "preventPodSchedulingIfMissing");
        }
        // Dynamic kubelet configuration, which is gone
        ("", "nodes") if !spec_in_use("configSource") => {
            remove(&mut object["spec"], "configSource");
            if old.is_none() {
                remove(&mut object["status"], "config");
            }
        }
        ("discovery.k8s.io", "endpointslices") => drop_topology(object, old),
        _ => {
            let Some(path) = template_path(row) else { return };
            let old = old.and_then(|old| old.pointer(path));
            if let Some(spec) = object.pointer_mut(path) {
                drop_from_pod(spec, old);
            }
        }
    }
}

/// Where a kind has a pod's spec.
fn template_path(row: &Resource) -> Option<&'static str> {
    Some(match (row.group, row.name) {
        ("", "pods") => "/spec",
        ("", "podtemplates") => "/template/spec",
        ("", "replicationcontrollers")
        | ("apps", "deployments" | "replicasets" | "statefulsets" | "daemonsets")
        | ("batch", "jobs") => "/spec/template/spec",
        ("batch", "cronjobs") => "/spec/jobTemplate/spec/template/spec",
        _ => return None,
    })
}

fn drop_from_pod(spec: &mut Value, old: Option<&Value>) {
    let uses = |test: fn(&Value) -> bool| old.is_some_and(test);
    // GenericWorkload
    if !uses(|old| !old["schedulingGroup"].is_null()) {
        remove(spec, "schedulingGroup");
    }
    // ContainerStopSignals
    if !uses(|old| containers(old).any(|c| !c["lifecycle"]["stopSignal"].is_null())) {
        CONTAINERS.iter().for_each(|list| items_mut(spec, list).for_each(drop_stop_signal));
    }
    // ClusterTrustBundleProjection, PodCertificateRequest
    for key in ["clusterTrustBundle", "podCertificate"] {
        let in_use = old.is_some_and(|old| sources(old).any(|source| !source[key].is_null()));
        if in_use {
            continue;
        }
        for volume in items_mut(spec, "volumes") {
            if let Some(projected) = volume.get_mut("projected") {
                items_mut(projected, "sources").for_each(|source| remove(source, key));
            }
        }
    }
}

fn containers(spec: &Value) -> impl Iterator<Item = &Value> {
    CONTAINERS.into_iter().flat_map(|list| items(spec, list))
}

fn sources(spec: &Value) -> impl Iterator<Item = &Value> {
    items(spec, "volumes").flat_map(|volume| items(&volume["projected"], "sources"))
}

fn drop_stop_signal(container: &mut Value) {
    let Some(lifecycle) = container.get_mut("lifecycle").and_then(Value::as_object_mut) else {
        return;
    };
    if lifecycle.remove("stopSignal").is_some_and(|signal| !signal.is_null())
        && lifecycle.is_empty()
    {
        remove(container, "lifecycle");
    }
}

/// A reference into another namespace, and its shadow that defaulting made.
fn drop_data_source(spec: &mut Value, old: Option<&Value>) {
    let elsewhere = spec["dataSourceRef"]["namespace"].as_str().is_some_and(|ns| !ns.is_empty());
    if elsewhere && old.is_none_or(|old| old["dataSourceRef"].is_null()) {
        remove(spec, "dataSourceRef");
    }
    // Sources of other kinds than these need a reference.
    let source = &spec["dataSource"];
    let claim = source["kind"] == "PersistentVolumeClaim"
        && source["apiGroup"].as_str().is_none_or(str::is_empty);
    let snapshot =
        source["kind"] == "VolumeSnapshot" && source["apiGroup"] == "snapshot.storage.k8s.io";
    let bare = source.is_object() && spec["dataSourceRef"].is_null();
    if bare && !claim && !snapshot && old.is_none_or(|old| old["dataSource"].is_null()) {
        remove(spec, "dataSource");
    }
}

/// v1 has no topology but what it keeps of older versions. Its hostname becomes the node's name when
/// the slice named that node before.
fn drop_topology(slice: &mut Value, old: Option<&Value>) {
    const HOST: &str = "kubernetes.io/hostname";
    let (slices, old) = (slice, old.unwrap_or(&Value::Null));
    if slices["endpoints"] == old["endpoints"] {
        return;
    }
    for endpoint in items_mut(slices, "endpoints") {
        let host = endpoint["deprecatedTopology"][HOST].clone();
        let known =
            |e: &Value| e["nodeName"].is_null() && e["deprecatedTopology"].get(HOST) == Some(&host);
        let named = host.as_str().is_some_and(|h| api::names::dns_subdomain(h).is_empty());
        if endpoint["nodeName"].is_null() && named && items(old, "endpoints").any(known) {
            endpoint["nodeName"] = host;
        }
        remove(endpoint, "deprecatedTopology");
    }
}

fn remove(object: &mut Value, key: &str) {
    if let Some(map) = object.as_object_mut() {
        map.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use api::registry::Registry;
    use serde_json::json;

    use super::*;

    fn dropped(group: &str, name: &str, mut object: Value, old: Option<&Value>) -> Value {
        let row = Registry::built_in().find(group, "v1", name, "").expect("built in");
        drop_disabled(row, &mut object, old);
        object
    }

    #[test]
    fn fields_of_pods_go_unless_in_use() {
        let spec = json!({"schedulingGroup": {}, "containers": [
            {"lifecycle": {"stopSignal": "SIGTERM"}}, {"lifecycle": {"stopSignal": "SIGTERM", "preStop": {}}}],
            "volumes": [{"projected": {"sources": [{"clusterTrustBundle": {}}, {"podCertificate": {}}]}}]});
        let pod = json!({"spec": spec});
        let left = json!({"spec": {"containers": [{}, {"lifecycle": {"preStop": {}}}],
            "volumes": [{"projected": {"sources": [{}, {}]}}]}});
        assert_eq!(dropped("", "pods", pod.clone(), None), left);
        assert_eq!(dropped("", "pods", pod.clone(), Some(&pod)), pod);
        let set = json!({"spec": {"template": {"spec": spec}}});
        assert_eq!(dropped("apps", "deployments", set, None)["spec"]["template"], left);
    }

    #[test]
    fn other_fields_go_unless_in_use() {
        let lease = json!({"spec": {"strategy": "x", "preferredHolder": "y"}});
        assert_eq!(
            dropped("coordination.k8s.io", "leases", lease.clone(), None),
            json!({"spec": {}})
        );
        assert_eq!(dropped("coordination.k8s.io", "leases", lease.clone(), Some(&lease)), lease);
        let driver = json!({"spec": {"preventPodSchedulingIfMissing": true}});
        assert_eq!(dropped("storage.k8s.io", "csidrivers", driver, None), json!({"spec": {}}));
        let node = json!({"spec": {"configSource": {}}, "status": {"config": {}}});
        assert_eq!(dropped("", "nodes", node, None), json!({"spec": {}, "status": {}}));
    }

    #[test]
    fn claims_lose_foreign_sources() {
        let claim = |spec: Value| {
            dropped("", "persistentvolumeclaims", json!({"spec": spec}), None)["spec"].clone()
        };
        assert_eq!(claim(json!({"dataSourceRef": {"kind": "K", "namespace": "n"}})), json!({}));
        assert_eq!(claim(json!({"dataSource": {"kind": "Odd", "apiGroup": "g"}})), json!({}));
        let both = json!({"dataSource": {"kind": "Odd"}, "dataSourceRef": {"kind": "Odd"}});
        assert_eq!(claim(both.clone()), both);
        let snapshot = json!({"dataSource": {"kind": "VolumeSnapshot", "apiGroup": "snapshot.storage.k8s.io"}});
        assert_eq!(claim(snapshot.clone()), snapshot);
    }

    #[test]
    fn slices_have_no_topology() {
        let old = json!({"endpoints": [{"deprecatedTopology": {"kubernetes.io/hostname": "n"}}]});
        let new = json!({"endpoints": [{"addresses": [], "deprecatedTopology": {"kubernetes.io/hostname": "n"}}, {"deprecatedTopology": {"kubernetes.io/hostname": "m"}}]});
        let slice = |old| dropped("discovery.k8s.io", "endpointslices", new.clone(), old);
        assert_eq!(slice(Some(&old))["endpoints"], json!([{"addresses": [], "nodeName": "n"}, {}]));
        assert_eq!(slice(None)["endpoints"], json!([{"addresses": []}, {}]));
        assert_eq!(slice(Some(&new)), new);
    }
}
