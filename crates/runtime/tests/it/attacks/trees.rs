//! Commands that do not end: what the kubelet starts it ends, with everything that grew from it.
use std::path::Path;
use std::time::Duration;

use runtime::{Error, StreamOptions};

use super::*;
use crate::harness::LIMIT;

/// Whether any process of the machine has this word in its command line.
fn alive(word: &str) -> bool {
    std::fs::read_dir("/proc").unwrap().flatten().any(|process| {
        let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        line.split(|b| *b == 0).any(|w| w == word.as_bytes())
    })
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(LIMIT, wait).await.expect(what);
}

/// A command that leaves its session, its parent and its signals behind; `mark` is to find it by.
fn escaping(id: &str, mark: &str, timeout: i64) -> ExecSyncRequest {
    let cmd = ["/attacker", "escape", mark].map(str::to_owned).to_vec();
    ExecSyncRequest { container_id: id.to_owned(), cmd, timeout }
}

/// Leaves of execs below the container's group.
fn leaves(node: &Node, id: &str) -> usize {
    let group = node.config.cgroup_parent.trim_start_matches('/');
    let dir = Path::new("/sys/fs/cgroup/unified").join(group).join(id);
    let entries = std::fs::read_dir(dir).unwrap().flatten();
    entries.filter(|e| e.file_name().to_string_lossy().starts_with("exec-")).count()
}

fn descriptors(pid: i32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_ends_at_its_deadline_with_all_it_has_forked() {
    let node = Node::new().await;
    let sandbox = node.sandbox().await;
    let id = node.start(&sandbox, attacker("exec sleep 1000", |_| {})).await;
    let before = descriptors(node.supervisor_pid());
    let hanging = (0..5).map(|_| node.rt().exec_sync(escaping(&id, "tree-deadline", 1)));
    for ended in futures::future::join_all(hanging).await {
        assert!(matches!(ended, Err(Error::ExecTimeout(1))), "{ended:?}");
    }
    assert!(!alive("tree-deadline"));
    assert_eq!((leaves(&node, &id), descriptors(node.supervisor_pid())), (0, before));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_ends_when_its_caller_gives_up() {
    let node = Node::new().await;
    let sandbox = node.sandbox().await;
    let id = node.start(&sandbox, attacker("exec sleep 1000", |_| {})).await;
    let running = node.rt().exec_sync(escaping(&id, "tree-given-up", 0));
    tokio::select! {
        ended = running => panic!("{ended:?}"),
        () = until("it never ran", || alive("tree-given-up")) => {}
    }
    until("it runs on", || !alive("tree-given-up")).await;
    until("its group stays", || leaves(&node, &id) == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_ends_with_the_agent_that_started_it() {
    let mut node = Node::new().await;
    let sandbox = node.sandbox().await;
    let id = node.start(&sandbox, attacker("exec sleep 1000", |_| {})).await;
    // As a crash leaves it: a process in the group of an exec that nobody waits for.
    let group = node.rt().cgroups().group(&format!("{}/{id}/exec-lost", node.config.cgroup_parent));
    let leaf = group.unwrap().unified_dir().unwrap().to_owned();
    std::fs::create_dir(&leaf).unwrap();
    let mut lost =
        std::process::Command::new("/bin/busybox").args(["sleep", "8642"]).spawn().unwrap();
    std::fs::write(leaf.join("cgroup.procs"), lost.id().to_string()).unwrap();
    node.restart().await;
    let ended = tokio::task::spawn_blocking(move || lost.wait().unwrap());
    let ended = tokio::time::timeout(LIMIT, ended).await.unwrap().unwrap();
    assert!(!ended.success());
    until("its group stays", || leaves(&node, &id) == 0).await;
    assert_eq!(node.exec(&id, "echo on").await.1, "on\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_ends_when_nobody_can_tell_its_end() {
    let node = Node::new().await;
    let sandbox = node.sandbox().await;
    let id = node.start(&sandbox, attacker("exec sleep 1000", |_| {})).await;
    let running = node.rt().exec_sync(escaping(&id, "tree-unseen", 0));
    tokio::pin!(running);
    tokio::select! {
        ended = &mut running => panic!("{ended:?}"),
        () = until("it never ran", || alive("tree-unseen")) => {}
    }
    let supervisor = rustix::process::Pid::from_raw(node.supervisor_pid()).unwrap();
    rustix::process::kill_process(supervisor, rustix::process::Signal::KILL).unwrap();
    let ended = tokio::time::timeout(LIMIT, running).await.unwrap();
    assert!(ended.is_err() || ended.is_ok_and(|e| e.exit_code == 255));
    until("it runs on", || !alive("tree-unseen")).await;
}

/// A hook may start a server: as upstream, that belongs to the container.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_ends_leaves_its_children_to_the_container() {
    let node = Node::new().await;
    let sandbox = node.sandbox().await;
    let id = node.start(&sandbox, sh("exec sleep 1000")).await;
    let script = "setsid sleep 97531 > /dev/null 2>&1 < /dev/null & echo done";
    assert_eq!(node.exec(&id, script).await, (0, "done\n".to_owned()));
    assert!(alive("97531"));
    until("its group stays", || leaves(&node, &id) == 0).await;
    node.rt().stop_container(&id, 0).await.unwrap();
    until("it outlives its container", || !alive("97531")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_hangs_up_when_its_caller_goes() {
    let node = Node::new().await;
    let sandbox = node.sandbox().await;
    let id = node.start(&sandbox, sh("exec sleep 1000")).await;
    let before = descriptors(node.supervisor_pid());
    let tty = StreamOptions { stdin: true, stdout: true, stderr: false, tty: true };
    let cmd = ["sleep", "86421"].map(str::to_owned).to_vec();
    let session = node.rt().exec(&id, cmd, tty).await.unwrap();
    until("it never ran", || alive("86421")).await;
    drop(session);
    until("it runs on", || !alive("86421")).await;
    until("a descriptor stays", || descriptors(node.supervisor_pid()) == before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn execs_end_with_their_container() {
    let node = Node::new().await;
    let mut config = node.sandbox_config("shared");
    let options = NamespaceOption { pid: NamespaceMode::Pod as i32, ..NamespaceOption::default() };
    config.linux = Some(LinuxPodSandboxConfig {
        security_context: Some(LinuxSandboxSecurityContext {
            namespace_options: Some(options.clone()),
            ..LinuxSandboxSecurityContext::default()
        }),
        ..LinuxPodSandboxConfig::default()
    });
    let sandbox = node.sandbox_of(config).await;
    let change = |c: &mut LinuxContainerSecurityContext| c.namespace_options = Some(options);
    let id = node.start(&sandbox, attacker("exec sleep 1000", change)).await;
    let running = node.rt().exec_sync(escaping(&id, "tree-stopped", 0));
    tokio::pin!(running);
    tokio::select! {
        ended = &mut running => panic!("{ended:?}"),
        () = until("it never ran", || alive("tree-stopped")) => {}
    }
    node.rt().stop_container(&id, 0).await.unwrap();
    until("it runs on", || !alive("tree-stopped")).await;
    assert_eq!(tokio::time::timeout(LIMIT, running).await.unwrap().unwrap().exit_code, 137);
}
