//! A node for one test: its own directories, supervisor and cgroups; all gone at the end.
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use runtime::cri::*;
use runtime::image::StaticImage;
use runtime::{Config, Embedded, LoopbackOnly, Result, RuntimeService};

/// How long anything here may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

pub(crate) struct Node {
    pub(crate) runtime: Option<Embedded>,
    pub(crate) config: Config,
    pub(crate) dir: tempfile::TempDir,
}

/// An example next to this test's own binary.
pub(crate) fn example(name: &str) -> std::path::PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().unwrap().parent().unwrap().join("examples").join(name)
}

impl Node {
    pub(crate) async fn new() -> Node {
        Node::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Node {
        let dir = tempfile::Builder::new().prefix("trireme-rt-").tempdir_in("/var/tmp").unwrap();
        let mut config = Config::new(dir.path().join("lib"), dir.path().join("run"));
        config.cgroup_parent =
            format!("/trireme-test-{}", dir.path().file_name().unwrap().to_str().unwrap());
        config.supervisor_command = vec![example("supervisor").into()];
        change(&mut config);
        let runtime = Embedded::open(config.clone(), Arc::new(LoopbackOnly)).await.unwrap();
        let node = Node { runtime: Some(runtime), config, dir };
        node.busybox();
        node
    }

    pub(crate) fn rt(&self) -> &Embedded {
        self.runtime.as_ref().unwrap()
    }

    /// Ends the agent, as a restart does, and starts another.
    pub(crate) async fn restart(&mut self) {
        self.runtime = None;
        let runtime = Embedded::open(self.config.clone(), Arc::new(LoopbackOnly)).await.unwrap();
        self.runtime = Some(runtime);
    }

    fn busybox(&self) {
        let file =
            ["/bin/busybox", "/usr/bin/busybox"].map(Path::new).into_iter().find(|p| p.exists());
        let file = file.expect("apt-get install busybox-static").to_owned();
        let tools = [
            "sh", "cat", "echo", "sleep", "id", "ls", "mount", "hostname", "stty", "tty", "nc",
            "grep", "head", "tr", "yes", "touch", "dd", "wc", "kill", "ps", "seq", "true", "env",
            "chroot", "unshare", "chmod", "ln", "mkdir", "mv", "rm", "stat", "readlink", "cp",
            "mknod", "umount", "setsid", "find", "sysctl", "chown", "od", "tail", "test",
            "nsenter", "ping",
        ];
        let image = StaticImage {
            file,
            path: "/bin/busybox".to_owned(),
            links: tools.iter().map(|t| (format!("/bin/{t}"), "busybox".to_owned())).collect(),
            files: vec![
                (
                    "/etc/passwd".to_owned(),
                    "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/srv:/bin/sh\n".to_owned(),
                ),
                ("/etc/group".to_owned(), "root:x:0:\nweb:x:34:\nlog:x:4:web\n".to_owned()),
            ],
            cmd: vec!["sh".to_owned()],
            names: vec!["busybox".to_owned()],
            ..StaticImage::default()
        };
        self.rt().images().build_static(&image).unwrap();
    }

    pub(crate) fn sandbox_config(&self, name: &str) -> PodSandboxConfig {
        PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: name.to_owned(),
                uid: "u".to_owned(),
                namespace: "default".to_owned(),
                attempt: 0,
            }),
            hostname: name.to_owned(),
            log_directory: self.dir.path().join("logs").to_string_lossy().into_owned(),
            ..PodSandboxConfig::default()
        }
    }

    pub(crate) async fn sandbox(&self) -> String {
        self.sandbox_of(self.sandbox_config("pod")).await
    }

    pub(crate) async fn sandbox_of(&self, config: PodSandboxConfig) -> String {
        self.sandbox_in("", config).await
    }

    /// A sandbox whose containers a runtime handler runs.
    pub(crate) async fn sandbox_in(&self, handler: &str, config: PodSandboxConfig) -> String {
        let runtime_handler = handler.to_owned();
        let request = RunPodSandboxRequest { config: Some(config), runtime_handler };
        self.rt().run_pod_sandbox(request).await.map_err(|e| e.chain()).unwrap()
    }

    pub(crate) async fn create(&self, sandbox: &str, config: ContainerConfig) -> Result<String> {
        let request = CreateContainerRequest {
            pod_sandbox_id: sandbox.to_owned(),
            config: Some(config),
            sandbox_config: None,
        };
        self.rt().create_container(request).await
    }

    pub(crate) async fn start(&self, sandbox: &str, config: ContainerConfig) -> String {
        let id = self.create(sandbox, config).await.map_err(|e| e.chain()).unwrap();
        self.rt().start_container(&id).await.map_err(|e| e.chain()).unwrap();
        id
    }

    pub(crate) async fn status(&self, id: &str) -> ContainerStatus {
        self.rt().container_status(id, false).await.unwrap().status.unwrap()
    }

    /// Runs a script to its end: exit code and log text.
    pub(crate) async fn script(&self, sandbox: &str, config: ContainerConfig) -> (i32, String) {
        let mut events = self.rt().events().await.unwrap();
        let id = self.start(sandbox, config).await;
        ended(&mut events, &id).await;
        let status = self.status(&id).await;
        (status.exit_code, log_text(&status.log_path))
    }

    pub(crate) async fn exec(&self, id: &str, script: &str) -> (i32, String) {
        let cmd = ["sh", "-c", script].map(str::to_owned).to_vec();
        let request = ExecSyncRequest { container_id: id.to_owned(), cmd, timeout: 10 };
        let done = self.rt().exec_sync(request).await.map_err(|e| e.chain()).unwrap();
        (
            done.exit_code,
            String::from_utf8(done.stdout).unwrap() + &String::from_utf8(done.stderr).unwrap(),
        )
    }

    pub(crate) fn supervisor_pid(&self) -> i32 {
        let procs = Path::new("/sys/fs/cgroup/unified")
            .join(self.config.cgroup_parent.trim_start_matches('/'));
        let text = std::fs::read_to_string(procs.join("supervisor/cgroup.procs")).unwrap();
        text.lines().map(|l| l.parse().unwrap()).find(|pid| is_supervisor(*pid)).unwrap()
    }
}

/// The ticker is a copy of the supervisor; its parent is the one.
fn is_supervisor(pid: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let parent: i32 =
        status.lines().find_map(|l| l.strip_prefix("PPid:")).unwrap().trim().parse().unwrap();
    let comm = std::fs::read_to_string(format!("/proc/{parent}/comm")).unwrap_or_default();
    comm.trim() != "supervisor"
}

impl Drop for Node {
    fn drop(&mut self) {
        // First, so that nobody starts another supervisor.
        if let Some(runtime) = self.runtime.take() {
            let close = || tokio::runtime::Handle::current().block_on(runtime.close());
            tokio::task::block_in_place(close);
        }
        let root = Path::new("/sys/fs/cgroup");
        let group = runtime::cgroup::Hierarchies::detect(root)
            .and_then(|h| h.group(&self.config.cgroup_parent));
        let group = group.unwrap();
        let deadline = std::time::Instant::now() + LIMIT;
        while group.kill().and_then(|()| group.remove()).is_err() {
            assert!(std::time::Instant::now() < deadline, "cgroups stay");
            std::thread::yield_now();
        }
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let points = mounts.lines().filter_map(|l| l.split(' ').nth(4));
        for path in points
            .filter(|p| Path::new(p).starts_with(self.dir.path()))
            .collect::<Vec<_>>()
            .iter()
            .rev()
        {
            // One may have gone with the one above it.
            let _ = rustix::mount::unmount(*path, rustix::mount::UnmountFlags::DETACH);
        }
    }
}

pub(crate) fn sh(script: &str) -> ContainerConfig {
    ContainerConfig {
        metadata: Some(ContainerMetadata { name: "c".to_owned(), attempt: 0 }),
        image: Some(ImageSpec { image: "busybox".to_owned(), ..ImageSpec::default() }),
        command: ["sh", "-c", script].map(str::to_owned).to_vec(),
        log_path: format!("{}.log", uuid()),
        ..ContainerConfig::default()
    }
}

fn uuid() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed).to_string()
}

pub(crate) fn with_context(
    script: &str,
    change: impl FnOnce(&mut LinuxContainerSecurityContext),
) -> ContainerConfig {
    let mut context = LinuxContainerSecurityContext::default();
    change(&mut context);
    ContainerConfig {
        linux: Some(LinuxContainerConfig { security_context: Some(context), resources: None }),
        ..sh(script)
    }
}

pub(crate) async fn ended(
    events: &mut BoxStream<'static, Result<ContainerEventResponse>>,
    id: &str,
) {
    let wait = async {
        loop {
            let event = events.next().await.unwrap().unwrap();
            if event.container_id == id
                && event.container_event_type == ContainerEventType::Stopped as i32
            {
                return;
            }
        }
    };
    tokio::time::timeout(LIMIT, wait).await.expect("the container did not end");
}

/// The log without times and tags.
pub(crate) fn log_text(path: &str) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|l| format!("{}\n", l.splitn(4, ' ').nth(3).unwrap_or(""))).collect()
}
