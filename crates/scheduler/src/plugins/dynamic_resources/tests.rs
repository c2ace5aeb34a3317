//! Pods with claims: where they fit, what they wait for, what is promised.

use std::sync::Arc;

use k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim, ResourceSlice};
use serde_json::{Value, json};

use crate::algorithm::{Decision, Failure};
use crate::event::{Action, ClusterEvent, Object};
use crate::framework::Plugin;
use crate::pod::PodInfo;
use crate::testing::{Bed, merge, node, pod, typed};

const PLUGIN: &str = "DynamicResources";

/// Two nodes, of which `b` has a device of each name.
fn bed(devices: &[&str]) -> Bed {
    let bed = Bed::new(&[node("a", json!({})), node("b", json!({}))]);
    let devices: Value = devices.iter().map(|name| json!({"name": name})).collect();
    let slice = json!({"metadata": {"name": "s"}, "spec": {"driver": "d", "nodeName": "b",
        "pool": {"name": "p", "generation": 1, "resourceSliceCount": 1}, "devices": devices}});
    bed.listers.slices.put(&typed::<ResourceSlice>(slice));
    let class = json!({"metadata": {"name": "any"}, "spec": {}});
    bed.listers.device_classes.put(Arc::new(typed::<DeviceClass>(class)));
    bed
}

fn claim(name: &str, extra: Value) -> Arc<ResourceClaim> {
    let mut claim = json!({"metadata": {"name": name, "namespace": "default", "uid": name,
        "resourceVersion": "1"}, "spec": {"devices": {"requests": [{"name": "r", "exactly":
            {"deviceClassName": "any", "allocationMode": "ExactCount", "count": 1}}]}}});
    merge(&mut claim, &extra);
    Arc::new(typed(claim))
}

fn user(name: &str, claim: &str) -> Arc<PodInfo> {
    let entry = json!([{"name": "c", "resourceClaimName": claim}]);
    pod(name, "1", json!({"spec": {"resourceClaims": entry}}))
}

fn decide(bed: &mut Bed, pod: &Arc<PodInfo>) -> Decision {
    bed.update();
    match bed.search.schedule(&bed.profile, &mut bed.snapshot, pod) {
        Ok(decision) => decision,
        Err(Failure::Fit(fit)) => panic!("{}", fit.message()),
        Err(other) => panic!("{other:?}"),
    }
}

fn plugin(bed: &Bed) -> Arc<dyn Plugin> {
    bed.profile.plugins.iter().find(|p| p.name() == PLUGIN).unwrap().clone()
}

fn allocated(device: &str) -> Value {
    json!({"status": {"allocation": {"devices": {"results": [{"request": "r", "driver": "d",
        "pool": "p", "device": device}]}, "nodeSelector": {"nodeSelectorTerms": [{"matchFields": [
            {"key": "metadata.name", "operator": "In", "values": ["b"]}]}]}}}})
}

#[test]
fn a_pod_goes_where_its_devices_are() {
    let mut bed = bed(&["x"]);
    bed.listers.put_resource_claim(&claim("c", json!({})));
    assert_eq!(bed.answer(&user("p", "c")), "b");
}

#[test]
fn devices_that_are_promised_are_gone_until_they_are_given_back() {
    let mut bed = bed(&["x"]);
    bed.listers.put_resource_claim(&claim("c", json!({})));
    bed.listers.put_resource_claim(&claim("other", json!({})));
    let first = user("p", "c");
    let mut decision = decide(&mut bed, &first);
    bed.profile.reserve(&mut decision.state, &first, &decision.node).unwrap();
    // The claim itself is on its way; another finds no device.
    assert!(bed.answer(&user("q", "c")).starts_with(
        "0/2 nodes are available: resource claim default/c is in the process of being allocated."
    ));
    assert_eq!(
        bed.answer(&user("q", "other")),
        "0/2 nodes are available: 2 cannot allocate all claims. still not schedulable, preemption: \
         0/2 nodes are available: 2 Preemption is not helpful for scheduling."
    );
    bed.profile.unreserve(&mut decision.state, &first, &decision.node);
    assert_eq!(bed.answer(&user("q", "other")), "b");
}

#[test]
fn allocated_devices_are_not_given_twice() {
    let mut bed = bed(&["x", "y"]);
    bed.listers.put_resource_claim(&claim("taken", allocated("x")));
    bed.listers.put_resource_claim(&claim("c", json!({})));
    let first = user("p", "c");
    let mut decision = decide(&mut bed, &first);
    bed.profile.reserve(&mut decision.state, &first, &decision.node).unwrap();
    let state = decision.state.get::<super::State>().unwrap();
    let results = state.promised[&0].devices.as_ref().unwrap().results.as_ref().unwrap();
    assert_eq!(results[0].device, "y");
}

#[test]
fn a_claim_with_devices_keeps_its_pods_to_them() {
    let mut bed = bed(&[]);
    bed.listers.put_resource_claim(&claim("c", allocated("x")));
    assert_eq!(bed.answer(&user("p", "c")), "b");
    // Where they are of no use, they are given up, unless somebody else needs them.
    let mut only_a = json!({"spec": {"nodeName": null, "nodeSelector":
        {"kubernetes.io/hostname": "a"}, "resourceClaims": [{"name": "c",
            "resourceClaimName": "c"}]}});
    let refused = |bed: &mut Bed, pod: &Arc<PodInfo>| bed.answer(pod);
    let kept = pod("p", "1", only_a.take());
    let answer = refused(&mut bed, &kept);
    assert!(answer.contains("resourceclaim not available on the node"), "{answer}");
    assert!(answer.contains("deallocation of ResourceClaim completed"), "{answer}");
    let mut shared = allocated("x");
    shared["status"]["reservedFor"] = json!([{"resource": "pods", "name": "q", "uid": "q"}, {"resource": "pods", "name": "r",
            "uid": "r"}]);
    bed.listers.put_resource_claim(&claim("c", shared));
    let answer = refused(&mut bed, &kept);
    assert!(answer.contains("still not schedulable"), "{answer}");
}

#[test]
fn what_a_pod_waits_for_is_told_in_upstreams_words() {
    let mut bed = bed(&["x"]);
    let why = |bed: &mut Bed, pod: &Arc<PodInfo>| plugin(bed).pre_enqueue(pod).unwrap_err();
    assert_eq!(why(&mut bed, &user("p", "c")), "could not find ResourceClaim \"default/c\"");
    let ends = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
    bed.listers.put_resource_claim(&claim("c", ends));
    assert_eq!(why(&mut bed, &user("p", "c")), "resourceclaim \"c\" is being deleted");
    let template = json!({"spec": {"resourceClaims": [{"name": "c",
        "resourceClaimTemplateName": "t"}]}});
    let mut waiting = template.clone();
    assert_eq!(
        why(&mut bed, &pod("p", "1", waiting.take())),
        "pod \"default/p\": ResourceClaim not created yet"
    );
    let mut foreign = template;
    foreign["status"] = json!({"resourceClaimStatuses": [{"name": "c",
        "resourceClaimName": "given"}]});
    bed.listers.put_resource_claim(&claim("given", json!({})));
    assert_eq!(
        why(&mut bed, &pod("p", "1", foreign)),
        "ResourceClaim default/given was not created for Pod default/p (Pod is not owner)"
    );
    let classless = json!({"spec": {"devices": {"requests": [{"name": "r", "exactly":
        {"deviceClassName": "gone"}}]}}});
    bed.listers.put_resource_claim(&claim("d", classless));
    assert!(
        bed.answer(&user("p", "d"))
            .starts_with("0/2 nodes are available: request r: device class gone does not exist.")
    );
}

#[test]
fn a_broken_selector_is_an_error_and_not_a_rejection() {
    let mut bed = bed(&["x"]);
    let broken = json!({"spec": {"devices": {"requests": [{"name": "r", "exactly":
        {"deviceClassName": "any", "selectors": [{"cel": {"expression": "device.x"}}]}}]}}});
    bed.listers.put_resource_claim(&claim("c", broken));
    bed.update();
    match bed.search.schedule(&bed.profile, &mut bed.snapshot, &user("p", "c")) {
        Err(Failure::Error(why)) => assert!(
            why.starts_with(
                "running \"DynamicResources\" filter plugin: claim default/c: selector \
                #0: CEL compile error: "
            ),
            "{why}"
        ),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_node_with_the_better_alternative_wins() {
    let bed = &mut bed(&["x"]);
    let good = json!({"metadata": {"name": "t"}, "spec": {"driver": "d", "nodeName": "a",
        "pool": {"name": "q", "generation": 1, "resourceSliceCount": 1}, "devices": [
            {"name": "z", "attributes": {"good": {"bool": true}}}]}});
    bed.listers.slices.put(&typed::<ResourceSlice>(good));
    let alternative = |name: &str, expression: &str| {
        json!({"name": name, "deviceClassName": "any", "allocationMode": "ExactCount", "count": 1,
            "selectors": [{"cel": {"expression": expression}}]})
    };
    let mut either = (*claim("c", json!({}))).clone();
    either.spec.devices = typed(json!({"requests": [{"name": "r", "firstAvailable": [
        alternative("best", "\"good\" in device.attributes[\"d\"]"),
        alternative("rest", "true")]}]}));
    bed.listers.put_resource_claim(&Arc::new(either));
    assert_eq!(bed.answer(&user("p", "c")), "a");
}

#[test]
fn changes_of_claims_wake_whom_they_help() {
    let bed = bed(&["x"]);
    let free = claim("c", json!({}));
    bed.listers.put_resource_claim(&free);
    let taken = claim("other", allocated("x"));
    let waiting = user("p", "c");
    let event = |old: Option<&Arc<ResourceClaim>>, new: &Arc<ResourceClaim>| {
        let object = Object::ResourceClaim((old.cloned(), Some(new.clone())));
        plugin(&bed).queueing_hint(&waiting, &ClusterEvent::new(Action::UPDATE, object))
    };
    assert!(event(None, &free));
    assert!(event(Some(&taken), &claim("other", json!({}))));
    assert!(!event(Some(&claim("other", json!({}))), &taken));
    assert!(!event(Some(&free), &claim("c", json!({"metadata": {"labels": {"a": "b"}}}))));
    let reserved = json!({"status": {"reservedFor": [{"resource": "pods", "name": "q",
        "uid": "q"}]}});
    assert!(event(Some(&free), &claim("c", reserved)));
    assert!(!plugin(&bed).queueing_hint(
        &user("p", "gone"),
        &ClusterEvent::new(Action::UPDATE, Object::ResourceClaim((None, Some(free.clone()))))
    ));
}

fn conditional(conditions: Value) -> Arc<ResourceClaim> {
    let mut value = allocated("x");
    value["status"]["allocation"]["allocationTimestamp"] = "2026-01-01T00:00:00Z".into();
    value["status"]["allocation"]["devices"]["results"][0]["bindingConditions"] = json!(["ready"]);
    value["status"]["allocation"]["devices"]["results"][0]["bindingFailureConditions"] =
        json!(["broken"]);
    value["status"]["devices"] =
        json!([{"driver": "d", "pool": "p", "device": "x", "conditions": conditions}]);
    claim("c", value)
}

#[test]
fn devices_become_ready_or_are_lost() {
    use super::conditions::{is_lost, is_ready};
    let condition = |kind: &str, status: &str| {
        json!({"type": kind, "status": status, "reason": "Why", "message": "so",
            "lastTransitionTime": "2026-01-01T00:00:00Z"})
    };
    let waiting = conditional(json!([]));
    assert_eq!(is_ready(&waiting), Ok(false));
    assert_eq!(is_ready(&conditional(json!([condition("ready", "True")]))), Ok(true));
    let failed = conditional(json!([condition("ready", "True"), condition("broken", "True")]));
    assert_eq!(
        is_ready(&failed).unwrap_err(),
        "device binding failed: claim=c, reason=Why, message=\"so\""
    );
    let patience = std::time::Duration::from_secs(600);
    let lost = |claim: &ResourceClaim, now: &str| is_lost(claim, patience, now.parse().unwrap());
    assert!(lost(&failed, "2026-01-01T00:00:00Z"));
    assert!(!lost(&waiting, "2026-01-01T00:10:00Z"));
    assert!(lost(&waiting, "2026-01-01T00:10:01Z"));
}

#[test]
fn what_was_written_counts_before_the_informer_tells() {
    let bed = bed(&["x"]);
    let listers = &bed.listers;
    listers.put_resource_claim(&claim("c", json!({})));
    let mut written = allocated("x");
    written["metadata"] = json!({"resourceVersion": "3"});
    listers.ledger.written(&claim("c", written));
    let told = |version: &str| claim("c", json!({"metadata": {"resourceVersion": version}}));
    let latest =
        |version: &str| crate::ledger::allocation(&listers.ledger.latest(told(version))).is_some();
    assert!(latest("2") && !latest("4"));
    listers.put_resource_claim(&claim("other", json!({})));
    let mut bed = bed;
    assert!(bed.answer(&user("q", "other")).contains("cannot allocate all claims"));
    // Newer than what we wrote: the device is free again.
    bed.listers.put_resource_claim(&told("4"));
    assert_eq!(bed.answer(&user("q", "other")), "b");
}

fn gpu(extra: Value) -> Arc<PodInfo> {
    let mut spec = json!({"spec": {"containers": [{"name": "c", "resources": {"requests":
        {"cpu": "1", "example.com/gpu": "1"}}}]}});
    merge(&mut spec, &extra);
    pod("p", "1", spec)
}

fn backed(bed: &Bed) {
    let class = json!({"metadata": {"name": "gpus"}, "spec": {"extendedResourceName":
        "example.com/gpu"}});
    bed.listers.device_classes.put(Arc::new(typed::<DeviceClass>(class)));
}

#[test]
fn devices_stand_for_extended_resources_that_a_node_lacks() {
    let mut bed = bed(&["x"]);
    assert!(bed.answer(&gpu(json!({}))).contains("Insufficient example.com/gpu"));
    backed(&bed);
    bed.cache.renew_all();
    assert_eq!(bed.answer(&gpu(json!({}))), "b");
    let waiting = gpu(json!({}));
    let mut decision = decide(&mut bed, &waiting);
    bed.profile.reserve(&mut decision.state, &waiting, &decision.node).unwrap();
    let state = decision.state.get::<super::State>().unwrap();
    let promise = state.promise.as_ref().unwrap();
    let mapping = &promise.node_claim.mappings[0];
    assert_eq!(mapping.request_name, "container-0-request-1");
    assert_eq!(mapping.resource_name, "example.com/gpu");
    let results = promise.allocation.devices.as_ref().unwrap().results.as_ref().unwrap();
    assert_eq!(results[0].device, "x");
    // The device is promised: nobody else gets it.
    assert!(bed.answer(&gpu(json!({}))).contains("cannot allocate all claims"));
    bed.profile.unreserve(&mut decision.state, &waiting, &decision.node);
    assert_eq!(bed.answer(&gpu(json!({}))), "b");
}

#[test]
fn a_node_with_a_device_plugin_needs_no_claim() {
    let plugin = json!({"status": {"allocatable": {"example.com/gpu": "1"}}});
    let mut bed = Bed::new(&[node("a", plugin)]);
    backed(&bed);
    let waiting = gpu(json!({}));
    let mut decision = decide(&mut bed, &waiting);
    bed.profile.reserve(&mut decision.state, &waiting, &decision.node).unwrap();
    assert!(decision.state.get::<super::State>().unwrap().promise.is_none());
}

#[test]
fn a_claim_of_an_earlier_attempt_has_to_go_first() {
    let mut bed = bed(&["x"]);
    backed(&bed);
    let stale = json!({"metadata": {"annotations":
        {"resource.kubernetes.io/extended-resource-claim": "true"}, "ownerReferences": [
            {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "p", "controller": true}]}});
    bed.listers.put_resource_claim(&claim("stale", stale));
    let answer = bed.answer(&gpu(json!({})));
    assert!(answer.contains("2 cannot schedule extended resource claim"), "{answer}");
    assert!(answer.contains("deletion of ResourceClaim completed"), "{answer}");
}

#[test]
fn containers_share_requests_as_they_run() {
    let ask = |name: &str, count: &str, policy: Value| {
        json!({"name": name, "restartPolicy": policy, "resources": {"requests":
            {"example.com/gpu": count}}})
    };
    let spec = json!({"spec": {"initContainers": [ask("one", "1", Value::Null),
        ask("two", "4", Value::Null), ask("side", "1", json!("Always"))],
        "containers": [ask("main", "2", Value::Null)]}});
    let pod = pod("p", "1", spec);
    let backed = [("example.com/gpu", "gpus".to_owned())].into();
    let (requests, mappings) = super::extended::requests(&pod.pod, &backed);
    let counts: Vec<(&str, Option<i64>)> =
        requests.iter().map(|r| (r.name.as_str(), r.exactly.as_ref().unwrap().count)).collect();
    // The first uses what the sidecar will have; the second needs one more than all others will.
    assert_eq!(
        counts,
        [
            ("container-1-request-0", Some(1)),
            ("container-2-request-0", Some(1)),
            ("container-3-request-0", Some(2)),
        ]
    );
    let uses: Vec<(&str, &str)> =
        mappings.iter().map(|m| (m.container_name.as_str(), m.request_name.as_str())).collect();
    assert_eq!(
        uses,
        [
            ("side", "container-2-request-0"),
            ("main", "container-3-request-0"),
            ("one", "container-2-request-0"),
            ("two", "container-2-request-0"),
            ("two", "container-3-request-0"),
            ("two", "container-1-request-0"),
        ]
    );
}
