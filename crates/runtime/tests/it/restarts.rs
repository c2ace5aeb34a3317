//! Agent and supervisor may go away at any time: containers stay, and nothing is forgotten.
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use runtime::cri::*;
use runtime::{Embedded, NetworkError, RuntimeService, SandboxNet, SandboxNetwork, StreamOptions};
use tokio::io::AsyncReadExt;

use crate::harness::{LIMIT, Node, ended, log_text, sh};

const TALK: &str = "while [ ! -e /tmp/go ]; do sleep 0.01; done; echo after; exit 9";

#[tokio::test(flavor = "multi_thread")]
async fn containers_outlive_the_agent() {
    let mut node = Node::new().await;
    let sandbox = node.sandbox().await;
    let id = node.start(&sandbox, sh(TALK)).await;
    let gone = node.start(&sandbox, sh("exit 4")).await;
    node.restart().await;
    let status = node.status(&id).await;
    assert_eq!(status.state, ContainerState::Running as i32);
    assert_eq!(
        node.rt().list_pod_sandboxes(PodSandboxFilter::default()).await.unwrap()[0].id,
        sandbox
    );
    let mut events = node.rt().events().await.unwrap();
    assert_eq!(node.exec(&id, "touch /tmp/go").await.0, 0);
    ended(&mut events, &id).await;
    let status = node.status(&id).await;
    assert_eq!(status.exit_code, 9);
    assert_eq!(log_text(&status.log_path), "after\n");
    assert_eq!(node.status(&gone).await.exit_code, 4);
    node.rt().remove_pod_sandbox(&sandbox).await.map_err(|e| e.chain()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_outlive_the_supervisor() {
    let node = Node::new().await;
    let sandbox = node.sandbox().await;
    let id = node.start(&sandbox, sh(TALK)).await;
    let before = node.supervisor_pid();
    let mut events = node.rt().events().await.unwrap();
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(before).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    // Requests wait for the next supervisor; one under way when it went may fail and is repeated.
    let touched = async {
        loop {
            let request = ExecSyncRequest {
                container_id: id.clone(),
                cmd: vec!["touch".to_owned(), "/tmp/go".to_owned()],
                timeout: 10,
            };
            if node.rt().exec_sync(request).await.is_ok() {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, touched).await.unwrap();
    ended(&mut events, &id).await;
    let status = node.status(&id).await;
    assert_eq!(log_text(&status.log_path), "after\n");
    // From kernel 6.15 on the exit code of a stranger can be read.
    assert!([9, 255].contains(&status.exit_code), "{}", status.exit_code);
    let session =
        node.rt().attach(&id, StreamOptions { stdout: true, ..StreamOptions::default() }).await;
    assert!(session.is_err());
    let again = node.start(&sandbox, sh("echo new")).await;
    let mut text = String::new();
    if let Ok(session) =
        node.rt().attach(&again, StreamOptions { stdout: true, ..StreamOptions::default() }).await
    {
        let mut stdout = session.stdout.unwrap();
        tokio::time::timeout(LIMIT, stdout.read_to_string(&mut text)).await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_leaves_nothing() {
    let mut node = Node::new().await;
    let sandbox = node.sandbox().await;
    node.start(&sandbox, sh("exec sleep 1000")).await;
    let group = node.rt().cgroups().group(&node.config.cgroup_parent).unwrap();
    node.runtime.take().unwrap().reset().await.map_err(|e| e.chain()).unwrap();
    assert!(!group.exists());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(node.dir.path().to_str().unwrap()));
}

fn pid(number: i32) -> rustix::process::Pid {
    rustix::process::Pid::from_raw(number).unwrap()
}

/// Whether the process ends within the limit; its number is not given to another one so soon.
async fn ends(number: i32) -> bool {
    let gone = async {
        let stat = || std::fs::read_to_string(format!("/proc/{number}/stat"));
        while stat().is_ok_and(|text| !text.contains(") Z ")) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, gone).await.is_ok()
}

/// The child of a supervisor that runs this program, or will in a moment: a container is started before its
/// shell has run what it is to become.
async fn child_of(supervisor: i32, program: &str) -> i32 {
    let found = async {
        loop {
            match find_child(supervisor, program) {
                Some(number) => return number,
                None => tokio::task::yield_now().await,
            }
        }
    };
    tokio::time::timeout(LIMIT, found).await.expect("the container's process")
}

fn find_child(supervisor: i32, program: &str) -> Option<i32> {
    let stats = std::fs::read_dir("/proc").unwrap().flatten();
    let stats = stats.filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok());
    let (name, parent) = (format!("({program}) "), format!(" {supervisor} "));
    let of = |stat: &String| {
        stat.contains(&name) && stat[1 + stat.rfind(") ").unwrap() + 2..].starts_with(&parent)
    };
    let found = stats.into_iter().find(of)?;
    found.split(' ').next()?.parse().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_supervisor_ends_with_its_state_once_no_agent_is_there() {
    let mut node = Node::new().await;
    let sandbox = node.sandbox().await;
    let id = node.start(&sandbox, sh("exec sleep 1000")).await;
    let supervisor = node.supervisor_pid();
    let container = child_of(supervisor, "sleep").await;
    std::fs::remove_file(node.config.state_dir.join("supervisor.lock")).unwrap();
    // The agent that is connected goes on.
    assert_eq!(node.exec(&id, "true").await.0, 0);
    node.runtime.take().unwrap().close().await;
    assert!(ends(supervisor).await && ends(container).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_supervisor_is_not_started_where_its_state_was_deleted() {
    let node = Node::new().await;
    let gone = node.dir.path().join("gone");
    let mut command = std::process::Command::new(crate::harness::example("supervisor"));
    let output = command.arg("--state-dir").arg(&gone).output().unwrap();
    assert!(!output.status.success() && !gone.exists(), "{output:?}");
}

/// An agent whose supervisor is started and never listens.
#[tokio::test(flavor = "multi_thread")]
async fn a_supervisor_on_its_way_ends_with_the_start_that_is_given_up() {
    let node = Node::new().await;
    let told = node.dir.path().join("pid");
    let script = format!(
        "echo $$ > {0}.part; /bin/busybox mv {0}.part {0}; exec /bin/busybox sleep 1000",
        told.display()
    );
    let mut config = node.config.clone();
    config.root = node.dir.path().join("lib-2");
    config.state_dir = node.dir.path().join("run-2");
    config.supervisor_command =
        ["/bin/busybox", "sh", "-c", &script].map(std::ffi::OsString::from).to_vec();
    let network = Arc::new(runtime::LoopbackOnly);
    let opening = tokio::spawn(Embedded::open(config, network));
    let number = async {
        loop {
            if let Ok(text) = std::fs::read_to_string(&told) {
                return text.trim().parse().unwrap();
            }
            tokio::task::yield_now().await;
        }
    };
    let number: i32 = tokio::time::timeout(LIMIT, number).await.unwrap();
    rustix::process::test_kill_process(pid(number)).unwrap();
    opening.abort();
    assert!(ends(number).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn forty_pods_at_once() {
    let node = Node::new().await;
    let pods = (0..40).map(|_| async {
        let sandbox = node.sandbox().await;
        node.start(&sandbox, sh("exec sleep 1000")).await
    });
    let begun = std::time::Instant::now();
    let ids = futures::future::join_all(pods).await;
    println!("40 pods: {:?}", begun.elapsed());
    for id in ids {
        assert_eq!(node.status(&id).await.state, ContainerState::Running as i32);
    }
}

/// Gives every sandbox one address, and remembers what it is told at the start.
#[derive(Default)]
struct Network(Mutex<Vec<(SandboxNet, Vec<IpAddr>)>>);

#[async_trait::async_trait]
impl SandboxNetwork for Network {
    async fn attach(&self, _: &SandboxNet) -> Result<Vec<IpAddr>, NetworkError> {
        Ok(vec!["10.1.2.3".parse()?])
    }

    async fn detach(&self, _: &SandboxNet) -> Result<(), NetworkError> {
        Ok(())
    }

    async fn resume(&self, sandboxes: Vec<(SandboxNet, Vec<IpAddr>)>) -> Result<(), NetworkError> {
        self.0.lock().unwrap().extend(sandboxes);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_network_is_told_of_the_sandboxes_that_stay() {
    let mut node = Node::new().await;
    let mut told = Vec::new();
    for start in 0..2 {
        node.runtime = None;
        let network = Arc::new(Network::default());
        let runtime = Embedded::open(node.config.clone(), network.clone()).await.unwrap();
        node.runtime = Some(runtime);
        told = std::mem::take(&mut *network.0.lock().unwrap());
        if start == 0 {
            let host_port = PortMapping { host_port: 80, ..PortMapping::default() };
            let config =
                PodSandboxConfig { port_mappings: vec![host_port], ..node.sandbox_config("stays") };
            node.sandbox_of(config).await;
            let stopped = node.sandbox_of(node.sandbox_config("stopped")).await;
            node.rt().stop_pod_sandbox(&stopped).await.unwrap();
        }
    }
    let [(sandbox, addresses)] = &told[..] else { panic!("{told:?}") };
    assert_eq!((&*sandbox.name, sandbox.port_mappings[0].host_port), ("stays", 80));
    assert_eq!(addresses[..], ["10.1.2.3".parse::<IpAddr>().unwrap()]);
}

/// After a loss of power there are the files, and neither processes nor mounts.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_of_the_machine_leaves_no_sandbox_ready() {
    let mut node = Node::new().await;
    let sandbox = node.sandbox().await;
    let id = node.start(&sandbox, sh("exec sleep 1000")).await;
    let stays = node.sandbox().await;
    node.rt().close().await;
    node.runtime = None;
    let groups = runtime::cgroup::Hierarchies::detect(std::path::Path::new("/sys/fs/cgroup"));
    let group = groups.unwrap().group(&node.config.cgroup_parent).unwrap();
    group.kill().unwrap();
    let pins = node.config.state_dir.join("sandboxes").join(&sandbox);
    for name in ["net", "ipc", "uts", "shm"] {
        rustix::mount::unmount(pins.join(name), rustix::mount::UnmountFlags::DETACH).unwrap();
    }
    node.restart().await;
    let list = node.rt().list_pod_sandboxes(PodSandboxFilter::default()).await.unwrap();
    let is_ready = |id: &str| {
        let found = list.iter().find(|s| s.id == id).unwrap();
        found.state == PodSandboxState::Ready as i32
    };
    assert!(!is_ready(&sandbox) && is_ready(&stays));
    // Its end is told when the machine's init has taken notice.
    let ended = async {
        while node.status(&id).await.state != ContainerState::Exited as i32 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, ended).await.expect("the container has ended");
    let refused = node.create(&sandbox, sh("true")).await.unwrap_err().chain();
    assert!(refused.contains("is not ready"), "{refused}");
    for id in [&sandbox, &stays] {
        node.rt().remove_pod_sandbox(id).await.map_err(|e| e.chain()).unwrap();
    }
}
