//! Devices, masks and terminals are a container's own: CVE-2025-31133, CVE-2025-52565.
use super::*;

/// The nodes that every container has.
const NODES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

fn host_nodes() -> Vec<(u32, u32, u32, i64, i64)> {
    let of = |name: &&str| {
        let meta = std::fs::metadata(format!("/dev/{name}")).unwrap();
        (meta.mode(), meta.uid(), meta.gid(), meta.ctime(), meta.ctime_nsec())
    };
    NODES.iter().map(of).collect()
}

/// Changes every inode it can reach by a path of its own, or by a descriptor.
const CHANGES: &str = "for f in null zero full random urandom tty; do chmod 640 /dev/$f; chown 5:5 /dev/$f; done; \
     for f in 0 1 2; do chmod 601 /proc/self/fd/$f; chown 6:6 /proc/self/fd/$f; done; \
     for f in keys timer_list interrupts; do chmod 604 /proc/$f; chown 7:7 /proc/$f; done; \
     for f in null zero full; do touch -d @1 /dev/$f; done; stat -c '%a %u' /dev/null";

#[tokio::test(flavor = "multi_thread")]
async fn devices_are_the_containers_own() {
    let node = Node::new().await;
    let sandbox = node.sandbox().await;
    let before = host_nodes();
    for privileged in [false, true] {
        let config = with_context(CHANGES, |c| c.privileged = privileged);
        let (_, text) = node.script(&sandbox, config).await;
        assert!(text.contains("601 6"), "{text}");
    }
    let id = node.start(&sandbox, sh("exec sleep 1000")).await;
    let text = node.exec(&id, CHANGES).await.1;
    assert!(text.contains("601 6"), "{text}");
    assert_eq!(host_nodes(), before);
}

/// A mask cannot be changed, and hides what is below whatever the container does to its own device.
#[tokio::test(flavor = "multi_thread")]
async fn masks_hold() {
    let node = Node::new().await;
    let sandbox = node.sandbox().await;
    let script = "chmod 777 /proc/keys; rm -f /dev/null; echo evil > /dev/null; wc -c < /proc/keys; \
                  stat -c '%F %t:%T' /proc/keys; umount /proc/keys; echo x > /proc/sys/vm/drop_caches";
    let (_, text) = node.script(&sandbox, sh(script)).await;
    assert!(text.contains("chmod: /proc/keys: Read-only file system"), "{text}");
    assert!(text.contains("0\ncharacter special file 1:3\n"), "{text}");
    assert!(text.contains("can't create /proc/sys/vm/drop_caches: Read-only"), "{text}");
}

/// An exec into a container that has prepared its `/dev`: no link is followed, no other device opened.
#[tokio::test(flavor = "multi_thread")]
async fn a_prepared_dev_catches_nothing() {
    let node = Node::new().await;
    let sandbox = node.sandbox().await;
    let traps = [
        "rm /dev/null; ln -s /tmp/trap /dev/null",
        "rm /dev/null; mknod /dev/null p",
        "rm /dev/null; echo > /dev/null",
        "rm /dev/null; mknod /dev/null c 1 5",
        "rm /dev/null",
    ];
    for trap in traps {
        let script = format!("touch /tmp/trap; {trap}; touch /tmp/ready; exec sleep 1000");
        let id = node.start(&sandbox, sh(&script)).await;
        wait_for(&node, &id, "/tmp/ready").await;
        let seen =
            node.exec(&id, "head -c 9 <&0 | wc -c; stat -L -c '%F %t:%T' /proc/self/fd/0").await.1;
        assert_eq!(seen, "0\ncharacter special file 1:3\n", "{trap}");
        node.rt().stop_container(&id, 0).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepared_terminal_catches_nothing() {
    let node = Node::new().await;
    let sandbox = node.sandbox().await;
    let traps = [
        "echo > /tmp/trap; mount -o bind /tmp/trap /dev/pts/ptmx",
        "mkdir /tmp/pts; ln -s /tmp/trap /tmp/pts/ptmx; mount -o bind /tmp/pts /dev/pts",
        "mkdir /tmp/pts; mknod /tmp/pts/ptmx p; mount -o bind /tmp/pts /dev/pts",
        "mknod /tmp/ptmx b 7 0; mount -o bind /tmp/ptmx /dev/pts/ptmx",
    ];
    let tty = runtime::StreamOptions { stdout: true, tty: true, ..Default::default() };
    for trap in traps {
        let script = format!("{trap}; touch /tmp/ready; exec sleep 1000");
        let id = node.start(&sandbox, with_context(&script, |c| added(c, &["SYS_ADMIN"]))).await;
        wait_for(&node, &id, "/tmp/ready").await;
        let error = node.rt().exec(&id, vec!["true".to_owned()], tty).await.err();
        let error = error.expect(trap).chain();
        assert!(error.contains("set up the streams"), "{trap}: {error}");
        node.rt().stop_container(&id, 0).await.unwrap();
    }
}

/// `/dev/console` is made where it belongs even when an image or a volume has a link there.
#[tokio::test(flavor = "multi_thread")]
async fn the_console_follows_no_link() {
    let node = Node::new().await;
    let sandbox = node.sandbox().await;
    let volume = node.dir.path().join("dev");
    std::fs::create_dir(&volume).unwrap();
    std::os::unix::fs::symlink("/proc/sys/kernel/core_pattern", volume.join("console")).unwrap();
    let mut config = sh("true");
    config.tty = true;
    config.mounts = vec![Mount {
        container_path: "/dev".to_owned(),
        host_path: volume.to_string_lossy().into_owned(),
        ..Mount::default()
    }];
    let id = node.create(&sandbox, config).await.unwrap();
    assert!(node.rt().start_container(&id).await.is_err());
    let (_, text) = node
        .script(&sandbox, ContainerConfig { tty: true, ..sh("tty; stat -c %F /dev/console") })
        .await;
    assert!(text.contains("/dev/pts/0") && text.contains("character special file"), "{text}");
}
