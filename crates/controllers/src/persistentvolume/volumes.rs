//! One look at a volume.

use std::sync::Arc;

use client::Error;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};

use super::plan::{
    PROVISIONED_BY, annotation, claim_key, claim_spec, claim_uid, modes_differ, phase,
    reclaim_policy, unbound_volume, undeletable,
};
use super::{Binder, of_claim};
use crate::meta::{name, now, uid};

impl Binder {
    pub(super) async fn sync_volume(&self, volume: Arc<PersistentVolume>) -> Result<(), Error> {
        let Some((space, own)) = claim_key(&volume) else {
            return self.set_volume(&volume, "Available", None).await.map(drop);
        };
        if claim_uid(&volume).is_empty() {
            // Meant for a claim that is not bound yet; the claim's own look does that.
            return self.set_volume(&volume, "Available", None).await.map(drop);
        }
        let Some(claim) = self.claim_of(&volume, &space, &own).await? else {
            return self.release(&volume).await;
        };
        let bound_to = claim_spec(&claim).volume_name.unwrap_or_default();
        if bound_to.is_empty() {
            if modes_differ(&volume, &claim) {
                self.tell_modes(&volume, &claim);
            } else {
                self.queue.add(of_claim(&claim));
            }
            return Ok(());
        }
        if bound_to == name(&volume.metadata) {
            return self.set_volume(&volume, "Bound", None).await.map(drop);
        }
        // The claim has another volume.
        let made_for_it = annotation(&volume.metadata, PROVISIONED_BY).is_some();
        if made_for_it && reclaim_policy(&volume) == "Delete" {
            return self.release(&volume).await;
        }
        let free = self.client.update(&unbound_volume(&volume)).await?;
        let free = self.volumes.wrote(free);
        self.set_volume(&free, "Available", None).await.map(drop)
    }

    fn tell_modes(&self, volume: &PersistentVolume, claim: &PersistentVolumeClaim) {
        let of_volume = format!(
            "Cannot bind PersistentVolume to requested PersistentVolumeClaim {:?} due to \
             incompatible volumeMode.",
            name(&claim.metadata)
        );
        self.warn(volume, "VolumeMismatch", of_volume);
        let of_claim = format!(
            "Cannot bind PersistentVolume {:?} to requested PersistentVolumeClaim due to \
             incompatible volumeMode.",
            name(&volume.metadata)
        );
        self.warn(claim, "VolumeMismatch", of_claim);
    }

    /// The volume's claim, by the server itself before the volume is given up.
    async fn claim_of(
        &self,
        volume: &PersistentVolume,
        space: &str,
        own: &str,
    ) -> Result<Option<Arc<PersistentVolumeClaim>>, Error> {
        let is_it = |claim: &PersistentVolumeClaim| uid(&claim.metadata) == claim_uid(volume);
        if let Some(claim) = self.claims.get(space, own).filter(|claim| is_it(claim)) {
            return Ok(Some(claim));
        }
        match self.client.get::<PersistentVolumeClaim>(space, own).await {
            Ok(claim) => Ok(Some(Arc::new(claim)).filter(|claim| is_it(claim))),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The claim is gone: what becomes of the volume is its own policy.
    async fn release(&self, volume: &PersistentVolume) -> Result<(), Error> {
        let mut volume = Arc::new(volume.clone());
        if !matches!(phase(&volume), "Released" | "Failed") {
            volume = self.set_volume(&volume, "Released", None).await?;
        }
        match reclaim_policy(&volume) {
            "Retain" => Ok(()),
            "Delete" => match undeletable(&volume) {
                None => Ok(()),
                Some(why) => self.fail(&volume, "VolumeFailedDelete", why).await,
            },
            "Recycle" => {
                let why = "No recycler plugin found for the volume!".to_owned();
                self.fail(&volume, "VolumeFailedRecycle", why).await
            }
            _ => {
                let why = "Volume has unrecognized PersistentVolumeReclaimPolicy".to_owned();
                self.fail(&volume, "VolumeUnknownReclaimPolicy", why).await
            }
        }
    }

    async fn fail(
        &self,
        volume: &PersistentVolume,
        reason: &str,
        why: String,
    ) -> Result<(), Error> {
        if phase(volume) != "Failed" {
            self.set_volume(volume, "Failed", Some(&why)).await?;
            self.warn(volume, reason, why);
        }
        Ok(())
    }

    pub(super) async fn set_volume(
        &self,
        volume: &PersistentVolume,
        wanted: &str,
        message: Option<&str>,
    ) -> Result<Arc<PersistentVolume>, Error> {
        if phase(volume) == wanted {
            return Ok(Arc::new(volume.clone()));
        }
        let mut new = volume.clone();
        let status = new.status.get_or_insert_default();
        status.phase = Some(wanted.into());
        status.message = message.map(str::to_owned);
        status.last_phase_transition_time = Some(now());
        Ok(self.volumes.wrote(self.client.update_status(&new).await?))
    }
}
