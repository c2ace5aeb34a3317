//! Which claims are made, reserved, freed and given up.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceClaimTemplate};
use serde_json::{Value, json};

use super::Work;
use super::consumers::{Gone, is_done};
use super::plan::{Need, names, need, reserved, statuses, work};
use super::release::{freed, owning_pod, without_finalizer};

fn pod(status: Value) -> Pod {
    serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "pu"},
        "spec": {"containers": [], "nodeName": "a", "resourceClaims": [
            {"name": "own", "resourceClaimName": "given"},
            {"name": "made", "resourceClaimTemplateName": "t"}]}, "status": status}))
    .unwrap()
}

fn claim(extra: Value) -> Arc<ResourceClaim> {
    let mut value = json!({"metadata": {"name": "p-made-x", "namespace": "n", "uid": "cu",
        "annotations": {"resource.kubernetes.io/pod-claim-name": "made"},
        "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "pu",
            "controller": true}]}, "spec": {}});
    for (key, part) in extra.as_object().unwrap() {
        for (field, content) in part.as_object().unwrap() {
            value[key][field] = content.clone();
        }
    }
    Arc::new(serde_json::from_value(value).unwrap())
}

fn template() -> Arc<ResourceClaimTemplate> {
    Arc::new(
        serde_json::from_value(json!({"metadata": {"name": "t"}, "spec": {
            "metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}},
            "spec": {"devices": {"requests": [{"name": "r"}]}}}}))
        .unwrap(),
    )
}

/// What the second entry needs.
fn made(
    pod: &Pod,
    claims: &[Arc<ResourceClaim>],
    owned: &[Arc<ResourceClaim>],
    template: Option<Arc<ResourceClaimTemplate>>,
) -> Result<Need, String> {
    let entry = &pod.spec.as_ref().unwrap().resource_claims.as_ref().unwrap()[1];
    let find =
        |name: &str| claims.iter().find(|c| c.metadata.name.as_deref() == Some(name)).cloned();
    need(pod, entry, find, || owned.to_vec(), |_| template.clone())
}

fn named() -> Value {
    json!({"resourceClaimStatuses": [{"name": "made", "resourceClaimName": "p-made-x"}]})
}

#[test]
fn a_template_makes_one_claim() {
    let Ok(Need::Create(new)) = made(&pod(json!({})), &[], &[], Some(template())) else { panic!() };
    let meta = &new.metadata;
    assert_eq!(meta.generate_name.as_deref(), Some("p-made-"));
    assert_eq!(meta.labels.as_ref().unwrap()["a"], "b");
    let annotations = meta.annotations.as_ref().unwrap();
    assert_eq!(annotations["resource.kubernetes.io/pod-claim-name"], "made");
    assert_eq!(annotations["c"], "d");
    let owner = &meta.owner_references.as_ref().unwrap()[0];
    assert_eq!((owner.uid.as_str(), owner.block_owner_deletion), ("pu", None));
    assert!(new.spec.devices.is_some());
    // What was made and not named yet is named; what is named and there is enough.
    let name = Ok(Need::Name("p-made-x".into()));
    assert_eq!(made(&pod(json!({})), &[], &[claim(json!({}))], Some(template())), name);
    assert_eq!(made(&pod(named()), &[claim(json!({}))], &[], None), name);
    // One that was deleted, or is another's, is made anew.
    assert!(matches!(made(&pod(named()), &[], &[], Some(template())), Ok(Need::Create(_))));
    let foreign = claim(json!({"metadata": {"ownerReferences": []}}));
    assert!(matches!(made(&pod(named()), &[foreign], &[], Some(template())), Ok(Need::Create(_))));
    let unneeded = json!({"resourceClaimStatuses": [{"name": "made"}]});
    assert_eq!(made(&pod(unneeded), &[], &[], Some(template())), Ok(Need::Nothing));
}

#[test]
fn a_template_must_exist() {
    assert_eq!(
        made(&pod(json!({})), &[], &[], None).unwrap_err(),
        "resource claim template \"t\": resourceclaimtemplate.resource.k8s.io \"t\" not found"
    );
}

#[test]
fn long_names_keep_something_of_both() {
    let mut long = pod(json!({}));
    long.metadata.name = Some("p".repeat(100));
    let Ok(Need::Create(new)) = made(&long, &[], &[], Some(template())) else { panic!() };
    let base = new.metadata.generate_name.clone().unwrap();
    assert!(base.len() <= 57 && base.ends_with("-ma"), "{base}");
}

#[test]
fn the_status_names_all_generated_claims() {
    let generated = BTreeMap::from([("made".to_owned(), "p-made-x".to_owned())]);
    assert_eq!(statuses(&pod(json!({})), &generated), Some(generated.clone()));
    assert_eq!(statuses(&pod(named()), &generated), None);
    assert_eq!(statuses(&pod(named()), &BTreeMap::new()), None);
    assert_eq!(names(&pod(json!({})), &generated), ["given", "p-made-x"]);
}

#[test]
fn pods_that_were_bound_get_their_reservation() {
    let allocated = claim(json!({"status": {"allocation": {}}}));
    let new = reserved(&pod(named()), &allocated).unwrap();
    let consumer = &new.status.as_ref().unwrap().reserved_for.as_ref().unwrap()[0];
    assert_eq!((consumer.resource.as_str(), consumer.uid.as_str()), ("pods", "pu"));
    assert!(reserved(&pod(named()), &new).is_none());
    assert!(reserved(&pod(named()), &claim(json!({}))).is_none());
}

fn held(allocated: bool, extra: Value) -> Arc<ResourceClaim> {
    let mut status = json!({"reservedFor": [{"resource": "pods", "name": "p", "uid": "pu"}]});
    if allocated {
        status["allocation"] = json!({});
    }
    let mut value = json!({"status": status, "metadata": {
        "finalizers": ["resource.kubernetes.io/delete-protection"]}});
    for (key, content) in extra.as_object().unwrap() {
        value["metadata"][key] = content.clone();
    }
    claim(value)
}

#[test]
fn the_last_consumer_takes_the_devices_along() {
    let held = held(true, json!({}));
    let kept = held.status.as_ref().unwrap().reserved_for.clone().unwrap();
    assert!(freed(&held, kept).is_none());
    let free = freed(&held, Vec::new()).unwrap();
    let status = free.status.as_ref().unwrap();
    assert!(status.allocation.is_none() && status.reserved_for.is_none());
    let open = without_finalizer(&held, &free).unwrap();
    assert_eq!(open.metadata.finalizers, Some(Vec::new()));
}

#[test]
fn a_claim_on_its_way_to_devices_keeps_its_finalizer() {
    // The scheduler has written the finalizer, and not yet the allocation.
    let finalizers = json!({"finalizers": ["resource.kubernetes.io/delete-protection"]});
    let fresh = claim(json!({"metadata": finalizers}));
    assert!(freed(&fresh, Vec::new()).is_none());
    assert!(without_finalizer(&fresh, &fresh).is_none());
    // Devices that nobody reserved stay, until the claim ends.
    let idle = json!({"metadata": finalizers, "status": {"allocation": {}}});
    assert!(freed(&claim(idle.clone()), Vec::new()).is_none());
    let mut ending = idle;
    ending["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    let ending = claim(ending);
    let free = freed(&ending, Vec::new()).unwrap();
    assert!(free.status.as_ref().unwrap().allocation.is_none());
    assert!(without_finalizer(&ending, &free).is_some());
}

#[test]
fn claims_know_the_pod_they_were_made_for() {
    assert_eq!(owning_pod(&claim(json!({}))), Some(("p", "pu")));
    assert_eq!(owning_pod(&claim(json!({"metadata": {"ownerReferences": []}}))), None);
}

fn looked_at(pod: &Pod, deleted: bool) -> Vec<Work> {
    let mut all = Vec::new();
    work(pod, deleted, |one| all.push(one));
    all
}

#[test]
fn pods_that_are_done_let_their_claims_be_looked_at() {
    let key = |name: &str| ("n".to_owned(), name.to_owned());
    let claims = [Work::Claim(key("given")), Work::Claim(key("p-made-x")), Work::Pod(key("p"))];
    assert_eq!(looked_at(&pod(named()), false), [Work::Pod(key("p"))]);
    assert_eq!(looked_at(&pod(named()), true), claims);
    let mut done = named();
    done["phase"] = "Succeeded".into();
    assert!(is_done(&pod(done.clone())));
    assert_eq!(looked_at(&pod(done), false), claims);
    let extended = json!({"phase": "Failed", "extendedResourceClaimStatus":
        {"resourceClaimName": "p-extended", "requestMappings": []}});
    let mut plain = pod(extended);
    plain.spec.as_mut().unwrap().resource_claims = None;
    assert_eq!(looked_at(&plain, false), [Work::Claim(key("p-extended"))]);
    plain.status = None;
    assert_eq!(looked_at(&plain, true), []);
}

#[test]
fn only_the_latest_that_went_are_remembered() {
    let gone = Gone::default();
    (0..600).for_each(|n| gone.add(&n.to_string()));
    assert!(!gone.has("0") && gone.has("599"));
}
