//! A volume as a file system in a pod: staged once for the node, published for each pod.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use csi::v1::{
    NodePublishVolumeRequest, NodeRpcType, NodeStageVolumeRequest, Secret as Sent, secrets,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    CSIPersistentVolumeSource, Secret, ServiceAccountTokenProjection,
};

use super::super::ownership::Ownership;
use super::super::plugin::{Failed, Ready, SetUp};
use super::super::{change_policy, token};
use super::data::{self, Data};
use super::drivers::{Capabilities, Driver, is_final};
use super::object::Facts;
use super::{Published, attach, expand, names, request, said};
use crate::spec::{namespace_of, uid_of};

/// How often a driver with `requiresRepublish` is called, and sizes are compared.
const AGAIN: Duration = Duration::from_secs(60);
const STAGE: &str = "MountVolume.MountDevice failed";
/// Where a driver finds the tokens.
const TOKENS: &str = "csi.storage.k8s.io/serviceAccount.tokens";

/// What is to be published, whichever source it has.
struct Source {
    driver: String,
    handle: String,
    fs_type: String,
    context: BTreeMap<String, String>,
    /// Namespace and name.
    secret: Option<(String, String)>,
    persistent: Option<CSIPersistentVolumeSource>,
}

impl Source {
    fn of(of: &SetUp<'_>) -> Option<Source> {
        if let Some(csi) = of.spec.persistent_csi() {
            let secret = csi.node_publish_secret_ref.clone().unwrap_or_default();
            return Some(Source {
                driver: csi.driver.clone(),
                handle: csi.volume_handle.clone(),
                fs_type: csi.fs_type.clone().unwrap_or_default(),
                context: csi.volume_attributes.clone().unwrap_or_default(),
                secret: secret.namespace.zip(secret.name),
                persistent: Some(csi.clone()),
            });
        }
        let csi = of.spec.volume.csi.as_ref()?;
        let secret = csi.node_publish_secret_ref.as_ref().map(|s| s.name.clone());
        Some(Source {
            driver: csi.driver.clone(),
            handle: names::ephemeral_handle(uid_of(of.pod), of.spec.name()),
            fs_type: csi.fs_type.clone().unwrap_or_default(),
            context: csi.volume_attributes.clone().unwrap_or_default(),
            secret: secret.map(|name| (namespace_of(of.pod).to_owned(), name)),
            persistent: None,
        })
    }

    fn mode(&self) -> &'static str {
        if self.persistent.is_some() { "Persistent" } else { "Ephemeral" }
    }
}

/// One volume on its way into one pod.
struct Work<'a> {
    of: &'a SetUp<'a>,
    source: Source,
    facts: Facts,
    driver: Arc<Driver>,
    capabilities: Capabilities,
    unique: String,
    target: PathBuf,
}

pub(super) async fn set_up(of: &SetUp<'_>) -> Result<Ready, Failed> {
    let source =
        Source::of(of).ok_or_else(|| "volume source not found in volume.Spec".to_owned())?;
    let uid = uid_of(of.pod);
    let unique = match source.persistent {
        Some(_) => super::super::unique_name(of.spec, super::NAME),
        None => format!("{}/{}", super::NAME, source.handle),
    };
    let target = names::target(&of.shared.config.root_dir, uid, of.spec.name());
    let _own = of.shared.volumes.exclusive(&unique).await;
    let state = &of.shared.volumes.csi;
    let facts = Facts::of(&of.shared.client, &source.driver).await;
    let facts = facts
        .map_err(|why| said(format!("mounter.SetupAt failed to check fsGroup policy: {why}")))?;
    facts.allows(&source.driver, source.mode()).map_err(|why| {
        said(format!("mounter.SetupAt failed to check volume lifecycle mode: {why}"))
    })?;
    let driver = state.drivers.get(&source.driver).map_err(|why| match source.persistent {
        Some(_) => {
            let text = "attacher.MountDevice failed to create newCsiDriverClient";
            Failed::new(STAGE, said(format!("{text}: {why}")))
        }
        None => said(format!("mounter.SetUpAt failed to get CSI client: {why}")).into(),
    })?;
    let capabilities = Capabilities::of(&driver).await?;
    let work = Work { of, source, facts, driver, capabilities, unique, target };
    work.run().await
}

impl Work<'_> {
    async fn run(self) -> Result<Ready, Failed> {
        let (uid, name) = (uid_of(self.of.pod), self.of.spec.name());
        let state = &self.of.shared.volumes.csi;
        let published = state.published(uid, name);
        let now = Timestamp::now();
        if let Some(done) = published
            && done.again_at.is_none_or(|at| at > now)
        {
            // The pod has the volume as it was; an event has told.
            if let Err(failed) = self.expand().await {
                tracing::warn!(volume = name, why = failed.why, "volume not resized");
            }
            return Ok(self.ready(done.again_at));
        }
        let context = self.attached().await?;
        let staging = self.stage(&context).await?;
        let renew = self.publish(context, staging, published.is_some()).await?;
        self.expand().await?;
        if published.is_none() {
            self.give_to_group().await?;
        }
        let again_at = self.facts.republish.then(|| now.checked_add(AGAIN).ok()).flatten();
        let again_at =
            [again_at, renew.filter(|_| self.facts.republish)].into_iter().flatten().min();
        state.set_published(uid, name, Some(Published { again_at }));
        Ok(self.ready(again_at))
    }

    /// Volumes that can grow are looked at from time to time: nobody tells the node that a claim has grown.
    fn ready(&self, again_at: Option<Timestamp>) -> Ready {
        let grows =
            self.source.persistent.is_some() && self.capabilities.has(NodeRpcType::ExpandVolume);
        let look = grows.then(|| Timestamp::now().checked_add(AGAIN).ok()).flatten();
        let refresh_at = [again_at, look].into_iter().flatten().min();
        Ready { place: self.target.clone(), refresh_at }
    }

    async fn attached(&self) -> Result<BTreeMap<String, String>, Failed> {
        match &self.source.persistent {
            Some(csi) if self.facts.attach_required => {
                attach::wait(self.of.shared, csi, &self.unique).await
            }
            _ => Ok(BTreeMap::new()),
        }
    }

    /// Once for all pods of the node; where it is staged.
    async fn stage(&self, context: &BTreeMap<String, String>) -> Result<Option<PathBuf>, Failed> {
        let Some(csi) = &self.source.persistent else { return Ok(None) };
        if !self.capabilities.has(NodeRpcType::StageUnstageVolume) {
            return Ok(None);
        }
        let (shared, state) = (self.of.shared, &self.of.shared.volumes.csi);
        let staging = names::staging(&shared.config.root_dir, &csi.driver, &csi.volume_handle);
        if state.is_staged(&self.unique) {
            return Ok(Some(staging));
        }
        let failed = |why: String| Failed::new(STAGE, why);
        let reference = csi.node_stage_secret_ref.clone().unwrap_or_default();
        let secret = reference.namespace.zip(reference.name);
        let secrets = self.secret(secret.as_ref(), "NodeStageSecretRef").await.map_err(failed)?;
        let data = Data {
            volume_handle: csi.volume_handle.clone(),
            driver_name: csi.driver.clone(),
            ..Data::default()
        };
        std::fs::create_dir_all(&staging)
            .and_then(|()| data.save(staging.parent().unwrap_or(&staging)))
            .map_err(|e| failed(said(format!("failed to save volume info data: {e}"))))?;
        let request = NodeStageVolumeRequest {
            volume_id: csi.volume_handle.clone(),
            publish_context: context.clone(),
            staging_target_path: staging.to_string_lossy().into_owned(),
            volume_capability: Some(self.capability()),
            secrets,
            volume_context: self.source.context.clone(),
        };
        if let Err(error) = self.driver.client.node_stage_volume(&request).await {
            if is_final(&error)
                && let Err(kept) = data::remove(&staging)
            {
                tracing::warn!(%kept, "staging directory not removed");
            }
            return Err(failed(error.go_text()));
        }
        state.set_staged(&self.unique, true);
        Ok(Some(staging))
    }

    fn capability(&self) -> csi::v1::VolumeCapability {
        let mode = request::access_mode(self.of.spec.access_modes(), &self.capabilities);
        let delegated = self.capabilities.has(NodeRpcType::VolumeMountGroup);
        let group = self.of.group.filter(|_| delegated);
        request::file_system(mode, &self.source.fs_type, self.of.spec.mount_options(), group)
    }

    /// When the tokens in it are to be renewed.
    async fn publish(
        &self,
        context: BTreeMap<String, String>,
        staging: Option<PathBuf>,
        is_again: bool,
    ) -> Result<Option<Timestamp>, Failed> {
        let secret = self.source.secret.as_ref();
        let mut secrets_sent = self.secret(secret, "NodePublishSecretRef").await?;
        let mut volume_context = self.source.context.clone();
        if self.facts.pod_info {
            let ephemeral = self.source.persistent.is_none();
            volume_context.extend(request::pod_info(self.of.pod, ephemeral));
        }
        let mut renew = None;
        if !self.facts.tokens.is_empty() {
            let (tokens, at) = self.tokens().await?;
            renew = Some(at);
            match self.facts.tokens_in_secrets {
                true => secrets_sent.extend(secrets([(TOKENS.to_owned(), tokens)])),
                false => drop(volume_context.insert(TOKENS.to_owned(), tokens)),
            }
        }
        self.save()
            .map_err(|e| said(format!("mounter.SetUpAt failed to save volume info data: {e}")))?;
        let request = NodePublishVolumeRequest {
            volume_id: self.source.handle.clone(),
            publish_context: context,
            staging_target_path: staging
                .map(|p| p.to_string_lossy().into_owned())
                .unwrap_or_default(),
            target_path: self.target.to_string_lossy().into_owned(),
            volume_capability: Some(self.capability()),
            readonly: self.of.spec.read_only(),
            secrets: secrets_sent,
            volume_context,
        };
        if let Err(error) = self.driver.client.node_publish_volume(&request).await {
            // A pod that has the volume already keeps it as it is.
            if is_final(&error)
                && !is_again
                && let Err(kept) = data::remove(&self.target)
            {
                tracing::warn!(%kept, "volume directory not removed");
            }
            return Err(error.go_text().into());
        }
        Ok(renew)
    }

    fn save(&self) -> std::io::Result<()> {
        let node = &self.of.shared.config.node_name;
        let data = Data {
            spec_name: self.of.spec.name().to_owned(),
            volume_handle: self.source.handle.clone(),
            driver_name: self.source.driver.clone(),
            node_name: node.clone(),
            attachment: names::attachment(&self.source.handle, &self.source.driver, node),
            volume_lifecycle_mode: self.source.mode().to_owned(),
            rest: BTreeMap::new(),
        };
        data.save(self.target.parent().unwrap_or(&self.target))
    }

    async fn secret(
        &self,
        reference: Option<&(String, String)>,
        field: &str,
    ) -> Result<Vec<Sent>, String> {
        read_secret(self.of.shared, reference, field).await
    }

    /// A map from audience to token, as JSON.
    async fn tokens(&self) -> Result<(String, Timestamp), String> {
        let mut all = serde_json::Map::new();
        let mut renew = Timestamp::MAX;
        for wanted in &self.facts.tokens {
            let projection = ServiceAccountTokenProjection {
                audience: Some(wanted.audience.clone()),
                expiration_seconds: wanted.expiration_seconds,
                path: String::new(),
            };
            let of = self.of;
            let token = token::get(&of.shared.client, of.pod, &projection, of.tokens).await;
            let token = token.map_err(|why| {
                said(format!(
                    "mounter.SetUpAt failed to get service accoount token attributes: {why}"
                ))
            })?;
            renew = renew.min(token.refresh_at);
            let shown =
                serde_json::json!({"token": token.token, "expirationTimestamp": token.expires});
            all.insert(wanted.audience.clone(), shown);
        }
        Ok((serde_json::Value::Object(all).to_string(), renew))
    }

    async fn expand(&self) -> Result<(), Failed> {
        if self.source.persistent.is_none() || !self.capabilities.has(NodeRpcType::ExpandVolume) {
            return Ok(());
        }
        let volume = expand::Volume {
            handle: &self.source.handle,
            path: &self.target,
            staging: self.of.shared.volumes.csi.is_staged(&self.unique).then(|| {
                names::staging(
                    &self.of.shared.config.root_dir,
                    &self.source.driver,
                    &self.source.handle,
                )
            }),
            capability: self.capability(),
        };
        expand::run(self.of, &self.driver, &volume).await
    }

    async fn give_to_group(&self) -> Result<(), Failed> {
        let Some(group) = self.of.group else { return Ok(()) };
        let delegated = self.capabilities.has(NodeRpcType::VolumeMountGroup);
        let policy = self.facts.group_policy;
        if delegated || !request::kubelet_sets_group(self.of.spec, &self.source.fs_type, policy) {
            return Ok(());
        }
        let only_on_mismatch = change_policy(self.of.pod);
        let ownership = Ownership { group, read_only: false, only_on_mismatch };
        let target = self.target.clone();
        let done = tokio::task::spawn_blocking(move || ownership.apply(&target)).await;
        let failed = |e: String| format!("applyFSGroup failed for vol {}: {e}", self.source.handle);
        done.map_err(|e| failed(e.to_string()))?.map_err(|e| failed(e.to_string()))?;
        Ok(())
    }
}

/// The data of a secret that a PersistentVolume or a pod's volume names.
pub(super) async fn read_secret(
    shared: &crate::kubelet::Shared,
    reference: Option<&(String, String)>,
    field: &str,
) -> Result<Vec<Sent>, String> {
    let Some((namespace, name)) = reference else { return Ok(Vec::new()) };
    let failed = |why: String| format!("fetching {field} {namespace}/{name} failed: {why}");
    let found = shared.client.get::<Secret>(namespace, name).await.map_err(|error| {
        let text = "failed to find the secret";
        failed(said(format!("{text} {name} in the namespace {namespace} with error: {error}")))
    })?;
    let text = |(key, value): (String, k8s_openapi::ByteString)| {
        let value = String::from_utf8(value.0);
        let value = value.map_err(|_| failed(format!("the value of {key:?} is not UTF-8")))?;
        Ok((key, value))
    };
    let all: Result<Vec<_>, String> =
        found.data.unwrap_or_default().into_iter().map(text).collect();
    Ok(secrets(all?))
}
