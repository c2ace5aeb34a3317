//! Containers of Debian's runc and crun, by the handlers of RuntimeClasses: the same life as in the embedded runtime.
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use runtime::cri::*;
use runtime::{Code, RuntimeService};

use crate::harness::{LIMIT, Node, ended, log_text, sh, with_context};

pub(crate) const RUNC: &str = "/usr/sbin/runc";
const CRUN: &str = "/usr/bin/crun";
/// Set in the process that sees no unified cgroups.
const ALONE: &str = "TRIREME_TEST_ON_V1";

/// A node with both runtimes.
pub(crate) async fn node() -> Node {
    Node::with(|config| {
        for (name, program) in [("runc", RUNC), ("crun", CRUN)] {
            assert!(Path::new(program).exists(), "apt-get install {name}");
            config.handlers.insert(name.to_owned(), program.into());
        }
        config.handlers.insert("gone".to_owned(), "/usr/sbin/no-such-runtime".into());
    })
    .await
}

pub(crate) async fn sandbox(node: &Node, handler: &str) -> String {
    node.sandbox_in(handler, node.sandbox_config("pod")).await
}

/// Debian's crun 1.8 refuses machines with hybrid cgroups: its tests run where the unified tree is hidden.
fn without_unified(name: &str) -> bool {
    if std::env::var_os(ALONE).is_some() || !Path::new("/sys/fs/cgroup/unified").exists() {
        return true;
    }
    let script = "umount /sys/fs/cgroup/unified && exec \"$0\" --exact \"$1\" --nocapture";
    let done = Command::new("unshare")
        .args(["-m", "sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .arg(name)
        .env(ALONE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(
        done.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&done.stderr)
    );
    false
}

/// The whole life of a container, with what it must not be able to do.
async fn life(node: &Node, handler: &str) {
    let sandbox = sandbox(node, handler).await;
    let told = node.rt().pod_sandbox_status(&sandbox, false).await.unwrap().status.unwrap();
    assert_eq!(told.runtime_handler, handler);
    let mut events = node.rt().events().await.unwrap();
    let (code, text) = node.script(&sandbox, sh("hostname; id -u; echo err >&2; exit 3")).await;
    assert_eq!((code, text.as_str()), (3, "pod\n0\nerr\n"));

    let mut config = with_context("trap 'exit 7' TERM; while :; do sleep 0.05; done", |c| {
        c.readonly_rootfs = true;
        c.no_new_privs = true;
        c.run_as_user = Some(Int64Value { value: 33 });
        c.run_as_group = Some(Int64Value { value: 34 });
        c.supplemental_groups = vec![4];
        let profile_type = ProfileType::RuntimeDefault as i32;
        c.seccomp = Some(SecurityProfile { profile_type, ..SecurityProfile::default() });
    });
    let resources = LinuxContainerResources {
        memory_limit_in_bytes: 64 << 20,
        cpu_shares: 512,
        ..LinuxContainerResources::default()
    };
    config.linux.as_mut().unwrap().resources = Some(resources);
    config.envs = vec![KeyValue { key: "GREETING".into(), value: b"hello".to_vec() }];
    config.working_dir = "/made/here".into();
    let id = node.start(&sandbox, config).await;
    // It is the handler's own, by its books.
    let state = node.config.state_dir.join("oci").join(handler).join(&id);
    assert!(state.exists(), "{} has no state at {}", handler, state.display());
    let status = node.status(&id).await;
    assert_eq!(status.state, ContainerState::Running as i32);

    let (code, text) = node.exec(&id, "id; pwd; echo $GREETING").await;
    assert_eq!(code, 0, "{text}");
    let user = "uid=33(web) gid=34(web) groups=4(log),34(web)";
    assert!(text.contains(user), "{text}");
    assert!(text.contains("/made/here\nhello\n"), "{text}");
    let (_, status) = node.exec(&id, "cat /proc/self/status /proc/1/status").await;
    for (field, value) in [("Seccomp", "2"), ("NoNewPrivs", "1"), ("CapEff", "0000000000000000")] {
        let lines = status.lines().filter(|l| l.starts_with(&format!("{field}:")));
        let values: Vec<&str> = lines.filter_map(|l| l.split_whitespace().nth(1)).collect();
        assert_eq!(values, [value, value], "{field}");
    }
    for refused in [
        "touch /x",
        "echo 1 > /proc/sys/kernel/panic",
        "cat /proc/kcore",
        "mount -t tmpfs none /tmp",
        "unshare -m true",
        "touch /sys/fs/cgroup/x",
        "echo -1 > /sys/fs/cgroup/memory/memory.limit_in_bytes",
        "echo max > /sys/fs/cgroup/memory.max",
        "dd if=/dev/kmsg of=/dev/null count=1",
    ] {
        assert_ne!(node.exec(&id, refused).await.0, 0, "{refused}");
    }
    let limit = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes || cat /sys/fs/cgroup/memory.max";
    assert_eq!(node.exec(&id, limit).await.1.lines().last(), Some("67108864"));
    let stats = node.rt().container_stats(&id).await.unwrap();
    assert!(stats.memory.unwrap().usage_bytes.unwrap().value > 0);
    assert!(stats.cpu.unwrap().usage_core_nano_seconds.unwrap().value > 0);

    node.rt().stop_container(&id, 10).await.map_err(|e| e.chain()).unwrap();
    ended(&mut events, &id).await;
    assert_eq!(node.status(&id).await.exit_code, 7);
    let stubborn = node.start(&sandbox, sh("trap '' TERM; exec sleep 1000")).await;
    node.rt().stop_container(&stubborn, 0).await.map_err(|e| e.chain()).unwrap();
    assert_eq!(node.status(&stubborn).await.exit_code, 137);
    node.rt().remove_container(&id).await.map_err(|e| e.chain()).unwrap();
    assert!(!state.exists());
    node.rt().remove_pod_sandbox(&sandbox).await.map_err(|e| e.chain()).unwrap();
    let bundles = std::fs::read_dir(node.config.state_dir.join("oci/bundles")).unwrap();
    assert_eq!(bundles.count(), 0, "nothing is left");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&format!("{}/oci", node.config.state_dir.display())));
}

#[tokio::test(flavor = "multi_thread")]
async fn runc_runs_a_containers_life() {
    life(&node().await, "runc").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn crun_runs_a_containers_life() {
    if without_unified("oci::crun_runs_a_containers_life") {
        life(&node().await, "crun").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn handlers_are_told_when_their_programs_are_there() {
    let node = node().await;
    let status = node.rt().status(false).await.unwrap();
    let names: Vec<&str> = status.runtime_handlers.iter().map(|h| h.name.as_str()).collect();
    assert_eq!(names, ["", "trireme", "crun", "runc"]);
    let features = status.runtime_handlers[3].features.as_ref().unwrap();
    assert!(features.recursive_read_only_mounts && !features.user_namespaces);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_handler_cannot_do_is_refused_by_name() {
    let node = node().await;
    let run = async |handler: &str, config: PodSandboxConfig| {
        let runtime_handler = handler.to_owned();
        let request = RunPodSandboxRequest { config: Some(config), runtime_handler };
        node.rt().run_pod_sandbox(request).await.unwrap_err()
    };
    let unknown = run("kata", node.sandbox_config("pod")).await;
    assert_eq!(unknown.code(), Code::InvalidArgument);
    assert!(unknown.chain().contains("no runtime for \"kata\" is configured"));
    let gone = run("gone", node.sandbox_config("pod")).await.chain();
    let wanted = "runtime handler \"gone\": /usr/sbin/no-such-runtime: No such file or directory";
    assert!(gone.contains(wanted), "{gone}");
    let mapping = IDMapping { host_id: 65_536, container_id: 0, length: 65_536 };
    let users = UserNamespace {
        mode: NamespaceMode::Pod as i32,
        uids: vec![mapping.clone()],
        gids: vec![mapping],
    };
    let options = NamespaceOption { userns_options: Some(users), ..NamespaceOption::default() };
    let context = LinuxSandboxSecurityContext {
        namespace_options: Some(options),
        ..LinuxSandboxSecurityContext::default()
    };
    let mut config = node.sandbox_config("pod");
    config.linux = Some(LinuxPodSandboxConfig {
        security_context: Some(context),
        ..LinuxPodSandboxConfig::default()
    });
    let users = run("runc", config).await;
    assert_eq!(users.code(), Code::Unimplemented);
    assert!(users.chain().contains("user namespaces with the runtime handler \"runc\""));
    assert!(node.rt().list_pod_sandboxes(PodSandboxFilter::default()).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_fails_says_why_and_leaves_nothing() {
    let node = node().await;
    let sandbox = sandbox(&node, "runc").await;
    let mut config = sh("");
    config.command = vec!["/no/such/program".to_owned()];
    let id = node.create(&sandbox, config).await.unwrap();
    let failed = node.rt().start_container(&id).await.unwrap_err().chain();
    assert!(failed.contains("OCI runtime runc create failed: "), "{failed}");
    assert!(failed.contains("/no/such/program") && failed.contains("no such file"), "{failed}");
    let status = node.status(&id).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (128, "StartError"));
    assert!(!node.config.state_dir.join("oci/runc").join(&id).exists());
    let mut config = sh("true");
    config.envs = vec![KeyValue { key: "X".into(), value: vec![0xff] }];
    let id = node.create(&sandbox, config).await.unwrap();
    let failed = node.rt().start_container(&id).await.unwrap_err().chain();
    assert!(failed.contains("an environment variable is not UTF-8"), "{failed}");
    // The next one starts.
    assert_eq!(node.script(&sandbox, sh("echo fine")).await, (0, "fine\n".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn mounts_and_shared_processes_are_as_in_the_embedded_runtime() {
    let node = node().await;
    let mut config = node.sandbox_config("pod");
    let options = NamespaceOption { pid: NamespaceMode::Pod as i32, ..NamespaceOption::default() };
    config.linux = Some(LinuxPodSandboxConfig {
        security_context: Some(LinuxSandboxSecurityContext {
            namespace_options: Some(options.clone()),
            ..LinuxSandboxSecurityContext::default()
        }),
        ..LinuxPodSandboxConfig::default()
    });
    let sandbox = node.sandbox_in("runc", config).await;
    let volume = node.dir.path().join("volume");
    std::fs::create_dir_all(&volume).unwrap();
    std::fs::write(volume.join("file"), "content").unwrap();
    let mount = |path: &str, readonly| Mount {
        container_path: path.to_owned(),
        host_path: volume.to_string_lossy().into_owned(),
        readonly,
        ..Mount::default()
    };
    let shared = |script: &str| {
        let mut config =
            with_context(script, |context| context.namespace_options = Some(options.clone()));
        config.mounts = vec![mount("/data", false), mount("/fixed", true)];
        config
    };
    let first = node.start(&sandbox, shared("exec sleep 4242")).await;
    let second = node.start(&sandbox, shared("exec sleep 1000")).await;
    let (_, seen) = node.exec(&second, "ps").await;
    assert!(seen.contains("sleep 4242"), "{seen}");
    assert_eq!(node.exec(&first, "cat /fixed/file; echo more > /data/new").await.1, "content");
    assert_ne!(node.exec(&first, "touch /fixed/x").await.0, 0);
    assert_eq!(std::fs::read_to_string(volume.join("new")).unwrap(), "more\n");
    assert_eq!(node.exec(&first, "touch /dev/shm/there").await.0, 0);
    assert_eq!(node.exec(&second, "ls /dev/shm").await.1, "there\n");
    node.rt().remove_pod_sandbox(&sandbox).await.map_err(|e| e.chain()).unwrap();
}

const TALK: &str = "while [ ! -e /tmp/go ]; do sleep 0.01; done; echo after; exit 9";

#[tokio::test(flavor = "multi_thread")]
async fn containers_of_runc_outlive_the_agent() {
    let mut node = node().await;
    let sandbox = sandbox(&node, "runc").await;
    let id = node.start(&sandbox, sh(TALK)).await;
    let waits = node.create(&sandbox, sh("echo late")).await.unwrap();
    node.restart().await;
    assert_eq!(node.status(&id).await.state, ContainerState::Running as i32);
    let mut events = node.rt().events().await.unwrap();
    assert_eq!(node.exec(&id, "touch /tmp/go").await.0, 0);
    ended(&mut events, &id).await;
    let status = node.status(&id).await;
    assert_eq!((status.exit_code, log_text(&status.log_path)), (9, "after\n".to_owned()));
    node.rt().start_container(&waits).await.map_err(|e| e.chain()).unwrap();
    ended(&mut events, &waits).await;
    assert_eq!(log_text(&node.status(&waits).await.log_path), "late\n");
    node.rt().remove_pod_sandbox(&sandbox).await.map_err(|e| e.chain()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_end_and_go_also_when_their_handler_is_configured_no_longer() {
    let mut node = node().await;
    let sandbox = sandbox(&node, "runc").await;
    let id = node.start(&sandbox, sh("exec sleep 1000")).await;
    node.config.handlers = BTreeMap::new();
    node.restart().await;
    let refused = node.rt().exec_sync(ExecSyncRequest {
        container_id: id.clone(),
        cmd: vec!["true".to_owned()],
        timeout: 10,
    });
    let refused = refused.await.unwrap_err().chain();
    assert!(refused.contains("no runtime for \"runc\" is configured"), "{refused}");
    let removed = node.rt().remove_pod_sandbox(&sandbox);
    tokio::time::timeout(LIMIT, removed).await.unwrap().map_err(|e| e.chain()).unwrap();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&id), "mounts stay");
}
