//! What a pod's spec must be: objects in, faults out.

use serde_json::{Value, json};

use super::check_spec;
use crate::check::Check;

fn faults(change: impl FnOnce(&mut Value)) -> Vec<String> {
    let mut spec = json!({
        "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "terminationGracePeriodSeconds": 30,
        "securityContext": {},
        "containers": [{
            "name": "c", "image": "i", "imagePullPolicy": "Always",
            "terminationMessagePolicy": "File", "resources": {},
        }],
    });
    change(&mut spec);
    let object = json!({"spec": spec});
    let check = Check::default();
    let root = check.root(&object, None);
    check_spec(&root.get("spec"), Some("p"), false);
    check.into_causes().iter().map(|c| format!("{}: {}", c.field, c.message)).collect()
}

#[test]
fn a_plain_pod_has_no_faults() {
    assert_eq!(faults(|_| {}), [""; 0]);
}

#[test]
fn a_volume_has_one_source() {
    let two = faults(|s| {
        s["volumes"] = json!([{"name": "v", "emptyDir": {}, "cephfs": {"monitors": ["m"]}}])
    });
    assert_eq!(two, ["spec.volumes[0].cephFS: Forbidden: may not specify more than 1 volume type"]);
    let none = faults(|s| s["volumes"] = json!([{"name": "v"}]));
    assert_eq!(none, ["spec.volumes[0]: Required value: must specify a volume type"]);
}

#[test]
fn mounts_are_of_sound_volumes() {
    let found = faults(|s| {
        s["volumes"] = json!([{"name": "v"}]);
        s["containers"][0]["volumeMounts"] =
            json!([{"name": "v", "mountPath": "/v", "subPath": "../x"}]);
    });
    assert_eq!(found[1], "spec.containers[0].volumeMounts[0].name: Not found: \"v\"");
    assert_eq!(
        found[2],
        "spec.containers[0].volumeMounts.subPath: Invalid value: \"../x\": must not contain '..'"
    );
}

#[test]
fn extended_resources_are_whole_and_limited() {
    let found = faults(|s| {
        s["containers"][0]["resources"] = json!({"requests": {"example.com/gpu": "1500m"}});
    });
    assert_eq!(
        found,
        [
            "spec.containers[0].resources.requests[example.com/gpu]: Invalid value: \"1500m\": must be an integer",
            "spec.containers[0].resources.limits: Required value: Limit must be set for non overcommitable resources",
        ]
    );
}

#[test]
fn init_containers_without_always_have_no_probes() {
    let found = faults(|s| {
        let mut init = s["containers"][0].clone();
        init["name"] = "i".into();
        init["lifecycle"] = json!({});
        s["initContainers"] = json!([init]);
    });
    assert_eq!(
        found,
        [
            "spec.initContainers[0].lifecycle: Forbidden: may not be set for init containers without restartPolicy=Always"
        ]
    );
}

#[test]
fn a_sleep_is_within_the_grace() {
    let found = faults(|s| {
        s["containers"][0]["lifecycle"] = json!({"preStop": {"sleep": {"seconds": 31}}});
    });
    assert_eq!(
        found,
        [
            "spec.containers[0].lifecycle.preStop.sleep: Invalid value: 31: must be non-negative and less than terminationGracePeriodSeconds (30)"
        ]
    );
}

#[test]
fn windows_pods_have_no_linux_fields() {
    let found = faults(|s| {
        s["os"] = json!({"name": "windows"});
        s["hostPID"] = true.into();
        s["containers"][0]["securityContext"] = json!({"privileged": false});
    });
    assert_eq!(
        found,
        [
            "spec.hostPID: Forbidden: cannot be set for a windows pod",
            "spec.containers[0].securityContext.privileged: Forbidden: cannot be set for a windows pod",
        ]
    );
}

#[test]
fn projected_paths_do_not_collide() {
    let found = faults(|s| {
        let item = json!({"key": "k", "path": "p"});
        s["volumes"] = json!([{"name": "v", "projected": {"sources": [
            {"secret": {"name": "s", "items": [item]}},
            {"configMap": {"name": "c", "items": [item]}},
        ]}}]);
    });
    assert_eq!(
        found,
        ["spec.volumes[0].projected: Invalid value: \"c\": conflicting duplicate paths"]
    );
}
