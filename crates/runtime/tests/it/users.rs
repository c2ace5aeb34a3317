//! User namespaces: a pod's root is nobody on the host.
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use runtime::cri::*;
use runtime::{RuntimeService, StreamOptions};
use tokio::io::AsyncReadExt;

use crate::harness::{LIMIT, Node, sh, with_context};

const FIRST: u32 = 1_000_000;

fn mapping() -> Vec<IDMapping> {
    vec![IDMapping { host_id: FIRST, container_id: 0, length: 65_536 }]
}

fn options() -> NamespaceOption {
    let users = UserNamespace { mode: NamespaceMode::Pod as i32, uids: mapping(), gids: mapping() };
    NamespaceOption {
        pid: NamespaceMode::Container as i32,
        userns_options: Some(users),
        ..NamespaceOption::default()
    }
}

fn config(node: &Node, options: NamespaceOption) -> PodSandboxConfig {
    PodSandboxConfig {
        linux: Some(LinuxPodSandboxConfig {
            security_context: Some(LinuxSandboxSecurityContext {
                namespace_options: Some(options),
                ..LinuxSandboxSecurityContext::default()
            }),
            sysctls: [("net.ipv4.ip_unprivileged_port_start".to_owned(), "80".to_owned())].into(),
            ..LinuxPodSandboxConfig::default()
        }),
        ..node.sandbox_config("mapped")
    }
}

fn volume(node: &Node, mapped: bool) -> Mount {
    let path = node.dir.path().join(if mapped { "mapped" } else { "plain" });
    std::fs::create_dir_all(&path).unwrap();
    std::fs::write(path.join("file"), "x\n").unwrap();
    let lines = if mapped { mapping() } else { Vec::new() };
    Mount {
        container_path: if mapped { "/mapped" } else { "/plain" }.to_owned(),
        host_path: path.to_string_lossy().into_owned(),
        uid_mappings: lines.clone(),
        gid_mappings: lines,
        ..Mount::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn root_is_nobody_on_the_host() {
    let node = Node::new().await;
    let status = node.rt().status(false).await.unwrap();
    assert!(status.runtime_handlers.iter().all(|h| h.features.as_ref().unwrap().user_namespaces));
    let sandbox = node.sandbox_of(config(&node, options())).await;
    let script = "id -u; cat /proc/self/uid_map | tr -s ' '; stat -c '%u %g' /bin /etc/hostname /mapped/file /plain/file /dev/shm; \
        touch /made /mapped/made /dev/shm/made && echo wrote; touch /plain/made; hostname; \
        cat /proc/sys/net/ipv4/ip_unprivileged_port_start; echo out > /dev/stdout; \
        grep -E 'Cap(Eff|Bnd)|Seccomp:' /proc/self/status; \
        head -c 4 /dev/zero | wc -c; echo > /dev/null; ls /sys/class/net; \
        touch /tmp/ready; exec sleep 1000";
    let mut wanted = with_context(script, |c| {
        c.namespace_options = Some(options());
        c.seccomp = Some(SecurityProfile::default());
    });
    wanted.mounts = vec![volume(&node, true), volume(&node, false)];
    let id = node.start(&sandbox, wanted).await;
    node.exec(&id, "while [ ! -e /tmp/ready ]; do sleep 0.01; done").await;
    let text = crate::harness::log_text(&node.status(&id).await.log_path);
    for line in [
        "0",
        " 0 1000000 65536",
        "0 0",
        "65534 65534",
        "wrote",
        "touch: /plain/made: Permission denied",
        "mapped",
        "80",
        "out",
        "CapEff:\t00000000a80425fb",
        "Seccomp:\t2",
        "4",
        "lo",
    ] {
        assert!(text.lines().any(|l| l == line), "{line:?} in {text}");
    }
    // On the host it is somebody of no account, and its files are root's again.
    let pid = std::fs::read_dir("/proc").unwrap().flatten().find(|process| {
        let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        line == b"sleep\x001000\0"
            && std::fs::metadata(process.path()).is_ok_and(|m| m.uid() == FIRST)
    });
    assert!(pid.is_some(), "no process of the mapped root");
    assert_eq!(std::fs::metadata(node.dir.path().join("mapped/made")).unwrap().uid(), 0);
    let upper = node.config.root.join("containers").join(&id).join("upper/made");
    assert_eq!(std::fs::metadata(upper).unwrap().uid(), FIRST);
    execs(&node, &id).await;
    node.rt().remove_pod_sandbox(&sandbox).await.map_err(|e| e.chain()).unwrap();
}

/// Execs are in the same namespace, and leave the host's devices alone.
async fn execs(node: &Node, id: &str) {
    let before = std::fs::metadata("/dev/null").unwrap();
    let script = "id -u; cat /proc/self/uid_map | tr -s ' '; chmod 600 /dev/null /proc/self/fd/0; \
        chown 5 /dev/null; mknod /tmp/null c 1 3; cat /proc/1/environ > /dev/null && echo own; \
        echo 1 > /proc/sys/vm/drop_caches; mount -t tmpfs x /tmp";
    let (_, text) = node.exec(id, script).await;
    assert!(text.contains("0\n 0 1000000 65536\n") && text.contains("own"), "{text}");
    assert!(text.matches("Read-only file system").count() >= 3, "{text}");
    assert!(text.contains("mknod: /tmp/null: Operation not permitted"), "{text}");
    let after = std::fs::metadata("/dev/null").unwrap();
    assert_eq!((before.mode(), before.ctime_nsec()), (after.mode(), after.ctime_nsec()));
    let tty = StreamOptions { stdout: true, tty: true, ..StreamOptions::default() };
    let cmd = ["sh", "-c", "tty; stat -c %u /dev/pts/0"].map(str::to_owned).to_vec();
    let session = node.rt().exec(id, cmd, tty).await.map_err(|e| e.chain()).unwrap();
    let mut text = String::new();
    let mut stdout = session.stdout.unwrap();
    tokio::time::timeout(LIMIT, stdout.read_to_string(&mut text)).await.unwrap().unwrap();
    assert_eq!(text, "/dev/pts/0\r\n0\r\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn mapped_pods_may_share_their_pids_and_have_users() {
    let node = Node::new().await;
    let shared = NamespaceOption { pid: NamespaceMode::Pod as i32, ..options() };
    let sandbox = node.sandbox_of(config(&node, shared.clone())).await;
    let change = |c: &mut LinuxContainerSecurityContext| {
        c.namespace_options = Some(shared.clone());
        c.run_as_username = "web".to_owned();
        c.no_new_privs = true;
    };
    node.start(&sandbox, with_context("exec sleep 4321", change)).await;
    let (_, text) = node
        .script(&sandbox, with_context("id; ps -o args; touch /tmp/x && stat -c %u /tmp/x", change))
        .await;
    assert!(text.contains("uid=33(web)") && text.contains("sleep 4321"), "{text}");
    assert!(text.contains("\n33\n"), "{text}");
}

/// A mapping that cannot be had is refused; nothing runs with another one.
#[tokio::test(flavor = "multi_thread")]
async fn other_mappings_are_refused() {
    let node = Node::new().await;
    let run = async |options: NamespaceOption| {
        let config = Some(config(&node, options));
        let request = RunPodSandboxRequest { config, runtime_handler: String::new() };
        node.rt().run_pod_sandbox(request).await
    };
    let mut host = options();
    host.network = NamespaceMode::Node as i32;
    assert!(run(host).await.is_err());
    let mut root = options();
    root.userns_options.as_mut().unwrap().uids[0].host_id = 0;
    assert!(run(root).await.is_err());
    let sandbox = run(options()).await.map_err(|e| e.chain()).unwrap();
    let mut other = options();
    other.userns_options.as_mut().unwrap().uids[0].host_id += 1;
    let wanted = with_context("true", |c| c.namespace_options = Some(other));
    let error = node.create(&sandbox, wanted).await.unwrap_err().chain();
    assert!(error.contains("different from container"), "{error}");
    let mut mount = volume(&node, true);
    mount.gid_mappings[0].length = 1;
    let error = node
        .create(&sandbox, ContainerConfig { mounts: vec![mount], ..sh("true") })
        .await
        .unwrap_err()
        .chain();
    assert!(error.contains("/mapped: id mappings other than its pod's"), "{error}");
    let plain = node.sandbox().await;
    let mount = volume(&node, true);
    let config = ContainerConfig { mounts: vec![mount], ..sh("true") };
    assert!(node.create(&plain, config).await.is_err());
    let wanted = with_context("true", |c| c.namespace_options = Some(options()));
    assert!(node.create(&plain, wanted).await.is_err());
}

/// Profiles, handlers and sysctls that cannot be had.
#[tokio::test(flavor = "multi_thread")]
async fn isolation_that_is_not_there_is_refused() {
    let node = Node::new().await;
    let handler = RunPodSandboxRequest {
        config: Some(node.sandbox_config("p")),
        runtime_handler: "gvisor".to_owned(),
    };
    let error = node.rt().run_pod_sandbox(handler).await.unwrap_err().chain();
    assert!(error.contains("no runtime for \"gvisor\" is configured"), "{error}");
    let sysctl = async |name: &str, host: bool| {
        let mode = if host { NamespaceMode::Node } else { NamespaceMode::Pod } as i32;
        let options = NamespaceOption { network: mode, ipc: mode, ..NamespaceOption::default() };
        let mut config = config(&node, options);
        config.linux.as_mut().unwrap().sysctls = [(name.to_owned(), "1".to_owned())].into();
        let request = RunPodSandboxRequest { config: Some(config), runtime_handler: String::new() };
        node.rt().run_pod_sandbox(request).await
    };
    for name in [
        "kernel.core_pattern",
        "kernel/core_pattern",
        "vm.swappiness",
        "kernel.semx",
        "net/../vm/swappiness",
        "net.ipv4.ip_forward/../../../vm/swappiness",
        "fs.file-max",
        "kernel.domainname",
        "net",
    ] {
        assert!(sysctl(name, false).await.is_err(), "{name}");
    }
    for name in ["net.ipv4.tcp_syncookies", "kernel.shm_rmid_forced", "fs.mqueue.msg_max"] {
        assert!(sysctl(name, true).await.is_err(), "{name} on the host");
    }
    for name in ["net.ipv4.tcp_syncookies", "net/ipv4/conf/lo/forwarding", "kernel.shm_rmid_forced"]
    {
        sysctl(name, false).await.map_err(|e| e.chain()).unwrap();
    }
    let sandbox = node.sandbox().await;
    let local = SecurityProfile {
        profile_type: ProfileType::Localhost as i32,
        localhost_ref: "anything".to_owned(),
    };
    let config = with_context("true", |c| c.apparmor = Some(local.clone()));
    assert!(node.create(&sandbox, config).await.unwrap_err().chain().contains("AppArmor"));
    let config = with_context("true", |c| c.apparmor_profile = "localhost/x".to_owned());
    assert!(node.create(&sandbox, config).await.unwrap_err().chain().contains("AppArmor"));
    let config = with_context("true", |c| c.seccomp = Some(local));
    assert!(node.create(&sandbox, config).await.is_err());
    assert!(Path::new("/proc/sys/net/ipv4/ip_forward").exists());
}
