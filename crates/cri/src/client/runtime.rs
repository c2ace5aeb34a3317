//! The runtime service.

use std::time::Duration;

use ::runtime::cri::*;
use ::runtime::{
    Code, Duplex, Error, ExecSession, PodFigures, Result, RuntimeService, StreamOptions,
};
use async_trait::async_trait;
use futures::stream::BoxStream;

use super::{Client, DEADLINE, UNLIMITED, gone_is_fine};

/// The path of a method of the runtime service.
macro_rules! method {
    ($name:literal) => {
        concat!("/runtime.v1.RuntimeService/", $name)
    };
}
pub(super) use method;

/// How long a call may take that does something for `seconds` by itself.
fn with_slack(seconds: i64) -> Duration {
    DEADLINE.saturating_add(Duration::from_secs(seconds.max(0).unsigned_abs()))
}

#[async_trait]
impl RuntimeService for Client {
    async fn version(&self) -> Result<VersionResponse> {
        let asked = VersionRequest { version: "v1".to_owned() };
        let found: VersionResponse = self.ask(method!("Version"), &asked).await?;
        match found.runtime_api_version.as_str() {
            "v1" => Ok(found),
            other => Err(Error::Unsupported(format!("CRI {other}: only v1 is spoken"))),
        }
    }

    async fn status(&self, verbose: bool) -> Result<StatusResponse> {
        self.ask(method!("Status"), &StatusRequest { verbose }).await
    }

    async fn runtime_config(&self) -> Result<RuntimeConfigResponse> {
        self.ask(method!("RuntimeConfig"), &RuntimeConfigRequest {}).await
    }

    async fn update_runtime_config(&self, config: RuntimeConfig) -> Result<()> {
        let asked = UpdateRuntimeConfigRequest { runtime_config: Some(config) };
        let _: UpdateRuntimeConfigResponse =
            self.ask(method!("UpdateRuntimeConfig"), &asked).await?;
        Ok(())
    }

    async fn run_pod_sandbox(&self, request: RunPodSandboxRequest) -> Result<String> {
        // Upstream waits twice as long: networks take their time.
        let answer: RunPodSandboxResponse =
            self.wait(method!("RunPodSandbox"), &request, 2 * DEADLINE).await?;
        Ok(answer.pod_sandbox_id)
    }

    async fn stop_pod_sandbox(&self, id: &str) -> Result<()> {
        let asked = StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
        let done: Result<StopPodSandboxResponse> =
            self.wait(method!("StopPodSandbox"), &asked, 2 * DEADLINE).await;
        gone_is_fine(done.map(drop))
    }

    async fn remove_pod_sandbox(&self, id: &str) -> Result<()> {
        // Runtimes refuse to remove what was not stopped.
        self.stop_pod_sandbox(id).await?;
        let asked = RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
        let done: Result<RemovePodSandboxResponse> =
            self.wait(method!("RemovePodSandbox"), &asked, DEADLINE).await;
        gone_is_fine(done.map(drop))
    }

    async fn pod_sandbox_status(
        &self,
        id: &str,
        verbose: bool,
    ) -> Result<PodSandboxStatusResponse> {
        let asked = PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose };
        self.ask(method!("PodSandboxStatus"), &asked).await
    }

    async fn list_pod_sandboxes(&self, filter: PodSandboxFilter) -> Result<Vec<PodSandbox>> {
        let asked = ListPodSandboxRequest { filter: Some(filter) };
        let answer: ListPodSandboxResponse = self.ask(method!("ListPodSandbox"), &asked).await?;
        Ok(answer.items)
    }

    async fn update_pod_sandbox_resources(
        &self,
        request: UpdatePodSandboxResourcesRequest,
    ) -> Result<()> {
        let _: UpdatePodSandboxResourcesResponse =
            self.ask(method!("UpdatePodSandboxResources"), &request).await?;
        Ok(())
    }

    async fn create_container(&self, request: CreateContainerRequest) -> Result<String> {
        let answer: CreateContainerResponse =
            self.ask(method!("CreateContainer"), &request).await?;
        Ok(answer.container_id)
    }

    async fn start_container(&self, id: &str) -> Result<()> {
        let asked = StartContainerRequest { container_id: id.to_owned() };
        let _: StartContainerResponse = self.ask(method!("StartContainer"), &asked).await?;
        Ok(())
    }

    async fn stop_container(&self, id: &str, timeout: i64) -> Result<()> {
        let asked = StopContainerRequest { container_id: id.to_owned(), timeout };
        let done: Result<StopContainerResponse> =
            self.wait(method!("StopContainer"), &asked, with_slack(timeout)).await;
        gone_is_fine(done.map(drop))
    }

    async fn remove_container(&self, id: &str) -> Result<()> {
        let asked = RemoveContainerRequest { container_id: id.to_owned() };
        let done: Result<RemoveContainerResponse> =
            self.wait(method!("RemoveContainer"), &asked, DEADLINE).await;
        gone_is_fine(done.map(drop))
    }

    async fn list_containers(&self, filter: ContainerFilter) -> Result<Vec<Container>> {
        let asked = ListContainersRequest { filter: Some(filter) };
        let answer: ListContainersResponse = self.ask(method!("ListContainers"), &asked).await?;
        Ok(answer.containers)
    }

    async fn container_status(&self, id: &str, verbose: bool) -> Result<ContainerStatusResponse> {
        let asked = ContainerStatusRequest { container_id: id.to_owned(), verbose };
        self.ask(method!("ContainerStatus"), &asked).await
    }

    async fn update_container_resources(
        &self,
        request: UpdateContainerResourcesRequest,
    ) -> Result<()> {
        let _: UpdateContainerResourcesResponse =
            self.ask(method!("UpdateContainerResources"), &request).await?;
        Ok(())
    }

    async fn reopen_container_log(&self, id: &str) -> Result<()> {
        let asked = ReopenContainerLogRequest { container_id: id.to_owned() };
        let _: ReopenContainerLogResponse = self.ask(method!("ReopenContainerLog"), &asked).await?;
        Ok(())
    }

    async fn exec_sync(&self, request: ExecSyncRequest) -> Result<ExecSyncResponse> {
        let limit = if request.timeout > 0 { with_slack(request.timeout) } else { UNLIMITED };
        let done = self.wait(method!("ExecSync"), &request, limit).await;
        done.map_err(|error: Error| match error.code() {
            Code::DeadlineExceeded => Error::ExecTimeout(request.timeout),
            _ => error,
        })
    }

    async fn exec(
        &self,
        id: &str,
        cmd: Vec<String>,
        streams: StreamOptions,
    ) -> Result<ExecSession> {
        let StreamOptions { stdin, stdout, stderr, tty } = streams;
        let stderr = stderr && !tty;
        let asked = ExecRequest { container_id: id.to_owned(), cmd, tty, stdin, stdout, stderr };
        let answer: ExecResponse = self.ask(method!("Exec"), &asked).await?;
        self.session(&answer.url, StreamOptions { stderr, ..streams }).await
    }

    async fn attach(&self, id: &str, streams: StreamOptions) -> Result<ExecSession> {
        let StreamOptions { stdin, stdout, stderr, tty } = streams;
        let stderr = stderr && !tty;
        let asked = AttachRequest { container_id: id.to_owned(), tty, stdin, stdout, stderr };
        let answer: AttachResponse = self.ask(method!("Attach"), &asked).await?;
        self.session(&answer.url, StreamOptions { stderr, ..streams }).await
    }

    async fn port_forward(&self, sandbox_id: &str, port: u16) -> Result<Box<dyn Duplex>> {
        let asked = PortForwardRequest {
            pod_sandbox_id: sandbox_id.to_owned(),
            port: vec![i32::from(port)],
        };
        let answer: PortForwardResponse = self.ask(method!("PortForward"), &asked).await?;
        self.forward(&answer.url, port).await
    }

    async fn container_stats(&self, id: &str) -> Result<ContainerStats> {
        let asked = ContainerStatsRequest { container_id: id.to_owned() };
        let answer: ContainerStatsResponse = self.ask(method!("ContainerStats"), &asked).await?;
        answer.stats.ok_or_else(|| Error::Precondition(format!("container {id} has no figures")))
    }

    async fn list_container_stats(
        &self,
        filter: ContainerStatsFilter,
    ) -> Result<Vec<ContainerStats>> {
        let asked = ListContainerStatsRequest { filter: Some(filter) };
        let answer: ListContainerStatsResponse =
            self.ask(method!("ListContainerStats"), &asked).await?;
        Ok(answer.stats)
    }

    async fn pod_sandbox_stats(&self, id: &str) -> Result<PodSandboxStats> {
        let filter = PodSandboxStatsFilter { id: id.to_owned(), ..Default::default() };
        let mut found = self.list_pod_sandbox_stats(filter).await?.into_iter();
        let own = |s: &PodSandboxStats| s.attributes.as_ref().is_some_and(|a| a.id == id);
        found.find(own).ok_or_else(|| Error::Precondition(format!("sandbox {id} has no figures")))
    }

    async fn list_pod_sandbox_stats(
        &self,
        filter: PodSandboxStatsFilter,
    ) -> Result<Vec<PodSandboxStats>> {
        self.sandbox_stats(filter).await
    }

    async fn pod_figures(&self) -> Result<Vec<PodFigures>> {
        self.figures().await
    }

    async fn events(&self) -> Result<BoxStream<'static, Result<ContainerEventResponse>>> {
        self.follow().await
    }
}
