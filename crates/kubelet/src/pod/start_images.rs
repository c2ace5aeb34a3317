//! The images that a container needs: its own, and those that it mounts.

use std::collections::HashMap;

use client::EventType;
use k8s_openapi::api::core::v1::{Container, ObjectReference};
use runtime::cri::ImageSpec;

use super::start::{Failure, Start, pod_reference};
use crate::images;
use crate::spec::spec_of;

impl Start {
    pub(super) async fn ensure(
        &self,
        (image, policy): (&str, Option<&str>),
        about: &ObjectReference,
    ) -> Result<images::Ready, images::Failed> {
        let wanted = images::Wanted {
            pod: &self.pod,
            image,
            policy,
            about,
            user: &self.user,
            backing_off: self.backing_off.get(image).map(String::as_str),
            sandbox: self.sandbox_config.clone(),
        };
        images::ensure(&self.shared, wanted).await
    }

    /// The images that the container mounts, by their volumes. What fails is told of the pod, and again of
    /// the container, which waits for the last that failed.
    pub(super) async fn image_volumes(
        &self,
        spec: &Container,
        about: &ObjectReference,
    ) -> Result<HashMap<String, ImageSpec>, Failure> {
        let pod_spec = spec_of(&self.pod);
        let mounted = |name: &str| spec.volume_mounts.iter().flatten().any(|m| m.name == name);
        let (mut found, mut failed) = (HashMap::new(), None);
        for volume in pod_spec.volumes.iter().flatten().filter(|v| mounted(&v.name)) {
            let Some(image) = &volume.image else { continue };
            let reference = image.reference.as_deref().unwrap_or("");
            let asked = (reference, image.pull_policy.as_deref());
            match self.ensure(asked, &pod_reference(&self.pod)).await {
                Ok(ready) => {
                    let spec = ImageSpec {
                        image: ready.reference,
                        user_specified_image: reference.to_owned(),
                        ..ImageSpec::default()
                    };
                    found.insert(volume.name.clone(), spec);
                }
                Err(error) => {
                    if let Some(before) = failed.replace(error) {
                        self.tell_failed(about, &before);
                    }
                }
            }
        }
        failed.map_or(Ok(found), |error| Err(error.into()))
    }

    fn tell_failed(&self, about: &ObjectReference, failed: &images::Failed) {
        let text = format!("Error: {}", failed.reason);
        self.shared.recorder.event(about, EventType::Warning, "Failed", text);
    }
}
