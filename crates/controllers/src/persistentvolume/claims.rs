//! One look at a claim.

use std::sync::Arc;

use client::{Error, EventType};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;

use super::plan::{
    BIND_COMPLETED, BOUND_BY_CONTROLLER, annotation, best, bound_claim, bound_volume, claim_spec,
    claim_status, claim_uid, class_of, default_class, has_node, is_delayed, is_for, key_text,
    lacks_class, mismatch, with_provisioner,
};
use super::{Binder, Key};
use crate::meta::{name, namespace, uid};
use crate::pods;

impl Binder {
    pub(super) async fn sync_claim(&self, claim: Arc<PersistentVolumeClaim>) -> Result<(), Error> {
        let bound = annotation(&claim.metadata, BIND_COMPLETED).is_some();
        let named = claim_spec(&claim).volume_name.filter(|n| !n.is_empty());
        match (bound, named) {
            (false, None) => self.look_for_volume(claim).await,
            (false, Some(volume)) => self.bind_as_asked(claim, &volume).await,
            (true, None) => {
                let message = "Bound claim has lost reference to PersistentVolume. Data on the \
                               volume is lost!";
                self.lose(&claim, "ClaimLost", message).await
            }
            (true, Some(volume)) => self.keep_bound(claim, &volume).await,
        }
    }

    async fn look_for_volume(&self, claim: Arc<PersistentVolumeClaim>) -> Result<(), Error> {
        let own = class_of(&claim);
        let class = self.classes.get("", &own);
        let delayed = is_delayed(class.as_deref());
        if let Some(volume) = best(&claim, &self.volumes.list(), delayed) {
            return self.bind(volume.clone(), claim).await;
        }
        if lacks_class(&claim)
            && let Some(default) = default_class(&self.classes.list())
        {
            let mut new = PersistentVolumeClaim::clone(&claim);
            new.spec.get_or_insert_default().storage_class_name = default.metadata.name.clone();
            self.claims.wrote(self.client.update(&new).await?);
            return Ok(());
        }
        if delayed && !has_node(&claim) {
            self.tell_waiting(&claim);
        } else if !own.is_empty() {
            self.ask_for_volume(&claim, &own, class.as_deref()).await?;
        } else {
            let message =
                "no persistent volumes available for this claim and no storage class is set";
            self.event(&*claim, EventType::Normal, "FailedBinding", message.into());
        }
        let claim = self.claims.get(namespace(&claim.metadata), name(&claim.metadata));
        match claim {
            Some(claim) => self.set_claim(&claim, "Pending", None).await.map(drop),
            None => Ok(()),
        }
    }

    fn tell_waiting(&self, claim: &PersistentVolumeClaim) {
        let uses = |pod: &Pod| {
            let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
            let mut claims = volumes.filter_map(|v| v.persistent_volume_claim.as_ref());
            claims.any(|c| c.claim_name == name(&claim.metadata))
        };
        let pods = self.pods.list_namespace(namespace(&claim.metadata));
        let waiting = pods.iter().filter(|p| pods::node(p).is_empty() && uses(p));
        let names: Vec<&str> = waiting.map(|p| name(&p.metadata)).collect();
        let (reason, message) = match names[..] {
            [] => (
                "WaitForFirstConsumer",
                "waiting for first consumer to be created before binding".to_owned(),
            ),
            [pod] => ("WaitForPodScheduled", format!("waiting for pod {pod} to be scheduled")),
            _ => {
                let all = names.join(",");
                ("WaitForPodScheduled", format!("waiting for pods {all} to be scheduled"))
            }
        };
        self.event(claim, EventType::Normal, reason, message);
    }

    /// Names the provisioner of the class in the claim: external ones look for that.
    async fn ask_for_volume(
        &self,
        claim: &PersistentVolumeClaim,
        own: &str,
        class: Option<&StorageClass>,
    ) -> Result<(), Error> {
        let Some(class) = class else {
            let message = format!("storageclass.storage.k8s.io {own:?} not found");
            self.warn(claim, "ProvisioningFailed", message);
            return Ok(());
        };
        let provisioner = &class.provisioner;
        if provisioner.starts_with("kubernetes.io/") {
            let message = format!("no volume plugin matched name: {provisioner}");
            self.warn(claim, "ProvisioningFailed", message);
            return Ok(());
        }
        if let Some(new) = with_provisioner(claim, provisioner) {
            self.claims.wrote(self.client.update(&new).await?);
        }
        let message = format!(
            "Waiting for a volume to be created either by the external provisioner '{provisioner}' \
             or manually by the system administrator. If volume creation is delayed, please verify \
             that the provisioner is running and correctly registered."
        );
        self.event(claim, EventType::Normal, "ExternalProvisioning", message);
        Ok(())
    }

    async fn bind_as_asked(
        &self,
        claim: Arc<PersistentVolumeClaim>,
        volume: &str,
    ) -> Result<(), Error> {
        let Some(volume) = self.volumes.get("", volume) else {
            return self.set_claim(&claim, "Pending", None).await.map(drop);
        };
        let own = name(&volume.metadata);
        let is_free = volume.spec.as_ref().is_none_or(|s| s.claim_ref.is_none());
        if is_for(&volume, &claim) {
            return self.bind(volume, claim).await;
        }
        if is_free {
            match mismatch(&volume, &claim) {
                Ok(()) => return self.bind(volume, claim).await,
                Err(why) => {
                    let message = format!("Cannot bind to requested volume {own:?}: {why}");
                    self.warn(&*claim, "VolumeMismatch", message);
                }
            }
        } else {
            let message = format!("volume {own:?} already bound to a different claim.");
            self.warn(&*claim, "FailedBinding", message);
            if annotation(&claim.metadata, BOUND_BY_CONTROLLER).is_some() {
                let claim = key_text(&claim);
                let why = format!("invalid binding of claim {claim:?} to volume {own:?}");
                return Err(api::Status::failure(409, "Conflict", why).into());
            }
        }
        self.set_claim(&claim, "Pending", None).await.map(drop)
    }

    async fn keep_bound(
        &self,
        claim: Arc<PersistentVolumeClaim>,
        volume: &str,
    ) -> Result<(), Error> {
        let Some(volume) = self.volumes.get("", volume) else {
            let message = "Bound claim has lost its PersistentVolume. Data on the volume is lost!";
            return self.lose(&claim, "ClaimLost", message).await;
        };
        let is_free = volume.spec.as_ref().is_none_or(|s| s.claim_ref.is_none());
        if is_free || claim_uid(&volume) == uid(&claim.metadata) {
            return self.bind(volume, claim).await;
        }
        let message = "Two claims are bound to the same volume, this one is bound incorrectly";
        self.lose(&claim, "ClaimMisbound", message).await
    }

    async fn lose(
        &self,
        claim: &PersistentVolumeClaim,
        reason: &str,
        message: &str,
    ) -> Result<(), Error> {
        if claim.status.as_ref().and_then(|s| s.phase.as_deref()) != Some("Lost") {
            self.set_claim(claim, "Lost", None).await?;
            self.warn(claim, reason, message.into());
        }
        Ok(())
    }

    /// Writes the binding: the volume first, so that nobody else takes it.
    pub(super) async fn bind(
        &self,
        mut volume: Arc<PersistentVolume>,
        mut claim: Arc<PersistentVolumeClaim>,
    ) -> Result<(), Error> {
        if let Some(new) = bound_volume(&volume, &claim) {
            volume = self.volumes.wrote(self.client.update(&new).await?);
        }
        volume = self.set_volume(&volume, "Bound", None).await?;
        if let Some(new) = bound_claim(&claim, &volume) {
            claim = self.claims.wrote(self.client.update(&new).await?);
        }
        self.set_claim(&claim, "Bound", Some(&volume)).await?;
        self.queue.add(Key::Volume(name(&volume.metadata).to_owned()));
        Ok(())
    }

    pub(super) async fn set_claim(
        &self,
        claim: &PersistentVolumeClaim,
        phase: &str,
        volume: Option<&PersistentVolume>,
    ) -> Result<(), Error> {
        let Some(status) = claim_status(claim, phase, volume) else { return Ok(()) };
        let new = PersistentVolumeClaim { status: Some(status), ..claim.clone() };
        self.claims.wrote(self.client.update_status(&new).await?);
        Ok(())
    }
}
