//! A runtime for tests: sandboxes and containers as entries of a table, ended on command.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use runtime::cri::*;
use runtime::{Duplex, Error, ExecSession, ImageService, Result, RuntimeService, StreamOptions};
use tokio::sync::broadcast;

#[derive(Default)]
pub(crate) struct Table {
    pub(crate) sandboxes: BTreeMap<String, (PodSandboxConfig, bool)>,
    pub(crate) containers: BTreeMap<String, (String, ContainerConfig, ContainerStatus)>,
    next: u64,
}

pub(crate) struct FakeRuntime {
    pub(crate) table: Mutex<Table>,
    events: broadcast::Sender<ContainerEventResponse>,
    /// Told whenever a container's log is to be opened anew.
    pub(crate) reopened: tokio::sync::Notify,
    /// What the default handler says it can do.
    pub(crate) features: Mutex<RuntimeHandlerFeatures>,
    /// Every command that was run to its end, with its time limit.
    pub(crate) commands: Mutex<Vec<(String, i64)>>,
    /// The command `hang` ends when this is told, as one that ran out of time.
    pub(crate) out_of_time: tokio::sync::Notify,
    /// Containers that were told to end, in that order, with their time.
    pub(crate) stops: Mutex<Vec<(String, i64)>>,
    /// A container called `slow` ends when this is told.
    pub(crate) let_end: tokio::sync::Notify,
    /// New values of cgroups, in the order they came: `name cpu=shares/quota memory=limit`.
    pub(crate) updates: Mutex<Vec<String>>,
    /// What every container and pod uses, in bytes.
    pub(crate) memory_used: std::sync::atomic::AtomicU64,
    /// Commands under way, and the most there ever were.
    pub(crate) under_way: tokio::sync::watch::Sender<(usize, usize)>,
}

/// A command, until it ends or its caller drops it.
struct UnderWay<'a>(&'a tokio::sync::watch::Sender<(usize, usize)>);

impl<'a> UnderWay<'a> {
    fn new(count: &'a tokio::sync::watch::Sender<(usize, usize)>) -> UnderWay<'a> {
        count.send_modify(|(now, most)| {
            *now += 1;
            *most = (*most).max(*now);
        });
        UnderWay(count)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|(now, _)| *now -= 1);
    }
}

fn now() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap()
}

fn selected(labels: &BTreeMap<String, String>, selector: &BTreeMap<String, String>) -> bool {
    selector.iter().all(|(k, v)| labels.get(k) == Some(v))
}

fn values(name: &str, r: &LinuxContainerResources) -> String {
    let mut text = name.to_owned();
    if r.cpu_shares != 0 || r.cpu_quota != 0 {
        text += &format!(" cpu={}/{}", r.cpu_shares, r.cpu_quota);
    }
    if !r.cpuset_cpus.is_empty() {
        text += &format!(" cpus={}", r.cpuset_cpus);
    }
    if r.memory_limit_in_bytes != 0 {
        text += &format!(" memory={}", r.memory_limit_in_bytes);
    }
    text
}

fn gone<T>(kind: &'static str, id: &str) -> Result<T> {
    Err(Error::NotFound { kind, id: id.into() })
}

impl FakeRuntime {
    pub(crate) fn new() -> Arc<FakeRuntime> {
        Arc::new(FakeRuntime {
            table: Mutex::default(),
            events: broadcast::channel(100).0,
            reopened: tokio::sync::Notify::new(),
            features: Mutex::default(),
            commands: Mutex::default(),
            out_of_time: tokio::sync::Notify::new(),
            stops: Mutex::default(),
            let_end: tokio::sync::Notify::new(),
            updates: Mutex::default(),
            memory_used: std::sync::atomic::AtomicU64::new(0),
            under_way: tokio::sync::watch::Sender::new((0, 0)),
        })
    }

    fn tell(&self, id: &str, kind: ContainerEventType) {
        let table = self.table.lock().unwrap();
        let statuses = table.containers.get(id).map(|c| c.2.clone());
        let event = ContainerEventResponse {
            container_id: id.into(),
            container_event_type: kind as i32,
            containers_statuses: statuses.into_iter().collect(),
            ..Default::default()
        };
        let _nobody = self.events.send(event);
    }

    fn name_of(&self, id: &str) -> String {
        let table = self.table.lock().unwrap();
        let config = table.containers.get(id).map(|c| c.1.clone());
        config.and_then(|c| c.metadata).map(|m| m.name).unwrap_or_default()
    }

    fn memory(&self) -> Option<MemoryUsage> {
        let value = self.memory_used.load(std::sync::atomic::Ordering::Relaxed);
        Some(MemoryUsage { usage_bytes: Some(UInt64Value { value }), ..Default::default() })
    }

    /// Ends the newest running container of that name.
    pub(crate) fn exit(&self, name: &str, code: i32) {
        let id = {
            let mut table = self.table.lock().unwrap();
            let mut all = table.containers.iter_mut();
            let running = |s: &ContainerStatus| s.state == ContainerState::Running as i32;
            let found =
                all.find(|(_, c)| c.1.metadata.as_ref().unwrap().name == name && running(&c.2));
            let (id, container) = found.unwrap();
            container.2.state = ContainerState::Exited as i32;
            container.2.exit_code = code;
            container.2.finished_at = now();
            id.clone()
        };
        self.tell(&id, ContainerEventType::Stopped);
    }
}

#[async_trait]
impl RuntimeService for FakeRuntime {
    async fn version(&self) -> Result<VersionResponse> {
        Ok(VersionResponse {
            runtime_name: "trireme".into(),
            runtime_version: "test".into(),
            ..Default::default()
        })
    }
    async fn status(&self, _: bool) -> Result<StatusResponse> {
        let features = Some(self.features.lock().unwrap().clone());
        let runtime_handlers = vec![RuntimeHandler { name: String::new(), features }];
        Ok(StatusResponse { runtime_handlers, ..StatusResponse::default() })
    }
    async fn runtime_config(&self) -> Result<RuntimeConfigResponse> {
        Ok(RuntimeConfigResponse::default())
    }
    async fn update_runtime_config(&self, _: RuntimeConfig) -> Result<()> {
        Ok(())
    }
    async fn run_pod_sandbox(&self, request: RunPodSandboxRequest) -> Result<String> {
        let mut table = self.table.lock().unwrap();
        table.next += 1;
        if !request.runtime_handler.is_empty() {
            let handler = request.runtime_handler;
            return Err(Error::Invalid(format!("no runtime for {handler:?} is configured")));
        }
        let id = format!("sandbox{}", table.next);
        table.sandboxes.insert(id.clone(), (request.config.unwrap(), true));
        Ok(id)
    }
    async fn stop_pod_sandbox(&self, id: &str) -> Result<()> {
        if let Some(sandbox) = self.table.lock().unwrap().sandboxes.get_mut(id) {
            sandbox.1 = false;
        }
        Ok(())
    }
    async fn remove_pod_sandbox(&self, id: &str) -> Result<()> {
        let mut table = self.table.lock().unwrap();
        table.sandboxes.remove(id);
        table.containers.retain(|_, c| c.0 != id);
        Ok(())
    }
    async fn pod_sandbox_status(&self, id: &str, _: bool) -> Result<PodSandboxStatusResponse> {
        let table = self.table.lock().unwrap();
        let Some((config, ready)) = table.sandboxes.get(id) else { return gone("sandbox", id) };
        let state = if *ready { PodSandboxState::Ready } else { PodSandboxState::Notready };
        let status = PodSandboxStatus {
            id: id.into(),
            metadata: config.metadata.clone(),
            state: state as i32,
            network: Some(PodSandboxNetworkStatus {
                ip: "127.0.0.1".into(),
                additional_ips: vec![],
            }),
            labels: config.labels.clone(),
            ..Default::default()
        };
        Ok(PodSandboxStatusResponse { status: Some(status), ..Default::default() })
    }
    async fn list_pod_sandboxes(&self, filter: PodSandboxFilter) -> Result<Vec<PodSandbox>> {
        let table = self.table.lock().unwrap();
        let all =
            table.sandboxes.iter().filter(|(_, s)| selected(&s.0.labels, &filter.label_selector));
        Ok(all
            .map(|(id, s)| PodSandbox {
                id: id.clone(),
                metadata: s.0.metadata.clone(),
                labels: s.0.labels.clone(),
                state: i32::from(!s.1),
                ..Default::default()
            })
            .collect())
    }
    async fn update_pod_sandbox_resources(
        &self,
        request: UpdatePodSandboxResourcesRequest,
    ) -> Result<()> {
        self.updates.lock().unwrap().push(values("pod", &request.resources.unwrap()));
        Ok(())
    }
    async fn create_container(&self, request: CreateContainerRequest) -> Result<String> {
        let mut table = self.table.lock().unwrap();
        table.next += 1;
        let id = format!("container{}", table.next);
        let config = request.config.unwrap();
        let status = ContainerStatus {
            id: id.clone(),
            metadata: config.metadata.clone(),
            image: config.image.clone(),
            image_ref: "sha256:feed".into(),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            mounts: config.mounts.clone(),
            created_at: now(),
            ..Default::default()
        };
        table.containers.insert(id.clone(), (request.pod_sandbox_id, config, status));
        Ok(id)
    }
    async fn start_container(&self, id: &str) -> Result<()> {
        {
            let mut table = self.table.lock().unwrap();
            let Some(container) = table.containers.get_mut(id) else {
                return gone("container", id);
            };
            container.2.state = ContainerState::Running as i32;
            container.2.started_at = now();
        }
        self.tell(id, ContainerEventType::Started);
        Ok(())
    }
    async fn stop_container(&self, id: &str, timeout: i64) -> Result<()> {
        let name = self.name_of(id);
        self.stops.lock().unwrap().push((name.clone(), timeout));
        if name == "slow" {
            self.let_end.notified().await;
        }
        {
            let mut table = self.table.lock().unwrap();
            let Some(container) = table.containers.get_mut(id) else { return Ok(()) };
            if container.2.state == ContainerState::Running as i32 {
                container.2.state = ContainerState::Exited as i32;
                container.2.exit_code = 143;
                container.2.finished_at = now();
            }
        }
        self.tell(id, ContainerEventType::Stopped);
        Ok(())
    }
    async fn remove_container(&self, id: &str) -> Result<()> {
        self.table.lock().unwrap().containers.remove(id);
        Ok(())
    }
    async fn list_containers(&self, filter: ContainerFilter) -> Result<Vec<Container>> {
        let table = self.table.lock().unwrap();
        let all = table.containers.values();
        Ok(all
            .filter(|c| selected(&c.1.labels, &filter.label_selector))
            .filter(|c| filter.state.as_ref().is_none_or(|s| s.state == c.2.state))
            .map(|(sandbox, config, status)| Container {
                id: status.id.clone(),
                pod_sandbox_id: sandbox.clone(),
                metadata: config.metadata.clone(),
                labels: config.labels.clone(),
                state: status.state,
                created_at: status.created_at,
                ..Default::default()
            })
            .collect())
    }
    async fn container_status(&self, id: &str, _: bool) -> Result<ContainerStatusResponse> {
        let table = self.table.lock().unwrap();
        let Some(container) = table.containers.get(id) else { return gone("container", id) };
        Ok(ContainerStatusResponse { status: Some(container.2.clone()), ..Default::default() })
    }
    async fn update_container_resources(
        &self,
        request: UpdateContainerResourcesRequest,
    ) -> Result<()> {
        let name = self.name_of(&request.container_id);
        self.updates.lock().unwrap().push(values(&name, &request.linux.unwrap()));
        Ok(())
    }
    async fn reopen_container_log(&self, _: &str) -> Result<()> {
        self.reopened.notify_one();
        Ok(())
    }
    async fn exec_sync(&self, request: ExecSyncRequest) -> Result<ExecSyncResponse> {
        let exit_code = i32::from(request.cmd.first().is_some_and(|c| c == "false"));
        let hangs = request.cmd.first().is_some_and(|c| c == "hang");
        let _under_way = UnderWay::new(&self.under_way);
        if hangs {
            self.out_of_time.notified().await;
        }
        let command = (request.cmd.join(" "), request.timeout);
        self.commands.lock().unwrap().push(command);
        if hangs {
            return Err(Error::ExecTimeout(request.timeout));
        }
        Ok(ExecSyncResponse { exit_code, ..Default::default() })
    }
    async fn exec(&self, _: &str, cmd: Vec<String>, _: StreamOptions) -> Result<ExecSession> {
        let text = cmd.join(" ").into_bytes();
        let (resize, _) = tokio::sync::mpsc::channel(1);
        Ok(ExecSession {
            stdin: None,
            stdout: Some(Box::new(std::io::Cursor::new(text))),
            stderr: None,
            resize,
            exit: Box::pin(async { Ok(3) }),
        })
    }
    async fn attach(&self, id: &str, streams: StreamOptions) -> Result<ExecSession> {
        self.exec(id, vec!["attached".into()], streams).await
    }
    async fn port_forward(&self, _: &str, _: u16) -> Result<Box<dyn Duplex>> {
        let (near, far) = tokio::io::duplex(1024);
        // An echo: what is written comes back.
        drop(far);
        Ok(Box::new(near))
    }
    async fn container_stats(&self, _: &str) -> Result<ContainerStats> {
        Ok(ContainerStats { memory: self.memory(), ..Default::default() })
    }
    async fn list_container_stats(&self, _: ContainerStatsFilter) -> Result<Vec<ContainerStats>> {
        Ok(Vec::new())
    }
    async fn pod_sandbox_stats(&self, _: &str) -> Result<PodSandboxStats> {
        let linux = LinuxPodSandboxStats { memory: self.memory(), ..Default::default() };
        Ok(PodSandboxStats { linux: Some(linux), ..Default::default() })
    }
    async fn list_pod_sandbox_stats(
        &self,
        _: PodSandboxStatsFilter,
    ) -> Result<Vec<PodSandboxStats>> {
        let table = self.table.lock().unwrap();
        let ready = table.sandboxes.iter().filter(|(_, (_, ready))| *ready);
        let stats = ready.map(|(id, (config, _))| PodSandboxStats {
            attributes: Some(PodSandboxAttributes {
                id: id.clone(),
                labels: config.labels.clone(),
                ..Default::default()
            }),
            linux: None,
        });
        Ok(stats.collect())
    }
    async fn events(&self) -> Result<BoxStream<'static, Result<ContainerEventResponse>>> {
        let events = self.events.subscribe();
        let stream = futures::stream::unfold(events, |mut events| async {
            events.recv().await.ok().map(|e| (Ok(e), events))
        });
        Ok(stream.boxed())
    }
}

/// Every image is here, but for those called `missing…`. Of these `missing/private…` can be pulled by `a`,
/// and the registry of `missing/unavailable` does not answer.
#[derive(Default)]
pub(crate) struct FakeImages {
    /// Image and user of every pull.
    pub(crate) pulls: Mutex<Vec<(String, String)>>,
    /// Of those that are missing, what is here all the same.
    pub(crate) here: Mutex<std::collections::BTreeSet<String>>,
}

#[async_trait]
impl ImageService for FakeImages {
    async fn list_images(&self, _: ImageFilter) -> Result<Vec<Image>> {
        Ok(Vec::new())
    }
    async fn image_status(&self, image: ImageSpec, _: bool) -> Result<ImageStatusResponse> {
        let found = Image { id: "sha256:feed".into(), ..Default::default() };
        let here = self.here.lock().unwrap().contains(&image.image);
        let image = (here || !image.image.starts_with("missing")).then_some(found);
        Ok(ImageStatusResponse { image, ..Default::default() })
    }
    async fn pull_image(&self, request: PullImageRequest) -> Result<String> {
        let image = request.image.unwrap().image;
        let user = request.auth.unwrap_or_default().username;
        self.pulls.lock().unwrap().push((image.clone(), user.clone()));
        if image.starts_with("missing/private") && user == "a" {
            return Ok("sha256:feed".into());
        }
        if image.starts_with("missing/unavailable") {
            return Err(Error::Precondition("RegistryUnavailable: no route to host".into()));
        }
        Err(Error::Image { image, message: "no such image".into() })
    }
    async fn remove_image(&self, _: ImageSpec) -> Result<()> {
        Ok(())
    }
    async fn image_fs_info(&self) -> Result<ImageFsInfoResponse> {
        Ok(ImageFsInfoResponse::default())
    }
}
