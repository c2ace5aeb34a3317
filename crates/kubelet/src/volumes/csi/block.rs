//! A volume as a raw device in a pod.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;

use csi::v1::{Mode, NodePublishVolumeRequest, NodeRpcType, NodeStageVolumeRequest};
use k8s_openapi::api::core::v1::CSIPersistentVolumeSource;

use super::super::plugin::{Failed, Ready, SetUp};
use super::data::Data;
use super::drivers::{Capabilities, Driver};
use super::mount::read_secret;
use super::object::Facts;
use super::{Published, attach, names, request, said};
use crate::spec::uid_of;

const SET_UP: &str = "MapVolume.SetUpDevice failed";
const MAP: &str = "MapVolume.MapPodDevice failed";

/// One device on its way into one pod.
struct Work<'a> {
    of: &'a SetUp<'a>,
    csi: &'a CSIPersistentVolumeSource,
    facts: Facts,
    driver: Arc<Driver>,
    places: names::Block,
    unique: String,
}

pub(super) async fn set_up(of: &SetUp<'_>) -> Result<Ready, Failed> {
    let missing = || "volume source not found in volume.Spec".to_owned();
    let csi = of.spec.persistent_csi().ok_or_else(missing)?;
    let (shared, uid, name) = (of.shared, uid_of(of.pod), of.spec.name());
    let unique = super::super::unique_name(of.spec, super::NAME);
    let _own = shared.volumes.exclusive(&unique).await;
    let state = &shared.volumes.csi;
    let places = names::block(&shared.config.root_dir, uid, name);
    if state.published(uid, name).is_some() {
        return Ok(Ready::at(places.publish));
    }
    let facts = Facts::of(&shared.client, &csi.driver).await.map_err(|why| {
        let text = "blockMapper.SetupDevice failed to check CSIDriver for";
        Failed::new(SET_UP, said(format!("{text} {}: {why}", csi.driver)))
    })?;
    let driver = state.drivers.get(&csi.driver).map_err(|why| {
        let text = "blockMapper.SetUpDevice failed to get CSI client";
        Failed::new(SET_UP, said(format!("{text}: {why}")))
    })?;
    let work = Work { of, csi, facts, driver, places, unique };
    work.run().await?;
    state.set_published(uid, name, Some(Published { again_at: None }));
    Ok(Ready::at(work.places.publish))
}

impl Work<'_> {
    async fn run(&self) -> Result<(), Failed> {
        let context = match self.facts.attach_required {
            true => attach::wait(self.of.shared, self.csi, &self.unique).await.map_err(of_map)?,
            false => BTreeMap::new(),
        };
        let capabilities = Capabilities::of(&self.driver).await;
        let capabilities = capabilities.map_err(|why| Failed::new(SET_UP, why))?;
        let mode = request::access_mode(self.of.spec.access_modes(), &capabilities);
        prepare(&self.places, &self.data()).map_err(|e| Failed::new(SET_UP, said(e)))?;
        let stages = capabilities.has(NodeRpcType::StageUnstageVolume);
        if stages {
            self.stage(&context, mode).await.map_err(|why| Failed::new(SET_UP, why))?;
        }
        self.publish(context, mode, stages).await.map_err(|why| Failed::new(MAP, why))
    }

    fn data(&self) -> Data {
        let node = &self.of.shared.config.node_name;
        Data {
            spec_name: self.of.spec.name().to_owned(),
            volume_handle: self.csi.volume_handle.clone(),
            driver_name: self.csi.driver.clone(),
            node_name: node.clone(),
            attachment: names::attachment(&self.csi.volume_handle, &self.csi.driver, node),
            ..Data::default()
        }
    }

    async fn stage(&self, context: &BTreeMap<String, String>, mode: Mode) -> Result<(), String> {
        let state = &self.of.shared.volumes.csi;
        if state.is_staged(&self.unique) {
            return Ok(());
        }
        let reference = self.csi.node_stage_secret_ref.clone().unwrap_or_default();
        let secret = reference.namespace.zip(reference.name);
        let secrets = read_secret(self.of.shared, secret.as_ref(), "NodeStageSecretRef").await?;
        let request = NodeStageVolumeRequest {
            volume_id: self.csi.volume_handle.clone(),
            publish_context: context.clone(),
            staging_target_path: text(&self.places.staging),
            volume_capability: Some(request::device(mode)),
            secrets,
            volume_context: self.csi.volume_attributes.clone().unwrap_or_default(),
        };
        std::fs::create_dir_all(&self.places.staging).map_err(said)?;
        self.driver.client.node_stage_volume(&request).await.map_err(|e| e.go_text())?;
        state.set_staged(&self.unique, true);
        Ok(())
    }

    async fn publish(
        &self,
        context: BTreeMap<String, String>,
        mode: Mode,
        stages: bool,
    ) -> Result<(), String> {
        let mut volume_context = self.csi.volume_attributes.clone().unwrap_or_default();
        if self.facts.pod_info {
            volume_context.extend(request::pod_info(self.of.pod, false));
        }
        let reference = self.csi.node_publish_secret_ref.clone().unwrap_or_default();
        let secret = reference.namespace.zip(reference.name);
        let secrets = read_secret(self.of.shared, secret.as_ref(), "NodePublishSecretRef").await?;
        let request = NodePublishVolumeRequest {
            volume_id: self.csi.volume_handle.clone(),
            publish_context: context,
            staging_target_path: if stages { text(&self.places.staging) } else { String::new() },
            target_path: text(&self.places.publish),
            volume_capability: Some(request::device(mode)),
            readonly: self.of.spec.read_only(),
            secrets,
            volume_context,
        };
        self.driver.client.node_publish_volume(&request).await.map(drop).map_err(|e| e.go_text())
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// The wait for the attachment, as it is told of devices.
fn of_map(failed: Failed) -> Failed {
    match failed.step {
        "MountVolume.WaitForAttach failed" => {
            Failed::new("MapVolume.WaitForAttach failed", failed.why)
        }
        _ => failed,
    }
}

/// What it takes to undo it all is on the disk before the driver is called.
fn prepare(places: &names::Block, data: &Data) -> std::io::Result<()> {
    data.save(&places.data)?;
    for path in [&places.link, &places.publish] {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
    }
    match symlink(&places.publish, &places.link) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}
