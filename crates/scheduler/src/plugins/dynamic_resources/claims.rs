//! The claims of a pod, as the informers tell and as our own writes left them.

use std::sync::Arc;

use devices::claim_name;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::ResourceClaim;

use super::DynamicResources;
use crate::ledger::allocation;

/// `namespace/name`.
pub(super) fn key(claim: &ResourceClaim) -> String {
    let text = |of: &Option<String>| of.clone().unwrap_or_default();
    format!("{}/{}", text(&claim.metadata.namespace), text(&claim.metadata.name))
}

pub(super) fn has_alternatives(claim: &ResourceClaim) -> bool {
    let devices = claim.spec.devices.iter();
    devices.flat_map(|d| d.requests.iter().flatten()).any(|r| r.first_available.is_some())
}

/// Whether nobody but this pod holds the claim.
pub(super) fn can_be_deallocated(claim: &ResourceClaim, pod_uid: &str) -> bool {
    let reserved = claim.status.as_ref().and_then(|s| s.reserved_for.as_deref());
    match reserved.unwrap_or_default() {
        [] => true,
        [one] => one.uid == pod_uid,
        _ => false,
    }
}

impl DynamicResources {
    /// The claims of the pod, or what it waits for, in upstream's words.
    pub(super) fn claims(&self, pod: &Pod) -> Result<Vec<Arc<ResourceClaim>>, String> {
        let entries = pod.spec.as_ref().and_then(|s| s.resource_claims.as_deref());
        let space = pod.metadata.namespace.as_deref().unwrap_or("");
        let mut claims = Vec::new();
        for entry in entries.unwrap_or_default() {
            let named = claim_name(pod, entry).map_err(|why| why.to_string())?;
            let Some(name) = named.name() else { continue };
            let told = self.listers.resource_claims.get(space, name);
            let claim = told
                .map(|told| self.listers.ledger.latest(told))
                .ok_or_else(|| format!("could not find ResourceClaim \"{space}/{name}\""))?;
            if claim.metadata.deletion_timestamp.is_some() {
                return Err(format!("resourceclaim {name:?} is being deleted"));
            }
            if matches!(named, devices::ClaimName::Generated(_)) {
                devices::is_for_pod(pod, &claim)?;
            }
            claims.push(claim);
        }
        Ok(claims)
    }

    /// Whether all classes that the claim names exist.
    pub(super) fn check_classes(&self, claim: &ResourceClaim) -> Result<(), String> {
        let requests = claim.spec.devices.iter().flat_map(|d| d.requests.iter().flatten());
        for request in requests {
            let alternatives = request.first_available.iter().flatten();
            let mut named: Vec<(String, &str)> = alternatives
                .map(|a| (format!("{}/{}", request.name, a.name), a.device_class_name.as_str()))
                .collect();
            let exact = request.exactly.as_ref();
            named.extend(exact.map(|e| (request.name.clone(), e.device_class_name.as_str())));
            if named.is_empty() {
                let (claim, name) = (key(claim), &request.name);
                return Err(format!(
                    "resource claim {claim}, request {name}: unknown request type"
                ));
            }
            for (name, class) in named {
                if self.listers.device_classes.get("", class).is_none() {
                    return Err(format!("request {name}: device class {class} does not exist"));
                }
            }
        }
        Ok(())
    }

    /// Whether the change of a claim may let the pod be scheduled: devices became free, or the claim that it
    /// waits for is there or has another status.
    pub(super) fn helps(
        &self,
        pod: &Pod,
        old: Option<&ResourceClaim>,
        new: &ResourceClaim,
    ) -> bool {
        let Ok(claims) = self.claims(pod) else { return false };
        if old.is_some_and(|old| allocation(old).is_some()) && allocation(new).is_none() {
            return true;
        }
        let is_used = claims.iter().any(|claim| claim.metadata.uid == new.metadata.uid);
        is_used && old.is_none_or(|old| old.status != new.status)
    }
}
