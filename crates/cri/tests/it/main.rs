//! The embedded runtime through its socket: a pod's life, commands in it, and what is refused.

// A panic is how a test fails; the lint's own exception does not reach integration tests' helpers.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use cri::Streaming;
use grpc::{CallError, Channel, Connection, Dial, Settings};
use http_body_util::{BodyExt as _, Empty};
use prost::Message;
use runtime::cri::*;
use runtime::image::StaticImage;
use runtime::{Config, Embedded, ImageService, LoopbackOnly, RuntimeService};
use tasks::Tasks;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream, UnixStream};

mod client;
mod containerd;

const LIMIT: Duration = Duration::from_secs(20);

struct Socket(PathBuf);

impl Dial for Socket {
    fn dial(&self) -> Pin<Box<dyn Future<Output = Result<Connection, String>> + Send + '_>> {
        Box::pin(async {
            let stream = UnixStream::connect(&self.0).await.map_err(|e| e.to_string())?;
            Connection::open(stream, None).await
        })
    }
}

/// A runtime of this test's own behind its socket; all of it goes with this.
struct World {
    channel: Channel<Socket>,
    runtime: Arc<Embedded>,
    cgroup: String,
    tasks: Tasks,
    dir: tempfile::TempDir,
}

impl Drop for World {
    fn drop(&mut self) {
        self.tasks.cancel();
        // First, so that nobody starts another supervisor.
        let close = || tokio::runtime::Handle::current().block_on(self.runtime.close());
        tokio::task::block_in_place(close);
        let root = Path::new("/sys/fs/cgroup");
        let hierarchies = runtime::cgroup::Hierarchies::detect(root);
        let group = hierarchies.and_then(|all| all.group(&self.cgroup)).unwrap();
        let deadline = std::time::Instant::now() + LIMIT;
        while group.kill().and_then(|()| group.remove()).is_err() {
            assert!(std::time::Instant::now() < deadline, "cgroups stay");
            std::thread::yield_now();
        }
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let points = mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(Path::new);
        let mut own: Vec<&Path> = points.filter(|p| p.starts_with(self.dir.path())).collect();
        own.reverse();
        for path in own {
            // One may have gone with the one above it.
            let _ = rustix::mount::unmount(path, rustix::mount::UnmountFlags::DETACH);
        }
    }
}

fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().unwrap().parent().unwrap().join("examples").join(name)
}

fn busybox() -> StaticImage {
    let file = ["/bin/busybox", "/usr/bin/busybox"].map(Path::new);
    let file = file.into_iter().find(|path| path.exists());
    let tools = ["sh", "cat", "echo", "sleep", "nc"];
    StaticImage {
        file: file.expect("apt-get install busybox-static").to_owned(),
        path: "/bin/busybox".to_owned(),
        links: tools.map(|t| (format!("/bin/{t}"), "busybox".to_owned())).to_vec(),
        cmd: vec!["sh".to_owned()],
        names: vec!["busybox".to_owned()],
        ..StaticImage::default()
    }
}

impl World {
    async fn new() -> World {
        let dir = tempfile::Builder::new().prefix("trireme-cri-").tempdir_in("/var/tmp").unwrap();
        let mut config = Config::new(dir.path().join("lib"), dir.path().join("run"));
        let name = dir.path().file_name().unwrap().to_string_lossy().into_owned();
        let cgroup = format!("/trireme-test-{name}");
        config.cgroup_parent = cgroup.clone();
        config.supervisor_command = vec![example("supervisor").into()];
        let runtime = Embedded::open(config, Arc::new(LoopbackOnly)).await.unwrap();
        let runtime = Arc::new(runtime);
        runtime.images().build_static(&busybox()).unwrap();
        let (tasks, socket) = (Tasks::new(), dir.path().join("cri.sock"));
        let (service, images): (Arc<dyn RuntimeService>, Arc<dyn ImageService>) =
            (runtime.clone(), runtime.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let streaming = Streaming::serve(listener, service.clone(), &tasks).unwrap();
        let methods = Arc::new(cri::methods(&service, &images, &streaming));
        let listener = grpc::server::bind(&socket).unwrap();
        tasks.spawn("server", grpc::server::listen(listener, methods));
        let settings = Settings {
            peer: "the runtime",
            origin: "http://localhost".into(),
            headers: &[],
            deadline: LIMIT,
            message_max: 16 << 20,
            decorate: None,
        };
        World { channel: Channel::new(Socket(socket), settings), runtime, cgroup, tasks, dir }
    }

    async fn ask<Q: Message, A: Message + Default>(
        &self,
        method: &'static str,
        question: &Q,
    ) -> Result<A, (u32, String)> {
        self.channel.call(method, question).await.map_err(|error| match error {
            CallError::Refused { code, message } => (code, message),
            other => panic!("{other}"),
        })
    }

    async fn sandbox(&self) -> (String, PodSandboxConfig) {
        let metadata = PodSandboxMetadata {
            name: "pod".into(),
            uid: "u".into(),
            namespace: "default".into(),
            attempt: 0,
        };
        let config = PodSandboxConfig {
            metadata: Some(metadata),
            hostname: "pod".into(),
            log_directory: self.dir.path().join("logs").to_string_lossy().into_owned(),
            ..PodSandboxConfig::default()
        };
        let request =
            RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: String::new() };
        let made: Result<RunPodSandboxResponse, _> = self.ask(RUN, &request).await;
        (made.unwrap().pod_sandbox_id, config)
    }

    async fn start(&self, sandbox: &(String, PodSandboxConfig), command: &str) -> String {
        let image = ImageSpec { image: "busybox".into(), ..ImageSpec::default() };
        let config = ContainerConfig {
            metadata: Some(ContainerMetadata { name: "main".into(), attempt: 0 }),
            image: Some(image),
            command: ["sh", "-c", command].map(str::to_owned).to_vec(),
            ..ContainerConfig::default()
        };
        let request = CreateContainerRequest {
            pod_sandbox_id: sandbox.0.clone(),
            config: Some(config),
            sandbox_config: Some(sandbox.1.clone()),
        };
        let made: Result<CreateContainerResponse, _> = self.ask(CREATE, &request).await;
        let container_id = made.unwrap().container_id;
        let request = StartContainerRequest { container_id: container_id.clone() };
        let started: Result<StartContainerResponse, _> = self.ask(START, &request).await;
        started.unwrap();
        container_id
    }

    async fn remove(&self, sandbox: &str) {
        let request = RemovePodSandboxRequest { pod_sandbox_id: sandbox.to_owned() };
        let removed: Result<RemovePodSandboxResponse, _> = self.ask(REMOVE, &request).await;
        removed.unwrap();
    }
}

const RUN: &str = "/runtime.v1.RuntimeService/RunPodSandbox";
const REMOVE: &str = "/runtime.v1.RuntimeService/RemovePodSandbox";
const CREATE: &str = "/runtime.v1.RuntimeService/CreateContainer";
const START: &str = "/runtime.v1.RuntimeService/StartContainer";
const EXEC: &str = "/runtime.v1.RuntimeService/Exec";

/// Opens a session as a browser would; the answer's code, and what comes first if there is a session.
async fn open(url: &str) -> (u16, Vec<u8>) {
    let uri: http::Uri = url.parse().unwrap();
    let stream = TcpStream::connect(uri.authority().unwrap().as_str()).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    let driven = tokio::spawn(connection.with_upgrades());
    let request = http::Request::get(uri.path())
        .header("host", "localhost")
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header("sec-websocket-protocol", "v4.channel.k8s.io")
        .body(Empty::<bytes::Bytes>::new())
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    let code = response.status().as_u16();
    if code != 101 {
        let text = response.into_body().collect().await.unwrap().to_bytes();
        return (code, text.to_vec());
    }
    let upgraded = hyper::upgrade::on(response).await.unwrap();
    let mut all = Vec::new();
    let mut stream = hyper_util::rt::TokioIo::new(upgraded);
    while !all.windows(5).any(|window| window == b"hello") {
        let read = stream.read_buf(&mut all).await.unwrap();
        assert!(read > 0, "it ended with {all:?}");
    }
    driven.abort();
    (code, all)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_lives_and_its_commands_run() {
    let world = World::new().await;
    let version: Result<VersionResponse, _> =
        world.ask("/runtime.v1.RuntimeService/Version", &VersionRequest::default()).await;
    assert_eq!(version.unwrap().runtime_api_version, "v1");
    let sandbox = world.sandbox().await;
    let container = world.start(&sandbox, "sleep 1000").await;
    let exec = ExecSyncRequest {
        container_id: container.clone(),
        cmd: ["sh", "-c", "echo out; echo err >&2; exit 3"].map(str::to_owned).to_vec(),
        timeout: 10,
    };
    let done: Result<ExecSyncResponse, _> =
        world.ask("/runtime.v1.RuntimeService/ExecSync", &exec).await;
    let done = done.unwrap();
    assert_eq!(
        (&done.stdout[..], &done.stderr[..], done.exit_code),
        (&b"out\n"[..], &b"err\n"[..], 3)
    );

    let exec = ExecRequest {
        container_id: container,
        cmd: ["echo", "hello"].map(str::to_owned).to_vec(),
        stdout: true,
        ..ExecRequest::default()
    };
    let answer: Result<ExecResponse, _> = world.ask(EXEC, &exec).await;
    let url = answer.unwrap().url;
    assert!(url.starts_with("http://127.0.0.1:"), "{url}");
    assert_eq!(open(&url.replace("/exec/", "/attach/")).await.0, 404, "it is for exec");
    assert_eq!(tokio::time::timeout(LIMIT, open(&url)).await.unwrap().0, 101);
    assert_eq!(open(&url).await.0, 404, "it works once");

    let mut parts = world
        .channel
        .stream::<_, ListContainersResponse>(
            "/runtime.v1.RuntimeService/StreamContainers",
            &ListContainersRequest::default(),
        )
        .await
        .unwrap();
    assert_eq!(parts.next().await.unwrap().unwrap().containers.len(), 1);
    assert!(parts.next().await.unwrap().is_none());
    world.remove(&sandbox.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_refused_with_grpcs_codes() {
    let world = World::new().await;
    let sandbox = world.sandbox().await;
    let container = world.start(&sandbox, "exit 0").await;
    let exec = |container_id: &str, tty, stderr| ExecRequest {
        container_id: container_id.to_owned(),
        cmd: vec!["sh".into()],
        tty,
        stderr,
        stdout: true,
        ..ExecRequest::default()
    };
    let refused = async |request: ExecRequest| {
        let answer: Result<ExecResponse, _> = world.ask(EXEC, &request).await;
        answer.unwrap_err()
    };
    let invalid = |why: &str| (3, why.to_owned());
    assert_eq!(refused(exec("", false, false)).await, invalid("missing required container_id"));
    assert_eq!(
        refused(exec(&container, true, true)).await,
        invalid("tty and stderr cannot both be true")
    );
    let none = ExecRequest { stdout: false, ..exec(&container, false, false) };
    assert_eq!(refused(none).await, invalid("one of stdin, stdout, or stderr must be set"));
    assert_eq!(refused(exec("nobody", false, false)).await.0, 5);
    let status = ContainerStatusRequest { container_id: container.clone(), verbose: false };
    while world
        .runtime
        .container_status(&status.container_id, false)
        .await
        .unwrap()
        .status
        .is_some_and(|status| status.state() != ContainerState::Exited)
    {
        tokio::task::yield_now().await;
    }
    let why = format!("container {container:?} is not running");
    assert_eq!(refused(exec(&container, false, false)).await, (2, why));

    let image: Result<ImageStatusResponse, _> =
        world.ask("/runtime.v1.ImageService/ImageStatus", &ImageStatusRequest::default()).await;
    assert_eq!(image.unwrap_err(), invalid("missing required image"));
    let checkpoint: Result<CheckpointContainerResponse, _> = world
        .ask(
            "/runtime.v1.RuntimeService/CheckpointContainer",
            &CheckpointContainerRequest::default(),
        )
        .await;
    assert_eq!(checkpoint.unwrap_err().0, 12);
    world.remove(&sandbox.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_described_and_told_for_each_container() {
    let world = World::new().await;
    let sandbox = world.sandbox().await;
    let container = world.start(&sandbox, "exec sleep 1000").await;
    let described: Result<ListMetricDescriptorsResponse, _> = world
        .ask(
            "/runtime.v1.RuntimeService/ListMetricDescriptors",
            &ListMetricDescriptorsRequest::default(),
        )
        .await;
    let described = described.unwrap().descriptors;
    let told: Result<ListPodSandboxMetricsResponse, _> = world
        .ask(
            "/runtime.v1.RuntimeService/ListPodSandboxMetrics",
            &ListPodSandboxMetricsRequest::default(),
        )
        .await;
    let pods = told.unwrap().pod_metrics;
    assert_eq!((pods.len(), pods[0].pod_sandbox_id.as_str()), (1, sandbox.0.as_str()));
    let own = &pods[0].container_metrics;
    assert_eq!((own.len(), own[0].container_id.as_str()), (1, container.as_str()));
    for metric in pods[0].metrics.iter().chain(&own[0].metrics) {
        let descriptor = described.iter().find(|d| d.name == metric.name).unwrap();
        assert_eq!(descriptor.label_keys.len(), metric.label_values.len(), "{}", metric.name);
        assert!(!descriptor.help.is_empty() && metric.timestamp > 0);
    }
    let value = |name: &str| {
        let found = own[0].metrics.iter().find(|m| m.name == name).unwrap();
        assert_eq!(found.label_values[3..], [container.clone(), "busybox".to_owned()]);
        found.value.as_ref().unwrap().value
    };
    assert_eq!(value("container_processes"), 1);
    assert!(value("container_memory_usage_bytes") > 0);
    assert!(value("container_last_seen") >= value("container_start_time_seconds"));
    world.remove(&sandbox.0).await;
}
