//! Writes to claims: allocation and reservation when the pod is bound, and the way back.

use std::sync::Arc;

use client::{Client, DeleteParams, Error, Patch};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::{
    AllocationResult, ResourceClaim, ResourceClaimConsumerReference,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use super::claims::key;
use super::extended::Promise;
use crate::pod::PodInfo;
use crate::store::Listers;

/// How often a write is tried when somebody else writes, too (client-go's `retry.DefaultRetry`).
const TRIES: usize = 5;

/// A claim, and the devices that it was promised.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) at: usize,
    pub(super) claim: Arc<ResourceClaim>,
    pub(super) allocation: Option<Arc<AllocationResult>>,
}

/// Writes the allocation, if there is one, and the pod's reservation; the claim as the server has it then.
/// The promise ends in any case.
pub(super) async fn bind(
    client: &Client,
    listers: &Listers,
    job: Job,
    pod: &PodInfo,
) -> Result<Arc<ResourceClaim>, String> {
    if devices::is_reserved_for(&job.claim, pod.uid()) {
        return Ok(job.claim);
    }
    let uid = job.claim.metadata.uid.clone().unwrap_or_default();
    let written = write(client, &job, pod).await.map(Arc::new);
    match &written {
        Ok(claim) => listers.ledger.written(claim),
        Err(_) => listers.ledger.take_back(&uid),
    }
    written
}

async fn write(client: &Client, job: &Job, pod: &PodInfo) -> Result<ResourceClaim, String> {
    let mut claim = (*job.claim).clone();
    let (space, name) = (pod.namespace(), claim.metadata.name.clone().unwrap_or_default());
    for _ in 1..TRIES {
        match write_once(client, claim, job.allocation.as_deref(), pod).await? {
            Ok(written) => return Ok(written),
            Err(conflict) => tracing::debug!(%conflict, name, "claim changed meanwhile"),
        }
        claim = client
            .get(space, &name)
            .await
            .map_err(|error| format!("get updated claim {space}/{name} after conflict: {error}"))?;
    }
    let last = write_once(client, claim, job.allocation.as_deref(), pod).await?;
    last.map_err(|conflict| conflict.to_string())
}

/// The inner error is a conflict: the claim that was read is not the latest.
async fn write_once(
    client: &Client,
    mut claim: ResourceClaim,
    allocation: Option<&AllocationResult>,
    pod: &PodInfo,
) -> Result<Result<ResourceClaim, Error>, String> {
    let shown = key(&claim);
    let told = |doing: &str, error: Error| match error.is_conflict() {
        true => Ok(Err(error)),
        false => Err(format!("{doing} claim {shown}: {error}")),
    };
    if claim.metadata.deletion_timestamp.is_some() {
        return Err(format!("claim {shown} got deleted in the meantime"));
    }
    if let Some(allocation) = allocation {
        if crate::ledger::allocation(&claim).is_some() {
            return Err(format!("claim {shown} got allocated elsewhere in the meantime"));
        }
        let finalizers = claim.metadata.finalizers.get_or_insert_default();
        if !finalizers.iter().any(|f| f == devices::FINALIZER) {
            finalizers.push(devices::FINALIZER.into());
            claim = match client.update(&claim).await {
                Ok(updated) => updated,
                Err(error) => return told("add finalizer to", error),
            };
        }
        claim.status.get_or_insert_default().allocation = Some(allocation.clone());
    }
    let status = claim.status.get_or_insert_default();
    let Some(own) = &mut status.allocation else {
        return Err(format!("claim {shown} got deallocated elsewhere in the meantime"));
    };
    own.allocation_timestamp.get_or_insert_with(|| Time(jiff::Timestamp::now()));
    status.reserved_for.get_or_insert_default().push(ResourceClaimConsumerReference {
        api_group: None,
        resource: "pods".into(),
        name: pod.name().into(),
        uid: pod.uid().into(),
    });
    match client.update_status(&claim).await {
        Ok(updated) => Ok(Ok(updated)),
        Err(error) if allocation.is_some() => told("add allocation and reservation to", error),
        Err(error) => told("add reservation to", error),
    }
}

/// Makes the claim for extended resources, still without devices.
pub(super) async fn create(
    client: &Client,
    promise: &Promise,
    pod: &PodInfo,
) -> Result<Arc<ResourceClaim>, String> {
    let made = client.create(pod.namespace(), &*promise.node_claim.claim).await;
    made.map(Arc::new).map_err(|error| {
        format!("create claim for extended resources {}/: {error}", pod.namespace())
    })
}

/// Gives that claim its devices, and tells the pod which container uses which.
pub(super) async fn fill(
    client: &Client,
    listers: &Listers,
    made: &Arc<ResourceClaim>,
    promise: &Promise,
    pod: &PodInfo,
) -> Result<(), String> {
    let allocation = Some(promise.allocation.clone());
    bind(client, listers, Job { at: 0, claim: made.clone(), allocation }, pod).await?;
    let patch = Patch::Merge(json!({
        "metadata": {"uid": pod.uid()},
        "status": {"extendedResourceClaimStatus": {
            "requestMappings": promise.node_claim.mappings,
            "resourceClaimName": made.metadata.name,
        }},
    }));
    let told = client.patch_status::<Pod>(pod.namespace(), pod.name(), &patch).await;
    told.map(drop).map_err(|error| {
        let (space, name) = (pod.namespace(), pod.name());
        format!("update pod {space}/{name} ExtendedResourceClaimStatus: {error}")
    })
}

/// Deletes the claim for extended resources of an attempt that failed. If that fails, the pod's next attempt
/// finds the claim.
pub(super) async fn delete(client: &Client, claim: &ResourceClaim) {
    let (space, name) = (
        claim.metadata.namespace.as_deref().unwrap_or(""),
        claim.metadata.name.as_deref().unwrap_or(""),
    );
    let open = Patch::Strategic(json!({"metadata": {"uid": claim.metadata.uid,
        "$deleteFromPrimitiveList/finalizers": [devices::FINALIZER]}}));
    let opened = client.patch::<ResourceClaim>(space, name, &open).await;
    let params = DeleteParams { uid: claim.metadata.uid.clone(), ..DeleteParams::default() };
    let gone = match opened {
        Ok(_) => client.delete::<ResourceClaim>(space, name, &params).await,
        Err(error) => Err(error),
    };
    if let Err(error) = gone
        && !error.is_not_found()
    {
        tracing::warn!(claim = key(claim), %error, "claim for extended resources not deleted");
    }
}

/// Takes the pod's reservation back. The entry is removed by its uid, whatever the claim is by now.
pub(super) async fn unreserve(client: &Client, claim: &ResourceClaim, pod_uid: &str) {
    let patch = Patch::Strategic(json!({
        "metadata": {"uid": claim.metadata.uid},
        "status": {"reservedFor": [{"$patch": "delete", "uid": pod_uid}]},
    }));
    let space = claim.metadata.namespace.as_deref().unwrap_or("");
    let name = claim.metadata.name.as_deref().unwrap_or("");
    // The next cycle of the pod, and the claim's controller when the pod is gone, come here again.
    if let Err(error) = client.patch_status::<ResourceClaim>(space, name, &patch).await {
        tracing::warn!(claim = key(claim), %error, "reservation not taken back");
    }
}

/// Gives up devices that no node of the pod can use. If somebody else wrote, the claim's change brings the
/// pod here again.
pub(super) async fn deallocate(client: &Client, claim: &ResourceClaim) {
    let mut freed = claim.clone();
    if let Some(status) = &mut freed.status {
        (status.allocation, status.reserved_for, status.devices) = (None, None, None);
    }
    if let Err(error) = client.update_status(&freed).await {
        tracing::warn!(claim = key(claim), %error, "claim not deallocated");
    }
}
