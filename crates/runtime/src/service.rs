//! What a container runtime does for the node agent: the CRI's two services as Rust traits.
//!
//! The messages are the CRI's own, so that an embedded runtime and an external one (containerd,
//! CRI-O) are the same to the caller. Three verbs differ from the protocol on purpose: exec, attach and
//! port-forward give the streams themselves instead of a URL to a streaming server, and events come
//! as a stream of messages. Both traits are dyn-compatible.

use std::net::IpAddr;
use std::path::PathBuf;

use async_trait::async_trait;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use crate::cri::*;
use crate::error::{Error, Result};
use crate::figures::PodFigures;

/// A byte stream from the container.
pub type Input = Box<dyn AsyncRead + Send + Unpin>;
/// A byte stream to the container; dropping or shutting it down closes the container's end.
pub type Output = Box<dyn AsyncWrite + Send + Unpin>;

/// Both directions of a forwarded port.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// The size of a terminal in character cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalSize {
    pub width: u16,
    pub height: u16,
}

/// Which streams the caller wants, and whether they are one terminal. With a terminal, `stderr` is
/// ignored: both come as `stdout`.
#[derive(Clone, Copy, Debug, Default)]
pub struct StreamOptions {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

/// A running exec or an attachment.
///
/// Dropping the streams of an exec does not end its process; it sees end of file and SIGPIPE as any
/// program would. `exit` resolves when the process has ended (exec) or the container has (attach).
pub struct ExecSession {
    pub stdin: Option<Output>,
    pub stdout: Option<Input>,
    pub stderr: Option<Input>,
    /// Terminal sizes; ignored when there is no terminal.
    pub resize: mpsc::Sender<TerminalSize>,
    /// The exit code: the process's own, or 128 + the signal that ended it.
    pub exit: BoxFuture<'static, Result<i32>>,
}

/// The CRI's RuntimeService.
#[async_trait]
pub trait RuntimeService: Send + Sync {
    async fn version(&self) -> Result<VersionResponse>;
    /// Conditions `RuntimeReady` and `NetworkReady`; handlers and features.
    async fn status(&self, verbose: bool) -> Result<StatusResponse>;
    /// The cgroup driver in use.
    async fn runtime_config(&self) -> Result<RuntimeConfigResponse>;
    /// Tells the runtime the node's pod CIDR.
    async fn update_runtime_config(&self, config: RuntimeConfig) -> Result<()>;

    /// Creates the namespaces and the network of a sandbox; returns its id. On failure nothing is left.
    async fn run_pod_sandbox(&self, request: RunPodSandboxRequest) -> Result<String>;
    /// Kills what still runs in the sandbox and gives back its network. Idempotent; an unknown id is no error.
    async fn stop_pod_sandbox(&self, id: &str) -> Result<()>;
    /// Stops and forgets the sandbox and its containers. Idempotent; an unknown id is no error.
    async fn remove_pod_sandbox(&self, id: &str) -> Result<()>;
    async fn pod_sandbox_status(&self, id: &str, verbose: bool)
    -> Result<PodSandboxStatusResponse>;
    async fn list_pod_sandboxes(&self, filter: PodSandboxFilter) -> Result<Vec<PodSandbox>>;
    /// In-place change of the pod-level cgroup's limits.
    async fn update_pod_sandbox_resources(
        &self,
        request: UpdatePodSandboxResourcesRequest,
    ) -> Result<()>;

    /// Prepares a container (root file system, plan); returns its id.
    async fn create_container(&self, request: CreateContainerRequest) -> Result<String>;
    /// Returns when the container's program has been executed; an error says which step failed.
    async fn start_container(&self, id: &str) -> Result<()>;
    /// The stop signal, then after `timeout` seconds SIGKILL; 0 kills at once. Returns when it has ended.
    /// Idempotent; an unknown id is no error.
    async fn stop_container(&self, id: &str, timeout: i64) -> Result<()>;
    /// Kills it if need be, and forgets it. Idempotent; an unknown id is no error.
    async fn remove_container(&self, id: &str) -> Result<()>;
    async fn list_containers(&self, filter: ContainerFilter) -> Result<Vec<Container>>;
    async fn container_status(&self, id: &str, verbose: bool) -> Result<ContainerStatusResponse>;
    async fn update_container_resources(
        &self,
        request: UpdateContainerResourcesRequest,
    ) -> Result<()>;
    /// Opens the log file by its path again; the caller has renamed it before.
    async fn reopen_container_log(&self, id: &str) -> Result<()>;

    /// Runs a command to its end. After `timeout` seconds (0: never) it is killed and the error is
    /// [`crate::Error::ExecTimeout`]. Output is cut at 16 MiB a stream.
    async fn exec_sync(&self, request: ExecSyncRequest) -> Result<ExecSyncResponse>;
    async fn exec(&self, id: &str, cmd: Vec<String>, streams: StreamOptions)
    -> Result<ExecSession>;
    /// Joins the streams of the container's main process. `streams.tty` must be what the container has.
    async fn attach(&self, id: &str, streams: StreamOptions) -> Result<ExecSession>;
    /// A TCP connection to `port` on the sandbox's loopback, made inside its network namespace.
    async fn port_forward(&self, sandbox_id: &str, port: u16) -> Result<Box<dyn Duplex>>;

    async fn container_stats(&self, id: &str) -> Result<ContainerStats>;
    async fn list_container_stats(
        &self,
        filter: ContainerStatsFilter,
    ) -> Result<Vec<ContainerStats>>;
    async fn pod_sandbox_stats(&self, id: &str) -> Result<PodSandboxStats>;
    async fn list_pod_sandbox_stats(
        &self,
        filter: PodSandboxStatsFilter,
    ) -> Result<Vec<PodSandboxStats>>;
    /// What every pod has used, in more detail than the CRI has it. Cheap: no file system is walked.
    async fn pod_figures(&self) -> Result<Vec<PodFigures>> {
        Err(Error::Unsupported("figures of pods".to_owned()))
    }

    /// Containers created, started, stopped, deleted from now on. The stream ends (with an error
    /// item) when the reader was too slow and events were lost: list again and subscribe anew.
    async fn events(&self) -> Result<BoxStream<'static, Result<ContainerEventResponse>>>;
}

/// The CRI's ImageService.
#[async_trait]
pub trait ImageService: Send + Sync {
    async fn list_images(&self, filter: ImageFilter) -> Result<Vec<Image>>;
    /// `image` in the answer is `None` when it is not here; that is no error.
    async fn image_status(&self, image: ImageSpec, verbose: bool) -> Result<ImageStatusResponse>;
    /// Returns the image's id, to use in `ContainerConfig.image`.
    async fn pull_image(&self, request: PullImageRequest) -> Result<String>;
    /// Idempotent. An image in use by a container loses its names; its layers go when the last user has.
    async fn remove_image(&self, image: ImageSpec) -> Result<()>;
    async fn image_fs_info(&self) -> Result<ImageFsInfoResponse>;
}

/// What the network must know of a sandbox.
#[derive(Clone, Debug, Default)]
pub struct SandboxNet {
    /// The sandbox's id.
    pub id: String,
    /// The pod's.
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// The bind mount that pins the network namespace; loopback is up already.
    pub netns: PathBuf,
    pub hostname: String,
    pub port_mappings: Vec<PortMapping>,
    pub annotations: std::collections::BTreeMap<String, String>,
}

/// The pod network, as far as the runtime needs it. Never called for host-network sandboxes.
#[async_trait]
pub trait SandboxNetwork: Send + Sync {
    /// Connects the sandbox; the first address is the primary one. On error nothing may be left.
    async fn attach(&self, sandbox: &SandboxNet) -> std::result::Result<Vec<IpAddr>, NetworkError>;
    /// Told once, when the runtime opens, of the sandboxes that are attached, with their addresses: what lies
    /// outside their namespaces and ended with the process (host ports) is made again.
    async fn resume(
        &self,
        sandboxes: Vec<(SandboxNet, Vec<IpAddr>)>,
    ) -> std::result::Result<(), NetworkError> {
        drop(sandboxes);
        Ok(())
    }
    /// Undoes `attach`. Called again after a crash, so it must be idempotent; `netns` may be gone.
    async fn detach(&self, sandbox: &SandboxNet) -> std::result::Result<(), NetworkError>;
    /// `Err` says why pods cannot be connected now: the runtime's `NetworkReady` condition.
    fn ready(&self) -> std::result::Result<(), String> {
        Ok(())
    }
}

/// The network's own error; the runtime only passes it on.
pub type NetworkError = Box<dyn std::error::Error + Send + Sync>;

/// No network beyond loopback: for tests, and for nodes that run host-network pods only.
#[derive(Debug, Default)]
pub struct LoopbackOnly;

#[async_trait]
impl SandboxNetwork for LoopbackOnly {
    async fn attach(&self, _: &SandboxNet) -> std::result::Result<Vec<IpAddr>, NetworkError> {
        Ok(Vec::new())
    }

    async fn detach(&self, _: &SandboxNet) -> std::result::Result<(), NetworkError> {
        Ok(())
    }
}
