//! What a container is: its file system, identity, limits, protection, end.
use std::collections::BTreeMap;

use runtime::cri::*;
use runtime::{Code, RuntimeService};

use crate::harness::{Node, sh, with_context};

#[tokio::test(flavor = "multi_thread")]
async fn a_container_runs_logs_and_ends() {
    let node = Node::new().await;
    let sandbox = node.sandbox().await;
    let mut config = sh("echo $GREETING; echo bad >&2; hostname; id -u; exit 7");
    config.envs = vec![KeyValue { key: "GREETING".to_owned(), value: b"hello".to_vec() }];
    let (code, text) = node.script(&sandbox, config).await;
    assert_eq!(code, 7);
    for line in ["hello", "bad", "pod", "0"] {
        assert!(text.lines().any(|l| l == line), "{line} in {text}");
    }
    let list = node.rt().list_containers(ContainerFilter::default()).await.unwrap();
    let status = node.status(&list[0].id).await;
    assert_eq!(status.reason, "Error");
    assert!(status.created_at <= status.started_at && status.started_at <= status.finished_at);
    node.rt().remove_pod_sandbox(&sandbox).await.unwrap();
    assert!(node.rt().list_containers(ContainerFilter::default()).await.unwrap().is_empty());
    assert!(node.rt().list_pod_sandboxes(PodSandboxFilter::default()).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sandboxs_files_are_shared_and_bounded() {
    let node = Node::new().await;
    let mut config = node.sandbox_config("pod");
    let servers = vec!["10.0.0.10".to_owned()];
    config.dns_config = Some(DNSConfig { servers, ..DNSConfig::default() });
    let sandbox = node.sandbox_of(config).await;
    let id = node.start(&sandbox, sh("exec sleep 1000")).await;
    let (_, text) = node.exec(&id, "cat /etc/hostname /etc/resolv.conf").await;
    assert_eq!(text, "pod\nnameserver 10.0.0.10\n");
    assert_eq!(node.exec(&id, "echo other > /etc/hostname").await.0, 0);
    let (_, seen) = node.script(&sandbox, sh("cat /etc/hostname")).await;
    assert_eq!(seen, "other\n", "containers share them");
    let (_, said) = node.exec(&id, "dd if=/dev/zero of=/etc/resolv.conf bs=64k count=16").await;
    assert!(said.contains("No space left on device"), "{said}");
    node.rt().remove_pod_sandbox(&sandbox).await.map_err(|e| e.chain()).unwrap();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&sandbox), "nothing stays mounted");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_start_says_why() {
    let node = Node::new().await;
    let sandbox = node.sandbox().await;
    let config = ContainerConfig { command: vec!["no-such-program".to_owned()], ..sh("") };
    let id = node.create(&sandbox, config).await.unwrap();
    let error = node.rt().start_container(&id).await.unwrap_err();
    assert!(
        error.chain().contains(r#"exec: "no-such-program": executable file not found in $PATH"#),
        "{}",
        error.chain()
    );
    let status = node.status(&id).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (128, "StartError"));
    let missing = ContainerConfig {
        image: Some(ImageSpec { image: "nothing:here".to_owned(), ..ImageSpec::default() }),
        ..sh("")
    };
    assert_eq!(node.create(&sandbox, missing).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn mounts_are_where_they_belong() {
    let node = Node::new().await;
    let sandbox = node.sandbox().await;
    let host = node.dir.path().join("volume");
    std::fs::create_dir(&host).unwrap();
    std::fs::write(host.join("file"), "content\n").unwrap();
    let path = host.to_string_lossy().into_owned();
    let mount = |to: &str, from: &str, readonly| Mount {
        container_path: to.to_owned(),
        host_path: from.to_owned(),
        readonly,
        ..Mount::default()
    };
    let mut config = sh(
        "cat /data/file; touch /ro/x; touch /data/y && echo wrote; cat /etc/hosts; touch /sys/fs/cgroup/x; \
                         touch /sys/fs/cgroup/memory/x; echo 1 > /proc/sys/kernel/panic; cat /proc/kcore | wc -c; ls /dev; grep -c overlay /proc/mounts",
    );
    config.mounts = vec![
        mount("/etc/hosts", &format!("{path}/file"), false),
        mount("/ro", &path, true),
        mount("/data", &path, false),
    ];
    let (_, text) = node.script(&sandbox, config).await;
    assert!(text.contains("content\n") && text.contains("wrote"), "{text}");
    assert!(text.contains("/ro/x: Read-only file system"), "{text}");
    assert_eq!(
        text.matches("Read-only file system").count()
            + text.matches("can't create /proc/sys").count(),
        4 + usize::from(text.contains("can't create /proc/sys")),
        "{text}"
    );
    assert!(host.join("y").exists());
    assert!(text.contains("\n0\n"), "kcore is masked: {text}");
    for device in ["null", "pts", "shm", "mqueue", "stdin"] {
        assert!(text.lines().any(|l| l == device), "{device}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn masked_paths_show_nothing_and_do_not_run() {
    let node = Node::new().await;
    let sandbox = node.sandbox().await;
    let mut config = sh("cat /etc/group; cat /masked/file; echo end");
    let host = node.dir.path().join("masked");
    std::fs::create_dir(&host).unwrap();
    std::fs::write(host.join("file"), "secret").unwrap();
    config.mounts = vec![Mount {
        container_path: "/masked".to_owned(),
        host_path: host.to_string_lossy().into_owned(),
        ..Mount::default()
    }];
    let context = LinuxContainerSecurityContext {
        masked_paths: vec!["/etc/group".to_owned(), "/masked".to_owned()],
        ..LinuxContainerSecurityContext::default()
    };
    config.linux = Some(LinuxContainerConfig {
        security_context: Some(context),
        ..LinuxContainerConfig::default()
    });
    let (_, text) = node.script(&sandbox, config).await;
    assert!(!text.contains("root:") && !text.contains("secret") && text.contains("end"), "{text}");
    let mut masked = sh("");
    let context = LinuxContainerSecurityContext {
        masked_paths: vec!["/bin/busybox".to_owned()],
        ..LinuxContainerSecurityContext::default()
    };
    masked.linux = Some(LinuxContainerConfig {
        security_context: Some(context),
        ..LinuxContainerConfig::default()
    });
    masked.command = vec!["/bin/busybox".to_owned()];
    let id = node.create(&sandbox, masked).await.map_err(|e| e.chain()).unwrap();
    let refused = node.rt().start_container(&id).await.unwrap_err().chain();
    assert!(refused.contains("Permission denied"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn users_capabilities_and_filters() {
    let node = Node::new().await;
    let sandbox = node.sandbox().await;
    let status = "id; grep -E 'Cap(Eff|Bnd|Amb)|NoNewPrivs|Seccomp:' /proc/self/status; unshare -m true; chroot / true && echo chrooted";
    let config = with_context(status, |c| {
        c.run_as_username = "web".to_owned();
        c.supplemental_groups = vec![77];
        c.no_new_privs = true;
        c.seccomp = Some(SecurityProfile::default());
        c.capabilities =
            Some(Capability { drop_capabilities: vec!["ALL".to_owned()], ..Capability::default() });
    });
    let (_, text) = node.script(&sandbox, config).await;
    assert!(text.contains("uid=33(web) gid=34(web) groups=4(log),34(web),77"), "{text}");
    assert!(
        text.contains("CapBnd:\t0000000000000000") && text.contains("NoNewPrivs:\t1"),
        "{text}"
    );
    assert!(text.contains("Seccomp:\t2") && text.contains("Operation not permitted"), "{text}");
    let config = with_context(status, |c| {
        c.seccomp = Some(SecurityProfile::default());
        c.capabilities = Some(Capability {
            drop_capabilities: vec!["NET_RAW".to_owned()],
            ..Capability::default()
        });
    });
    let (_, text) = node.script(&sandbox, config).await;
    assert!(text.contains("CapEff:\t00000000a80405fb") && text.contains("Seccomp:\t2"), "{text}");
    assert!(text.contains("chrooted") && text.contains("NoNewPrivs:\t0"), "{text}");
    let (_, text) = node.script(&sandbox, with_context(status, |c| c.privileged = true)).await;
    assert!(text.contains("Seccomp:\t0") && !text.contains("not permitted"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold_and_memory_kills_are_named() {
    let node = Node::new().await;
    let sandbox = node.sandbox().await;
    let limits = LinuxContainerResources {
        memory_limit_in_bytes: 32 << 20,
        cpu_quota: 20_000,
        cpu_period: 100_000,
        cpu_shares: 102,
        oom_score_adj: 100,
        ..LinuxContainerResources::default()
    };
    let mut config = sh(
        "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/cpu/cpu.cfs_quota_us /proc/self/oom_score_adj; \
                         head -c 100m /dev/zero | tr '\\0' x | { read -r line; echo survived; }",
    );
    config.linux =
        Some(LinuxContainerConfig { resources: Some(limits.clone()), security_context: None });
    config.command[2] = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/cpu/cpu.cfs_quota_us /proc/self/oom_score_adj; \
                         exec dd if=/dev/zero of=/dev/null bs=100M".to_owned();
    let (code, text) = node.script(&sandbox, config).await;
    assert_eq!(text, "33554432\n20000\n100\n");
    let list = node.rt().list_containers(ContainerFilter::default()).await.unwrap();
    let status = node.status(&list[0].id).await;
    assert_eq!((code, status.reason.as_str()), (137, "OOMKilled"));
    let mut config = sh("exec sleep 1000");
    config.linux = Some(LinuxContainerConfig { resources: Some(limits), security_context: None });
    let id = node.start(&sandbox, config).await;
    let wider = LinuxContainerResources {
        memory_limit_in_bytes: 64 << 20,
        ..LinuxContainerResources::default()
    };
    let request = UpdateContainerResourcesRequest {
        container_id: id.clone(),
        linux: Some(wider),
        annotations: BTreeMap::new(),
    };
    node.rt().update_container_resources(request).await.map_err(|e| e.chain()).unwrap();
    assert_eq!(
        node.exec(&id, "cat /sys/fs/cgroup/memory/memory.limit_in_bytes").await.1,
        "67108864\n"
    );
    let stats = node.rt().container_stats(&id).await.unwrap();
    assert!(stats.memory.unwrap().usage_bytes.unwrap().value > 0);
    assert!(stats.cpu.unwrap().usage_core_nano_seconds.unwrap().value > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn stops_are_gentle_then_firm() {
    let node = Node::new().await;
    let sandbox = node.sandbox().await;
    let gentle = node
        .start(&sandbox, sh("trap 'exit 3' TERM; touch /tmp/ready; while :; do sleep 0.01; done"))
        .await;
    node.exec(&gentle, "while [ ! -e /tmp/ready ]; do sleep 0.01; done").await;
    node.rt().stop_container(&gentle, 10).await.unwrap();
    assert_eq!(node.status(&gentle).await.exit_code, 3);
    let deaf = node.start(&sandbox, sh("exec sleep 1000")).await;
    node.rt().stop_container(&deaf, 1).await.unwrap();
    assert_eq!(node.status(&deaf).await.exit_code, 137);
    node.rt().stop_container("unknown", 1).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn pid_namespaces_can_be_shared() {
    let node = Node::new().await;
    let mut config = node.sandbox_config("shared");
    let options = NamespaceOption { pid: NamespaceMode::Pod as i32, ..NamespaceOption::default() };
    let context = LinuxSandboxSecurityContext {
        namespace_options: Some(options.clone()),
        ..LinuxSandboxSecurityContext::default()
    };
    config.linux = Some(LinuxPodSandboxConfig {
        security_context: Some(context),
        ..LinuxPodSandboxConfig::default()
    });
    let sandbox = node.sandbox_of(config).await;
    let one = node
        .start(
            &sandbox,
            with_context("exec sleep 4321", |c| c.namespace_options = Some(options.clone())),
        )
        .await;
    let (_, text) = node
        .script(
            &sandbox,
            with_context("ps -o args; ls /proc/1/root/ 2>&1; echo done", |c| {
                c.namespace_options = Some(options)
            }),
        )
        .await;
    assert!(text.contains("sleep 4321"), "{text}");
    assert!(!text.contains("boot"), "the init shows no host files: {text}");
    node.rt().stop_container(&one, 0).await.unwrap();
    let host = NamespaceOption { pid: NamespaceMode::Node as i32, ..NamespaceOption::default() };
    let (_, text) =
        node.script(&sandbox, with_context("echo $$", |c| c.namespace_options = Some(host))).await;
    assert!(text.trim().parse::<u32>().unwrap() > 10, "{text}");
    node.rt().remove_pod_sandbox(&sandbox).await.map_err(|e| e.chain()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn read_only_roots_and_missing_directories() {
    let node = Node::new().await;
    let sandbox = node.sandbox().await;
    let mut config =
        with_context("touch /x; pwd; touch /dev/shm/x && echo shm", |c| c.readonly_rootfs = true);
    config.working_dir = "/made/for/it".to_owned();
    let (_, text) = node.script(&sandbox, config).await;
    assert!(
        text.contains("Read-only file system")
            && text.contains("/made/for/it")
            && text.contains("shm"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_is_given_up_leaves_nothing_behind() {
    let node = Node::new().await;
    let sandbox = node.sandbox().await;
    let id = node.create(&sandbox, sh("sleep 31415")).await.unwrap();
    let rt = node.rt();
    // Asked for while the supervisor stands still, so that there is no answer, and dropped.
    let supervisor = rustix::process::Pid::from_raw(node.supervisor_pid()).unwrap();
    let signal = |signal| rustix::process::kill_process(supervisor, signal).unwrap();
    signal(rustix::process::Signal::STOP);
    let turns = async {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        biased;
        started = rt.start_container(&id) => panic!("{started:?} by nobody"),
        () = turns => {}
    }
    signal(rustix::process::Signal::CONT);
    let alive = || {
        std::fs::read_dir("/proc").unwrap().flatten().any(|process| {
            let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
            line.windows(5).any(|five| five == b"31415")
        })
    };
    while !alive() {
        tokio::task::yield_now().await;
    }
    rt.remove_pod_sandbox(&sandbox).await.unwrap();
    assert!(!alive(), "a process that nobody knows");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_whose_name_is_no_host_name_has_the_nodes() {
    let node = Node::new().await;
    let name =
        |name: &str| PodSandboxConfig { hostname: String::new(), ..node.sandbox_config(name) };
    let of_node = rustix::system::uname().nodename().to_string_lossy().into_owned();
    for (pod, expected) in [("short", "short"), (&"long".repeat(17), of_node.as_str())] {
        let sandbox = node.sandbox_of(name(pod)).await;
        let (code, text) = node.script(&sandbox, sh("hostname")).await;
        assert_eq!(code, 0, "{text}");
        assert!(text.contains(expected), "{text}");
    }
}
