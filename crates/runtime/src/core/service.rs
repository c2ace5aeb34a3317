//! The two traits, mapped onto the runtime: filters, look-ups, conditions.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::broadcast::error::RecvError;

use super::{Embedded, Inner, container, sandbox};
use crate::cri::*;
use crate::error::{Error, Result};
use crate::figures::PodFigures;
use crate::image::StoredImage;
use crate::service::{Duplex, ExecSession, ImageService, RuntimeService, StreamOptions};
use crate::wire::Ask;

/// Whether all wanted labels are there.
fn labelled(have: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(k, v)| have.get(k) == Some(v))
}

/// An id, or the start of one; empty fits all.
fn fits(id: &str, wanted: &str) -> bool {
    wanted.is_empty() || id.starts_with(wanted)
}

/// Runs what walks the disk where it may block.
async fn blocking<T: Send + 'static>(
    inner: &Arc<Inner>,
    work: impl FnOnce(&Inner) -> Result<T> + Send + 'static,
) -> Result<T> {
    let inner = inner.clone();
    let done = tokio::task::spawn_blocking(move || work(&inner)).await;
    done.map_err(|e| Error::Supervisor(format!("worker: {e}")))?
}

/// Goes on to its end when the caller gives up: half a start would be a process that nobody knows.
async fn whole<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    tokio::spawn(work).await.map_err(|e| Error::Supervisor(e.to_string()))?
}

#[async_trait]
impl RuntimeService for Embedded {
    async fn version(&self) -> Result<VersionResponse> {
        Ok(VersionResponse {
            version: "0.1.0".to_owned(),
            runtime_name: "trireme".to_owned(),
            runtime_version: env!("CARGO_PKG_VERSION").to_owned(),
            runtime_api_version: "v1".to_owned(),
        })
    }

    async fn status(&self, _verbose: bool) -> Result<StatusResponse> {
        let condition =
            |r#type: &str, state: std::result::Result<(), String>, reason: &str| RuntimeCondition {
                r#type: r#type.to_owned(),
                status: state.is_ok(),
                reason: if state.is_ok() { String::new() } else { reason.to_owned() },
                message: state.err().unwrap_or_default(),
            };
        let features = RuntimeHandlerFeatures {
            recursive_read_only_mounts: true,
            user_namespaces: self.inner.has_user_namespaces().await,
        };
        let handler =
            |name: &str| RuntimeHandler { name: name.to_owned(), features: Some(features.clone()) };
        Ok(StatusResponse {
            status: Some(RuntimeStatus {
                conditions: vec![
                    condition("RuntimeReady", Ok(()), ""),
                    condition("NetworkReady", self.inner.network.ready(), "NetworkPluginNotReady"),
                ],
            }),
            info: BTreeMap::new(),
            runtime_handlers: [handler(""), handler("trireme")]
                .into_iter()
                .chain(self.inner.oci_handlers())
                .collect(),
            features: Some(RuntimeFeatures {
                supplemental_groups_policy: true,
                user_namespaces_host_network: false,
            }),
        })
    }

    async fn runtime_config(&self) -> Result<RuntimeConfigResponse> {
        let cgroup_driver = CgroupDriver::Cgroupfs as i32;
        Ok(RuntimeConfigResponse { linux: Some(LinuxRuntimeConfiguration { cgroup_driver }) })
    }

    async fn update_runtime_config(&self, config: RuntimeConfig) -> Result<()> {
        let cidr = config.network_config.map(|n| n.pod_cidr).unwrap_or_default();
        *self.inner.pod_cidr.lock().expect("no holder panics") = cidr;
        Ok(())
    }

    async fn run_pod_sandbox(&self, request: RunPodSandboxRequest) -> Result<String> {
        let inner = self.inner.clone();
        whole(async move { inner.run_sandbox(request).await }).await
    }

    async fn stop_pod_sandbox(&self, id: &str) -> Result<()> {
        self.inner.stop_sandbox(id).await
    }

    async fn remove_pod_sandbox(&self, id: &str) -> Result<()> {
        let (inner, id) = (self.inner.clone(), id.to_owned());
        whole(async move { inner.remove_sandbox(&id).await }).await
    }

    async fn pod_sandbox_status(
        &self,
        id: &str,
        _verbose: bool,
    ) -> Result<PodSandboxStatusResponse> {
        let record = self.inner.sandbox_record(id)?;
        let state = self.inner.state();
        let mine = state.containers.values().filter(|c| c.record.sandbox_id == id);
        Ok(PodSandboxStatusResponse {
            status: Some(sandbox::status(&record)),
            info: BTreeMap::new(),
            containers_statuses: mine.map(|c| container::status(&c.record)).collect(),
            timestamp: super::now_ns(),
        })
    }

    async fn list_pod_sandboxes(&self, filter: PodSandboxFilter) -> Result<Vec<PodSandbox>> {
        let state = self.inner.state();
        let all = state.sandboxes.values().map(|s| sandbox::listed(&s.record));
        let wanted = |s: &PodSandbox| {
            fits(&s.id, &filter.id)
                && filter.state.as_ref().is_none_or(|f| f.state == s.state)
                && labelled(&s.labels, &filter.label_selector)
        };
        Ok(all.filter(wanted).collect())
    }

    async fn update_pod_sandbox_resources(
        &self,
        request: UpdatePodSandboxResourcesRequest,
    ) -> Result<()> {
        let record = self.inner.sandbox_record(&request.pod_sandbox_id)?;
        let Some(resources) = request.resources else { return Ok(()) };
        let group = self.inner.parent_group(&record.config());
        self.inner.cgroups.group(&group)?.apply(&resources)
    }

    async fn create_container(&self, request: CreateContainerRequest) -> Result<String> {
        let inner = self.inner.clone();
        whole(async move { inner.create_container(request).await }).await
    }

    async fn start_container(&self, id: &str) -> Result<()> {
        let (inner, id) = (self.inner.clone(), id.to_owned());
        whole(async move { inner.start_container(&id).await }).await
    }

    async fn stop_container(&self, id: &str, timeout: i64) -> Result<()> {
        self.inner.stop_container(id, timeout).await
    }

    async fn remove_container(&self, id: &str) -> Result<()> {
        let (inner, id) = (self.inner.clone(), id.to_owned());
        whole(async move { inner.remove_container(&id).await }).await
    }

    async fn list_containers(&self, filter: ContainerFilter) -> Result<Vec<Container>> {
        let state = self.inner.state();
        let all = state.containers.values().map(|c| container::listed(&c.record));
        let wanted = |c: &Container| {
            fits(&c.id, &filter.id)
                && fits(&c.pod_sandbox_id, &filter.pod_sandbox_id)
                && filter.state.as_ref().is_none_or(|f| f.state == c.state)
                && labelled(&c.labels, &filter.label_selector)
        };
        Ok(all.filter(wanted).collect())
    }

    async fn container_status(&self, id: &str, _verbose: bool) -> Result<ContainerStatusResponse> {
        let record = self.inner.container_record(id)?;
        Ok(ContainerStatusResponse {
            status: Some(container::status(&record)),
            info: BTreeMap::new(),
        })
    }

    async fn update_container_resources(
        &self,
        request: UpdateContainerResourcesRequest,
    ) -> Result<()> {
        self.inner.update_resources(request)
    }

    async fn reopen_container_log(&self, id: &str) -> Result<()> {
        self.inner.container_record(id)?;
        self.inner.client.ask(Ask::ReopenLog(id.to_owned()), &[]).await.map(drop)
    }

    async fn exec_sync(&self, request: ExecSyncRequest) -> Result<ExecSyncResponse> {
        self.inner.exec_sync(request).await
    }

    async fn exec(
        &self,
        id: &str,
        cmd: Vec<String>,
        streams: StreamOptions,
    ) -> Result<ExecSession> {
        self.inner.exec(id, cmd, streams).await
    }

    async fn attach(&self, id: &str, streams: StreamOptions) -> Result<ExecSession> {
        self.inner.attach(id, streams).await
    }

    async fn port_forward(&self, sandbox_id: &str, port: u16) -> Result<Box<dyn Duplex>> {
        self.inner.port_forward(sandbox_id, port).await
    }

    async fn container_stats(&self, id: &str) -> Result<ContainerStats> {
        let record = self.inner.container_record(id)?;
        blocking(&self.inner, move |inner| inner.container_stats(&record)).await
    }

    async fn list_container_stats(
        &self,
        filter: ContainerStatsFilter,
    ) -> Result<Vec<ContainerStats>> {
        let wanted = move |c: &super::ContainerRecord| {
            fits(&c.id, &filter.id)
                && fits(&c.sandbox_id, &filter.pod_sandbox_id)
                && labelled(&c.config().labels, &filter.label_selector)
        };
        blocking(&self.inner, move |inner| {
            inner.running(wanted).iter().map(|c| inner.container_stats(c)).collect()
        })
        .await
    }

    async fn pod_sandbox_stats(&self, id: &str) -> Result<PodSandboxStats> {
        let record = self.inner.sandbox_record(id)?;
        blocking(&self.inner, move |inner| inner.sandbox_stats(&record)).await
    }

    async fn pod_figures(&self) -> Result<Vec<PodFigures>> {
        blocking(&self.inner, |inner| inner.pod_figures()).await
    }

    async fn list_pod_sandbox_stats(
        &self,
        filter: PodSandboxStatsFilter,
    ) -> Result<Vec<PodSandboxStats>> {
        let records: Vec<_> = {
            let state = self.inner.state();
            let all = state.sandboxes.values().map(|s| s.record.clone()).filter(|r| r.ready);
            let wanted = |r: &super::SandboxRecord| {
                fits(&r.id, &filter.id) && labelled(&r.config().labels, &filter.label_selector)
            };
            all.filter(wanted).collect()
        };
        blocking(&self.inner, move |inner| records.iter().map(|r| inner.sandbox_stats(r)).collect())
            .await
    }

    async fn events(&self) -> Result<BoxStream<'static, Result<ContainerEventResponse>>> {
        let receiver = self.inner.events.subscribe();
        let next = |state: Option<tokio::sync::broadcast::Receiver<_>>| async {
            let mut receiver = state?;
            match receiver.recv().await {
                Ok(event) => Some((Ok(event), Some(receiver))),
                Err(RecvError::Lagged(lost)) => Some((Err(Error::EventsLost(lost)), None)),
                Err(RecvError::Closed) => None,
            }
        };
        Ok(futures::stream::unfold(Some(receiver), next).boxed())
    }
}

fn image(stored: &StoredImage) -> Image {
    let (user, _) = stored.process.user.split_once(':').unwrap_or((&stored.process.user, ""));
    let uid = user.parse().ok();
    Image {
        id: stored.id.clone(),
        repo_tags: stored.tags.iter().cloned().collect(),
        repo_digests: stored.digests.iter().cloned().collect(),
        size: stored.size,
        username: if uid.is_none() { user.to_owned() } else { String::new() },
        uid: uid.map(|value| Int64Value { value }),
        spec: Some(ImageSpec { image: stored.id.clone(), ..ImageSpec::default() }),
        pinned: stored.pinned,
    }
}

fn wanted_name(spec: &Option<ImageSpec>) -> &str {
    spec.as_ref().map_or("", |s| s.image.as_str())
}

#[async_trait]
impl ImageService for Embedded {
    async fn list_images(&self, filter: ImageFilter) -> Result<Vec<Image>> {
        let name = wanted_name(&filter.image);
        if name.is_empty() {
            return Ok(self.inner.images.list().iter().map(image).collect());
        }
        Ok(self.inner.images.find(name).iter().map(image).collect())
    }

    async fn image_status(&self, spec: ImageSpec, _verbose: bool) -> Result<ImageStatusResponse> {
        let found = self.inner.images.find(&spec.image);
        Ok(ImageStatusResponse { image: found.as_ref().map(image), info: BTreeMap::new() })
    }

    async fn pull_image(&self, request: PullImageRequest) -> Result<String> {
        let name = wanted_name(&request.image).to_owned();
        crate::pull::pull(
            &self.inner.images,
            &self.inner.config,
            &name,
            request.auth.unwrap_or_default(),
        )
        .await
    }

    async fn remove_image(&self, spec: ImageSpec) -> Result<()> {
        blocking(&self.inner, move |inner| inner.images.remove(&spec.image, &inner.layers_in_use()))
            .await
    }

    async fn image_fs_info(&self) -> Result<ImageFsInfoResponse> {
        blocking(&self.inner, |inner| {
            let usage = FilesystemUsage {
                timestamp: super::now_ns(),
                fs_id: Some(inner.filesystem()),
                used_bytes: Some(UInt64Value { value: inner.images.used_bytes() }),
                inodes_used: None,
            };
            Ok(ImageFsInfoResponse {
                image_filesystems: vec![usage.clone()],
                container_filesystems: vec![usage],
            })
        })
        .await
    }
}
