//! What a pod's claims need.

use std::collections::BTreeMap;
use std::sync::Arc;

use devices::{ClaimName, POD_CLAIM_ANNOTATION, Unnamed, claim_name, is_for_pod, is_reserved_for};
use k8s_openapi::api::core::v1::{Pod, PodResourceClaim};
use k8s_openapi::api::resource::v1::{
    ResourceClaim, ResourceClaimConsumerReference, ResourceClaimTemplate,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::Work;
use super::consumers::is_done;
use crate::meta::{key, name, namespace, uid};

/// The longest name from which a name is generated: a hyphen and five characters follow.
const BASE_MAX: usize = 57;

/// What an entry of a pod's claims needs.
#[derive(Debug, PartialEq)]
pub(super) enum Need {
    Nothing,
    /// The pod's status names this generated claim, or shall.
    Name(String),
    Create(Box<ResourceClaim>),
}

/// What a pod's change is reason to look at.
pub(super) fn work(pod: &Pod, deleted: bool, mut add: impl FnMut(Work)) {
    let entries = pod.spec.as_ref().and_then(|s| s.resource_claims.as_deref());
    let entries = entries.unwrap_or_default();
    let extended = pod.status.as_ref().and_then(|s| s.extended_resource_claim_status.as_ref());
    if entries.is_empty() && extended.is_none() {
        return;
    }
    if deleted || is_done(pod) {
        let space = namespace(&pod.metadata);
        let named = entries.iter().filter_map(|entry| claim_name(pod, entry).ok()?.name());
        let extended = extended.map(|status| status.resource_claim_name.as_str());
        for claim in named.chain(extended) {
            add(Work::Claim((space.to_owned(), claim.to_owned())));
        }
    }
    if !entries.is_empty() {
        add(Work::Pod(key(pod)));
    }
}

/// `claim` and `template` find by name; `owned` are claims that the pod controls.
pub(super) fn need(
    pod: &Pod,
    entry: &PodResourceClaim,
    claim: impl Fn(&str) -> Option<Arc<ResourceClaim>>,
    owned: impl Fn() -> Vec<Arc<ResourceClaim>>,
    template: impl Fn(&str) -> Option<Arc<ResourceClaimTemplate>>,
) -> Result<Need, String> {
    match claim_name(pod, entry) {
        Err(why @ Unnamed::Unsupported(_)) => {
            return Err(format!("checking for claim before creating it: {why}"));
        }
        Ok(ClaimName::Given(_) | ClaimName::NotNeeded) => return Ok(Need::Nothing),
        // One that was deleted, or belongs to somebody else, is made anew.
        Ok(ClaimName::Generated(own)) => {
            if claim(own).is_some_and(|claim| is_for_pod(pod, &claim).is_ok()) {
                return Ok(Need::Name(own.to_owned()));
            }
        }
        Err(Unnamed::NotCreated(_)) => {}
    }
    let Some(wanted) = &entry.resource_claim_template_name else { return Ok(Need::Nothing) };
    // Made before, and the pod's status could not be written.
    let made_for = |claim: &&Arc<ResourceClaim>| {
        let annotations = claim.metadata.annotations.as_ref();
        annotations.and_then(|all| all.get(POD_CLAIM_ANNOTATION)) == Some(&entry.name)
    };
    if let Some(made) = owned().iter().find(made_for) {
        return Ok(Need::Name(name(&made.metadata).to_owned()));
    }
    let template = template(wanted).ok_or_else(|| {
        format!(
            "resource claim template {wanted:?}: resourceclaimtemplate.resource.k8s.io {wanted:?} \
             not found"
        )
    })?;
    Ok(Need::Create(Box::new(from_template(pod, entry, &template))))
}

fn from_template(
    pod: &Pod,
    entry: &PodResourceClaim,
    template: &ResourceClaimTemplate,
) -> ResourceClaim {
    let meta = template.spec.metadata.clone().unwrap_or_default();
    let mut annotations = meta.annotations.unwrap_or_default();
    annotations.insert(POD_CLAIM_ANNOTATION.into(), entry.name.clone());
    ResourceClaim {
        metadata: ObjectMeta {
            generate_name: Some(base(name(&pod.metadata), &entry.name)),
            namespace: pod.metadata.namespace.clone(),
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".into(),
                kind: "Pod".into(),
                name: name(&pod.metadata).into(),
                uid: uid(&pod.metadata).into(),
                controller: Some(true),
                block_owner_deletion: None,
            }]),
            annotations: Some(annotations),
            labels: meta.labels,
            ..ObjectMeta::default()
        },
        spec: template.spec.spec.clone(),
        status: None,
    }
}

/// `pod-entry-`; when that is too long, both are cut in proportion, so that something of both is left.
fn base(pod: &str, entry: &str) -> String {
    let whole = format!("{pod}-{entry}-");
    if whole.len() <= BASE_MAX {
        return whole;
    }
    let cut =
        |text: &str| text.chars().take(text.len() * BASE_MAX / whole.len()).collect::<String>();
    format!("{}-{}", cut(pod), cut(entry))
}

/// The names for the pod's status; none when it has them.
pub(super) fn statuses(
    pod: &Pod,
    names: &BTreeMap<String, String>,
) -> Option<BTreeMap<String, String>> {
    let status = pod.status.as_ref().and_then(|s| s.resource_claim_statuses.as_deref());
    let known: BTreeMap<String, String> = status
        .unwrap_or_default()
        .iter()
        .filter_map(|s| Some((s.name.clone(), s.resource_claim_name.clone()?)))
        .collect();
    let missing = names.iter().any(|(entry, claim)| known.get(entry) != Some(claim));
    missing.then(|| names.clone())
}

/// Names of all claims of the pod; `generated` by the entries they were made for.
pub(super) fn names<'a>(pod: &'a Pod, generated: &'a BTreeMap<String, String>) -> Vec<&'a str> {
    let entries = pod.spec.iter().flat_map(|s| s.resource_claims.iter().flatten());
    let name = |entry: &'a PodResourceClaim| {
        let generated = generated.get(&entry.name).map(String::as_str);
        entry.resource_claim_name.as_deref().or(generated)
    };
    entries.filter_map(name).collect()
}

/// The claim with the pod's reservation; none when it has it, or has no devices.
pub(super) fn reserved(pod: &Pod, claim: &ResourceClaim) -> Option<ResourceClaim> {
    let allocated = claim.status.as_ref().is_some_and(|s| s.allocation.is_some());
    if !allocated || is_reserved_for(claim, uid(&pod.metadata)) {
        return None;
    }
    let mut reserved = claim.clone();
    let status = reserved.status.get_or_insert_default();
    status.reserved_for.get_or_insert_default().push(ResourceClaimConsumerReference {
        api_group: None,
        resource: "pods".into(),
        name: name(&pod.metadata).into(),
        uid: uid(&pod.metadata).into(),
    });
    Some(reserved)
}
