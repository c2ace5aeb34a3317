//! Binding conditions: devices that have to be made ready for the node before a pod is bound to it.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::resource::v1::{DeviceRequestAllocationResult, ResourceClaim};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use tokio::time::Instant;

use crate::ledger::allocation;
use crate::store::Listers;

fn results(claim: &ResourceClaim) -> impl Iterator<Item = &DeviceRequestAllocationResult> {
    let devices = allocation(claim).and_then(|a| a.devices.as_ref());
    let results = devices.into_iter().flat_map(|d| d.results.iter().flatten());
    results.filter(|r| r.binding_conditions.as_ref().is_some_and(|all| !all.is_empty()))
}

/// The device's conditions, as its driver reports them.
fn reported<'a>(
    claim: &'a ResourceClaim,
    result: &DeviceRequestAllocationResult,
) -> &'a [Condition] {
    let devices = claim.status.as_ref().and_then(|s| s.devices.as_deref()).unwrap_or_default();
    let own = devices.iter().find(|d| {
        (&d.driver, &d.pool, &d.device) == (&result.driver, &result.pool, &result.device)
    });
    own.and_then(|d| d.conditions.as_deref()).unwrap_or_default()
}

fn is_true(conditions: &[Condition], kind: &str) -> bool {
    conditions.iter().any(|c| c.type_ == kind && c.status == "True")
}

/// Whether all devices of the claim are ready; an error if one cannot be made ready.
pub(super) fn is_ready(claim: &ResourceClaim) -> Result<bool, String> {
    if allocation(claim).is_none() {
        return Ok(false);
    }
    for result in results(claim) {
        let conditions = reported(claim, result);
        let failures = result.binding_failure_conditions.as_deref().unwrap_or_default();
        let failed = conditions.iter().find(|c| c.status == "True" && failures.contains(&c.type_));
        if let Some(failed) = failed {
            return Err(format!(
                "device binding failed: claim={}, reason={}, message={:?}",
                claim.metadata.name.as_deref().unwrap_or(""),
                failed.reason,
                failed.message
            ));
        }
        let wanted = result.binding_conditions.as_deref().unwrap_or_default();
        if !wanted.iter().all(|kind| is_true(conditions, kind)) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether the claim's devices were allocated so long ago that nobody waits for them any more.
fn is_overdue(claim: &ResourceClaim, patience: Duration, now: Timestamp) -> bool {
    let since = allocation(claim).and_then(|a| a.allocation_timestamp.as_ref());
    let patience = SignedDuration::try_from(patience).unwrap_or(SignedDuration::MAX);
    results(claim).next().is_some()
        && since.is_some_and(|since| now.duration_since(since.0) > patience)
}

/// Whether the claim's devices will not be ready: other devices may do.
pub(super) fn is_lost(claim: &ResourceClaim, patience: Duration, now: Timestamp) -> bool {
    match is_ready(claim) {
        Err(_) => true,
        Ok(ready) => !ready && is_overdue(claim, patience, now),
    }
}

/// Waits until all devices are ready.
pub(super) async fn wait(
    listers: &Listers,
    claims: &[Arc<ResourceClaim>],
    patience: Duration,
) -> Result<(), String> {
    if !claims.iter().any(|claim| results(claim).next().is_some()) {
        return Ok(());
    }
    let end = Instant::now() + patience;
    let mut changes = listers.resource_claims.changes();
    while !are_ready(listers, claims, patience)? {
        if tokio::time::timeout_at(end, changes.changed()).await.is_err() {
            return Err("device binding timeout: context deadline exceeded".into());
        }
    }
    Ok(())
}

fn are_ready(
    listers: &Listers,
    claims: &[Arc<ResourceClaim>],
    patience: Duration,
) -> Result<bool, String> {
    for claim in claims {
        let space = claim.metadata.namespace.as_deref().unwrap_or("");
        let name = claim.metadata.name.as_deref().unwrap_or("");
        let Some(told) = listers.resource_claims.get(space, name) else {
            return Err(format!("could not find ResourceClaim \"{space}/{name}\""));
        };
        let latest = listers.ledger.latest(told);
        if !is_ready(&latest)? {
            if is_overdue(&latest, patience, Timestamp::now()) {
                return Err(format!("device binding timeout: claim={name}"));
            }
            return Ok(false);
        }
    }
    Ok(true)
}
