//! Binding: what is assumed when a node is chosen, written before the pod is bound, and waited for.

use std::sync::Arc;
use std::time::Duration;

use client::{Client, Error, Patch};
use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim};
use serde_json::json;
use tokio::time::Instant;

use super::matching::is_promised;
use super::{BOUND_BY_CONTROLLER, NodePlan, SELECTED_NODE, is_fully_bound};
use crate::store::Listers;

/// Takes volumes and claims for what they will be, so that the next pod does not take them, too.
pub(super) fn assume(listers: &Listers, plan: NodePlan, node: &str) -> Result<NodePlan, String> {
    let mut done = NodePlan::default();
    for (claim, volume) in &plan.matched {
        let bound = Arc::new(bound_to(volume, claim));
        if !listers.volumes.assume(bound.clone()) {
            forget(listers, &done);
            return Err(format!("persistentvolume {:?} has changed", name(&volume.metadata)));
        }
        done.matched.push((claim.clone(), bound));
    }
    for claim in &plan.provisioned {
        let mut selected = (**claim).clone();
        let annotations = selected.metadata.annotations.get_or_insert_default();
        annotations.insert(SELECTED_NODE.into(), node.into());
        let selected = Arc::new(selected);
        if !listers.claims.assume(selected.clone()) {
            forget(listers, &done);
            return Err(format!("persistentvolumeclaim {:?} has changed", name(&claim.metadata)));
        }
        done.provisioned.push(selected);
    }
    Ok(done)
}

pub(super) fn forget(listers: &Listers, plan: &NodePlan) {
    plan.matched.iter().for_each(|(_, volume)| listers.volumes.forget_assumed(volume));
    plan.provisioned.iter().for_each(|claim| listers.claims.forget_assumed(claim));
}

fn name(meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> &str {
    meta.name.as_deref().unwrap_or("")
}

fn bound_to(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> PersistentVolume {
    let mut bound = volume.clone();
    if !is_promised(volume, claim) {
        let annotations = bound.metadata.annotations.get_or_insert_default();
        annotations.insert(BOUND_BY_CONTROLLER.into(), "yes".into());
    }
    let spec = bound.spec.get_or_insert_default();
    spec.claim_ref = Some(ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("PersistentVolumeClaim".into()),
        namespace: claim.metadata.namespace.clone(),
        name: claim.metadata.name.clone(),
        uid: claim.metadata.uid.clone(),
        resource_version: claim.metadata.resource_version.clone(),
        field_path: None,
    });
    bound
}

/// Writes the claims into the volumes and the node into the claims, each only if it has not changed since
/// it was looked at.
pub(super) async fn write(client: &Client, plan: &NodePlan) -> Result<(), String> {
    let told = |error: Error| error.to_string();
    for (_, volume) in &plan.matched {
        let patch = Patch::Merge(json!({
            "metadata": {
                "resourceVersion": volume.metadata.resource_version,
                "annotations": volume.metadata.annotations,
            },
            "spec": {"claimRef": volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref())},
        }));
        let name = name(&volume.metadata);
        client.patch::<PersistentVolume>("", name, &patch).await.map_err(told)?;
    }
    for claim in &plan.provisioned {
        let patch = Patch::Merge(json!({"metadata": {
            "resourceVersion": claim.metadata.resource_version,
            "annotations": claim.metadata.annotations,
        }}));
        let namespace = claim.metadata.namespace.as_deref().unwrap_or("");
        let name = name(&claim.metadata);
        client.patch::<PersistentVolumeClaim>(namespace, name, &patch).await.map_err(told)?;
    }
    Ok(())
}

/// Waits until the volume controller has bound all of the pod's claims.
pub(super) async fn wait(
    listers: &Listers,
    plan: &NodePlan,
    node: &str,
    patience: Duration,
) -> Result<(), String> {
    let end = Instant::now() + patience;
    let mut changes = listers.claims.changes();
    while !are_bound(listers, plan, node)? {
        if tokio::time::timeout_at(end, changes.changed()).await.is_err() {
            return Err("binding volumes: context deadline exceeded".into());
        }
    }
    Ok(())
}

fn are_bound(listers: &Listers, plan: &NodePlan, node: &str) -> Result<bool, String> {
    let all = plan.matched.iter().map(|(claim, _)| claim).chain(&plan.provisioned);
    let mut bound = true;
    for claim in all {
        let namespace = claim.metadata.namespace.as_deref().unwrap_or("");
        let name = name(&claim.metadata);
        let Some(told) = listers.claims.told(namespace, name) else {
            return Err(format!(
                "binding volumes: failed to check provisioning pvc: could not find v1.PersistentVolumeClaim \
                 \"{namespace}/{name}\""
            ));
        };
        bound &= is_fully_bound(&told);
    }
    for claim in &plan.provisioned {
        let namespace = claim.metadata.namespace.as_deref().unwrap_or("");
        let Some(told) = listers.claims.told(namespace, name(&claim.metadata)) else { continue };
        // Until our own write comes back, the older state says nothing.
        if told.metadata.resource_version == claim.metadata.resource_version {
            continue;
        }
        let selected = told.metadata.annotations.as_ref().and_then(|a| a.get(SELECTED_NODE));
        if selected.map(String::as_str) != Some(node) && !is_fully_bound(&told) {
            let name = name(&told.metadata);
            return Err(format!("binding volumes: provisioning failed for PVC \"{name}\""));
        }
    }
    Ok(bound)
}
