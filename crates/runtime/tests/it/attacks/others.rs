//! Ordinary users of the host, and sockets that a container with the host's network could reach:
//! CVE-2021-41103, CVE-2020-15257.
use std::os::unix::process::CommandExt;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn ordinary_users_reach_nothing() {
    let node = Node::new().await;
    let sandbox = node.sandbox().await;
    let id = node.start(&sandbox, sh("exec sleep 1000")).await;
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().mode() & 0o777;
    for dir in [&node.config.root, &node.config.state_dir] {
        assert_eq!(mode(dir), 0o700, "{}", dir.display());
    }
    assert_eq!(mode(&node.config.state_dir.join("supervisor.sock")), 0o600);
    // The test's own directory is closed to others too: open it, so that only ours are in the way.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(node.dir.path(), open).unwrap();
    let layers = node.config.root.join("images/layers");
    let upper = node.config.root.join("containers").join(&id);
    let socket = node.config.state_dir.join("supervisor.sock");
    for path in [layers, upper, socket, node.config.state_dir.join("rootfs")] {
        let mut command = std::process::Command::new("/bin/busybox");
        let done = command.args(["ls", "-ld"]).arg(&path).uid(1000).gid(1000).output().unwrap();
        assert!(!done.status.success(), "{}: {done:?}", path.display());
    }
}

/// Abstract sockets know no file permissions: there are none.
#[tokio::test(flavor = "multi_thread")]
async fn no_socket_is_abstract() {
    let node = Node::new().await;
    let text =
        std::fs::read_to_string(format!("/proc/{}/net/unix", node.supervisor_pid())).unwrap();
    let own = text.lines().filter(|l| l.contains("supervisor") || l.contains("trireme"));
    assert!(own.clone().all(|l| !l.contains('@')), "{text}");
}
