//! When a pod has to end because of its devices' taints.

use std::sync::Arc;

use devices::{ClaimName, claim_name, is_for_pod, is_reserved_for, tolerates};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::{
    DeviceRequestAllocationResult, DeviceTaint, DeviceToleration, ResourceClaim, ResourceSlice,
};

use crate::meta::{Key, namespace, uid};
use crate::pods;

const NO_EXECUTE: &str = "NoExecute";

pub(super) fn pool(driver: &str, pool: &str) -> String {
    format!("{driver}/{pool}")
}

pub(super) fn has_claims(pod: &Pod) -> bool {
    let listed = pod.spec.iter().flat_map(|s| s.resource_claims.iter().flatten()).next();
    listed.is_some() || extended(pod).is_some()
}

/// The claim that stands for the pod's extended resources. Upstream leaves its devices in use, though
/// `NoExecute` is to end every pod that does not tolerate it.
fn extended(pod: &Pod) -> Option<&str> {
    let status = pod.status.as_ref()?.extended_resource_claim_status.as_ref()?;
    Some(&status.resource_claim_name)
}

/// The devices that the claim has.
pub(super) fn results(
    claim: &ResourceClaim,
) -> impl Iterator<Item = &DeviceRequestAllocationResult> {
    let allocation = claim.status.as_ref().and_then(|s| s.allocation.as_ref());
    let devices = allocation.and_then(|a| a.devices.as_ref());
    devices.into_iter().flat_map(|d| d.results.iter().flatten())
}

/// The pods that the claim is reserved for.
pub(super) fn consumers(claim: &ResourceClaim) -> impl Iterator<Item = Key> + '_ {
    let space = namespace(&claim.metadata);
    let reserved = claim.status.as_ref().and_then(|s| s.reserved_for.as_deref());
    let pods = reserved.unwrap_or_default().iter().filter(|consumer| {
        consumer.api_group.as_deref().unwrap_or("").is_empty() && consumer.resource == "pods"
    });
    pods.map(move |consumer| (space.to_owned(), consumer.name.clone()))
}

fn evicts(taint: &&DeviceTaint) -> bool {
    taint.effect == NO_EXECUTE
}

/// The taints that end pods, by device.
pub(super) fn evicting(slice: &ResourceSlice) -> Vec<(&str, &DeviceTaint)> {
    let devices = slice.spec.devices.iter().flatten();
    let taints = devices.flat_map(|device| {
        let taints = device.taints.iter().flatten().filter(evicts);
        taints.map(|taint| (device.name.as_str(), taint))
    });
    taints.collect()
}

/// The time at which the pod must have ended; none if nothing is against it. A taint without a time counts
/// from `since` on.
pub(super) fn due(
    pod: &Pod,
    claim: impl Fn(&str) -> Option<Arc<ResourceClaim>>,
    slices: impl Fn(&str) -> Vec<Arc<ResourceSlice>>,
    since: Timestamp,
) -> Option<Timestamp> {
    // One that is on no node uses no device.
    if pods::node(pod).is_empty() {
        return None;
    }
    let entries = pod.spec.iter().flat_map(|s| s.resource_claims.iter().flatten());
    let listed = entries.filter_map(|entry| {
        let named = claim_name(pod, entry).ok()?;
        let claim = claim(named.name()?)?;
        let generated = matches!(named, ClaimName::Generated(_));
        (!generated || is_for_pod(pod, &claim).is_ok()).then_some(claim)
    });
    let claims = listed.chain(extended(pod).and_then(&claim));
    let reserved = claims.filter(|claim| is_reserved_for(claim, uid(&pod.metadata)));
    reserved.filter_map(|claim| due_of_claim(&claim, &slices, since)).min()
}

fn due_of_claim(
    claim: &ResourceClaim,
    slices: impl Fn(&str) -> Vec<Arc<ResourceSlice>>,
    since: Timestamp,
) -> Option<Timestamp> {
    let times = results(claim).filter_map(|result| {
        let pool = slices(&pool(&result.driver, &result.pool));
        // Slices of an older generation are of no account.
        let newest = pool.iter().map(|slice| slice.spec.pool.generation).max()?;
        let current = pool.iter().filter(|slice| slice.spec.pool.generation == newest);
        let mut devices = current.flat_map(|slice| slice.spec.devices.iter().flatten());
        let device = devices.find(|device| device.name == result.device)?;
        let tolerations = result.tolerations.as_deref().unwrap_or_default();
        let taints = device.taints.iter().flatten().filter(evicts);
        taints.filter_map(|taint| end(taint, tolerations, since)).min()
    });
    times.min()
}

/// When the taint ends the use of its device; none if it is tolerated for ever.
fn end(
    taint: &DeviceTaint,
    tolerations: &[DeviceToleration],
    since: Timestamp,
) -> Option<Timestamp> {
    let added = taint.time_added.as_ref().map_or(since, |time| time.0);
    let fitting = tolerations
        .iter()
        .filter(|t| t.effect.as_deref() == Some(NO_EXECUTE) && tolerates(t, taint));
    let mut shortest: Option<i64> = None;
    for toleration in fitting {
        let seconds = toleration.toleration_seconds?.max(0);
        shortest = Some(shortest.map_or(seconds, |shortest| shortest.min(seconds)));
    }
    let longer = SignedDuration::from_secs(shortest.unwrap_or(0));
    // An end beyond all times never comes.
    added.checked_add(longer).ok()
}
