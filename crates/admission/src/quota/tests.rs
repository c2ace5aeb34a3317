//! What things cost, and when that is refused.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Measured, Request, amounts, charge, resource_of, same, to_json};

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn usage(resource: &str, object: &Value) -> Value {
    to_json(&Measured::of("", resource, object).usage(now()))
}

fn pod() -> Value {
    json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "resources": {
        "requests": {"cpu": "500m", "memory": "1Gi", "example.com/gpu": "2", "hugepages-2Mi": "4Mi"},
        "limits": {"cpu": "1", "example.com/gpu": "2", "hugepages-2Mi": "4Mi"}}}]}})
}

fn quota(hard: Value, used: Value) -> Value {
    json!({"metadata": {"name": "q"}, "spec": {"hard": hard}, "status": {"hard": hard, "used": used}})
}

fn create(resource: &str, object: &Value, quotas: &[Value]) -> Result<Vec<Option<Value>>, String> {
    let request = Request { group: "", resource, subresource: "", old: None, new: object };
    let charged = charge(quotas, &request, now())?;
    Ok(charged.into_iter().map(|used| used.map(|used| to_json(&used))).collect())
}

#[test]
fn names_tell_what_they_count() {
    let of = |name: &str| resource_of(name).map(|(g, r)| format!("{g}/{r}"));
    for (name, resource) in [
        ("limits.cpu", "/pods"),
        ("requests.example.com/gpu", "/pods"),
        ("requests.hugepages-1Gi", "/pods"),
        ("services.nodeports", "/services"),
        ("gold.storageclass.storage.k8s.io/requests.storage", "/persistentvolumeclaims"),
        ("count/deployments.apps", "apps/deployments"),
        ("count/widgets.a.example.com", "a.example.com/widgets"),
        ("count/pods", "/pods"),
        ("gpu.deviceclass.resource.k8s.io/devices", "resource.k8s.io/resourceclaims"),
    ] {
        assert_eq!(of(name).as_deref(), Some(resource), "{name}");
    }
    assert_eq!(of("requests.kubernetes.io/gpu"), None);
    assert_eq!(of("example.com/gpu"), None);
}

#[test]
fn pods_cost_what_they_ask_for_while_they_run() {
    let want = json!({"count/pods": "1", "pods": "1", "cpu": "500m", "requests.cpu": "500m",
        "memory": "1Gi", "requests.memory": "1Gi", "limits.cpu": "1", "hugepages-2Mi": "4Mi",
        "requests.hugepages-2Mi": "4Mi", "requests.example.com/gpu": "2"});
    assert_eq!(usage("pods", &pod()), want);
    let mut ended = pod();
    ended["status"]["phase"] = "Succeeded".into();
    assert_eq!(usage("pods", &ended), json!({"count/pods": "1"}));
    let mut ending = pod();
    ending["metadata"]["deletionTimestamp"] = "2025-12-31T23:59:50Z".into();
    ending["metadata"]["deletionGracePeriodSeconds"] = 30.into();
    assert_eq!(usage("pods", &ending), want);
    ending["metadata"]["deletionGracePeriodSeconds"] = 5.into();
    assert_eq!(usage("pods", &ending), json!({"count/pods": "1"}));
}

#[test]
fn pods_cost_what_they_have_while_they_are_resized() {
    let mut pod = pod();
    pod["spec"]["overhead"] = json!({"cpu": "100m"});
    pod["status"] = json!({"containerStatuses": [{"name": "c", "allocatedResources": {"cpu": "2"},
        "resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "3"}}}]});
    let usage = usage("pods", &pod);
    assert_eq!((&usage["cpu"], &usage["limits.cpu"]), (&json!("2100m"), &json!("3100m")));
}

#[test]
fn services_and_claims_cost_by_type_and_class() {
    let ports = json!([{"port": 1}, {"port": 2, "nodePort": 30000}]);
    let of = |kind: &str, allocate: bool| {
        let spec = json!({"type": kind, "ports": ports, "allocateLoadBalancerNodePorts": allocate});
        let usage = usage("services", &json!({"spec": spec}));
        [usage["services.nodeports"].clone(), usage["services.loadbalancers"].clone()]
    };
    assert_eq!(of("ClusterIP", true), ["0", "0"]);
    assert_eq!(of("NodePort", true), ["2", "0"]);
    assert_eq!(of("LoadBalancer", true), ["2", "1"]);
    assert_eq!(of("LoadBalancer", false), ["1", "1"]);
    let claim = json!({"spec": {"storageClassName": "gold", "resources": {"requests":
        {"storage": "1500m"}}}});
    let want = json!({"count/persistentvolumeclaims": "1", "persistentvolumeclaims": "1",
        "requests.storage": "2", "gold.storageclass.storage.k8s.io/persistentvolumeclaims": "1",
        "gold.storageclass.storage.k8s.io/requests.storage": "2"});
    assert_eq!(usage("persistentvolumeclaims", &claim), want);
}

#[test]
fn device_claims_cost_the_most_of_their_alternatives() {
    let claim = json!({"spec": {"devices": {"requests": [
        {"exactly": {"deviceClassName": "a", "allocationMode": "ExactCount", "count": 2}},
        {"firstAvailable": [
            {"deviceClassName": "a", "allocationMode": "ExactCount", "count": 1},
            {"deviceClassName": "b", "allocationMode": "All"}]}]}}});
    let usage = to_json(&Measured::of("resource.k8s.io", "resourceclaims", &claim).usage(now()));
    let want = json!({"count/resourceclaims.resource.k8s.io": "1",
        "a.deviceclass.resource.k8s.io/devices": "3",
        "b.deviceclass.resource.k8s.io/devices": "32"});
    assert_eq!(usage, want);
}

#[test]
fn scopes_choose_what_is_charged() {
    let fits = |pod: &Value, spec: Value| Measured::of("", "pods", pod).matches(&spec);
    let class = |operator: &str, values: Value| {
        json!({"scopeSelector": {"matchExpressions": [
            {"scopeName": "PriorityClass", "operator": operator, "values": values}]}})
    };
    let mut it = pod();
    assert!(fits(&it, json!({"scopes": ["NotTerminating", "NotBestEffort"]})));
    assert!(!fits(&it, json!({"scopes": ["NotTerminating", "BestEffort"]})));
    assert!(fits(&it, class("DoesNotExist", json!([]))) && fits(&it, class("NotIn", json!(["x"]))));
    it["spec"]["activeDeadlineSeconds"] = 1.into();
    it["spec"]["priorityClassName"] = "high".into();
    assert!(fits(&it, json!({"scopes": ["Terminating", "PriorityClass"]})));
    assert!(fits(&it, class("In", json!(["high"]))) && !fits(&it, class("NotIn", json!(["high"]))));
    assert!(!fits(&it, json!({"scopes": ["CrossNamespacePodAffinity"]})));
    it["spec"]["affinity"] = json!({"podAntiAffinity":
        {"preferredDuringSchedulingIgnoredDuringExecution": [
            {"podAffinityTerm": {"namespaceSelector": {}}}]}});
    assert!(fits(&it, json!({"scopes": ["CrossNamespacePodAffinity"]})));
    let claim = json!({"spec": {}, "status": {"currentVolumeAttributesClassName": "gold"}});
    let claim = Measured::of("", "persistentvolumeclaims", &claim);
    assert!(claim.matches(&json!({"scopes": ["VolumeAttributesClass"]})));
    assert!(!claim.matches(&json!({"scopes": ["Terminating"]})));
    assert!(!Measured::of("", "secrets", &json!({})).matches(&json!({"scopes": ["Terminating"]})));
}

#[test]
fn refusals_are_told_in_the_originals_words() {
    let full = quota(json!({"pods": "1", "cpu": "10"}), json!({"pods": "1", "cpu": "1"}));
    assert_eq!(
        create("pods", &pod(), &[full]).unwrap_err(),
        "exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1"
    );
    let bare = json!({"spec": {"containers": [{"name": "c"}], "initContainers": [{"name": "a"}]}});
    let compute =
        quota(json!({"limits.cpu": "1", "memory": "1"}), json!({"limits.cpu": "0", "memory": "0"}));
    assert_eq!(
        create("pods", &bare, &[compute]).unwrap_err(),
        "failed quota: q: must specify limits.cpu for: a,c; memory for: a,c"
    );
    let unknown = quota(json!({"count/pods": "1", "pods": "1"}), json!({"pods": "0"}));
    assert_eq!(
        create("pods", &bare, &[unknown]).unwrap_err(),
        "status unknown for quota: q, resources: count/pods,pods"
    );
    let odd = json!({"spec": {"resources": {"requests": {"storage": "-1"}}}});
    let storage = quota(json!({"requests.storage": "1"}), json!({"requests.storage": "0"}));
    assert_eq!(
        create("persistentvolumeclaims", &odd, &[storage]).unwrap_err(),
        "quota usage is negative for resource(s): requests.storage"
    );
}

#[test]
fn only_what_is_limited_is_charged() {
    let pods = quota(json!({"pods": "2"}), json!({"pods": "1"}));
    let secrets = quota(json!({"secrets": "1"}), json!({"secrets": "1"}));
    let charged = create("pods", &pod(), &[pods, secrets]).unwrap();
    assert_eq!(charged, [Some(json!({"pods": "2"})), None]);
}

#[test]
fn changes_cost_the_difference() {
    let claim = |size: &str| json!({"spec": {"resources": {"requests": {"storage": size}}}});
    let quota = quota(
        json!({"requests.storage": "3Gi", "persistentvolumeclaims": "1"}),
        json!({"requests.storage": "1Gi", "persistentvolumeclaims": "1"}),
    );
    let change = |from: &str, to: &str| {
        let (old, new) = (claim(from), claim(to));
        let resource = "persistentvolumeclaims";
        let request = Request { group: "", resource, subresource: "", old: Some(&old), new: &new };
        assert!(request.counts());
        charge(std::slice::from_ref(&quota), &request, now())
    };
    let used = change("1Gi", "3Gi").unwrap().remove(0).unwrap();
    let want = json!({"requests.storage": "3Gi", "persistentvolumeclaims": "1"});
    assert!(same(&used, &amounts(&want)));
    assert!(
        change("1Gi", "4Gi")
            .unwrap_err()
            .starts_with("exceeded quota: q, requested: requests.storage=3Gi")
    );
    assert_eq!(change("2Gi", "1Gi").unwrap(), [None]);
}

#[test]
fn a_pods_change_counts_when_its_scope_does() {
    let (old, mut new) = (pod(), pod());
    let counts = |new: &Value, subresource: &str| {
        Request { group: "", resource: "pods", subresource, old: Some(&old), new }.counts()
    };
    assert!(!counts(&new, "") && !counts(&new, "status") && counts(&new, "resize"));
    new["spec"]["activeDeadlineSeconds"] = 5.into();
    assert!(counts(&new, ""));
}
