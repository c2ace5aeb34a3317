//! Attributes of volumes, by their VolumeAttributesClass.

use client::{Error, Patch};
use csi::v1::ControllerModifyVolumeRequest;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use serde_json::json;

use super::{Resizer, is_infeasible};
use crate::claims::handle;
use crate::metadata::name;

/// The class that a claim asks for and does not have.
pub(super) fn wanted(claim: &PersistentVolumeClaim) -> Option<&str> {
    let spec = claim.spec.as_ref()?;
    let wanted = spec.volume_attributes_class_name.as_deref().filter(|own| !own.is_empty())?;
    let has = claim.status.as_ref()?.current_volume_attributes_class_name.as_deref();
    (has != Some(wanted)).then_some(wanted)
}

impl Resizer {
    pub(super) async fn modify(
        &self,
        claim: &PersistentVolumeClaim,
        volume: &PersistentVolume,
    ) -> Result<(), Error> {
        let Some(wanted) = wanted(claim) else { return Ok(()) };
        let made_with =
            volume.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.as_deref());
        if made_with == Some(wanted) {
            return self.modified(claim, wanted).await;
        }
        let own = name(&volume.metadata);
        let Some(class) = self.classes.get("", wanted) else {
            let pending = json!({"modifyVolumeStatus":
                {"targetVolumeAttributesClassName": wanted, "status": "Pending"}});
            self.write(claim, pending).await?;
            let message = format!("VAC {wanted:?} does not exist");
            self.context.warn(claim, "VolumeModifyFailed", message.clone());
            return Err(api::Status::failure(404, "NotFound", message).into());
        };
        let begun = json!({"modifyVolumeStatus":
            {"targetVolumeAttributesClassName": wanted, "status": "InProgress"}});
        let claim = self.write(claim, begun).await?;
        let message = format!("external resizer is modifying volume {own} with vac {wanted}");
        self.context.event(&claim, "VolumeModify", message);
        let request = ControllerModifyVolumeRequest {
            volume_id: handle(volume, &self.context.config.driver).unwrap_or_default().to_owned(),
            secrets: Vec::new(),
            mutable_parameters: class.parameters.clone().unwrap_or_default(),
        };
        if let Err(error) = self.context.csi.controller_modify_volume(&request).await {
            let message = format!("modify volume failed with: {}", error.go_text());
            self.context.warn(&claim, "VolumeModifyFailed", message.clone());
            if is_infeasible(&error) {
                let failed = json!({"modifyVolumeStatus":
                    {"targetVolumeAttributesClassName": wanted, "status": "Infeasible"}});
                self.write(&claim, failed).await?;
            }
            return Err(api::Status::failure(500, "InternalError", message).into());
        }
        let patch = Patch::Merge(json!({"spec": {"volumeAttributesClassName": wanted}}));
        self.context.client.patch::<PersistentVolume>("", own, &patch).await?;
        self.modified(&claim, wanted).await?;
        let message =
            format!("external resizer modified volume {own} with vac {wanted} successfully");
        self.context.event(&claim, "VolumeModifySuccessful", message);
        Ok(())
    }

    async fn modified(&self, claim: &PersistentVolumeClaim, class: &str) -> Result<(), Error> {
        let status = json!({"currentVolumeAttributesClassName": class, "modifyVolumeStatus": null});
        self.write(claim, status).await.map(drop)
    }
}
