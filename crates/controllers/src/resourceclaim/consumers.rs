//! Whether those that a claim is reserved for still need it.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use client::Error;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceClaimConsumerReference};

use super::Claims;
use crate::meta::{namespace, uid};
use crate::pods;

/// Uids that are remembered: enough for pods that end together; for others the server is asked.
const GONE_MAX: usize = 500;

/// Pods that were seen to go.
#[derive(Debug, Clone, Default)]
pub(super) struct Gone {
    uids: Arc<Mutex<(HashSet<String>, VecDeque<String>)>>,
}

impl Gone {
    pub(super) fn add(&self, uid: &str) {
        let mut uids = self.uids.lock().unwrap_or_else(PoisonError::into_inner);
        let (known, order) = &mut *uids;
        if known.insert(uid.to_owned()) {
            order.push_back(uid.to_owned());
        }
        if order.len() > GONE_MAX
            && let Some(oldest) = order.pop_front()
        {
            known.remove(&oldest);
        }
    }

    pub(super) fn has(&self, uid: &str) -> bool {
        self.uids.lock().unwrap_or_else(PoisonError::into_inner).0.contains(uid)
    }
}

/// Whether it is certain that none of the pod's containers runs or will run.
pub(super) fn is_done(pod: &Pod) -> bool {
    pods::finished(pod) || pod.metadata.deletion_timestamp.is_some() && pods::node(pod).is_empty()
}

impl Claims {
    /// The reservations that are still needed. Consumers that are no pods are not known here and stay.
    pub(super) async fn kept(
        &self,
        claim: &ResourceClaim,
    ) -> Result<Vec<ResourceClaimConsumerReference>, Error> {
        let reserved = claim.status.as_ref().and_then(|s| s.reserved_for.clone());
        let mut kept = Vec::new();
        for consumer in reserved.unwrap_or_default() {
            let group = consumer.api_group.as_deref().unwrap_or("");
            let is_pod = group.is_empty() && consumer.resource == "pods";
            if !is_pod || self.needs(namespace(&claim.metadata), &consumer).await? {
                kept.push(consumer);
            }
        }
        Ok(kept)
    }

    async fn needs(
        &self,
        space: &str,
        consumer: &ResourceClaimConsumerReference,
    ) -> Result<bool, Error> {
        if self.gone.has(&consumer.uid) {
            return Ok(false);
        }
        if let Some(pod) = self.pods.get(space, &consumer.name) {
            return Ok(uid(&pod.metadata) == consumer.uid && !is_done(&pod));
        }
        // It may not be seen yet; taking devices from a pod that is being scheduled would be bad.
        match self.client.get::<Pod>(space, &consumer.name).await {
            Ok(pod) => Ok(uid(&pod.metadata) == consumer.uid),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }
}
