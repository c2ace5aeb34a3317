//! Links in images and volumes: CVE-2019-16884, CVE-2019-19921, CVE-2021-30465, CVE-2023-27561.
use std::os::unix::fs::symlink;

use runtime::image::StaticImage;

use super::*;

fn mount(to: &str, from: &std::path::Path) -> Mount {
    Mount {
        container_path: to.to_owned(),
        host_path: from.to_string_lossy().into_owned(),
        ..Mount::default()
    }
}

async fn start_error(node: &Node, sandbox: &str, config: ContainerConfig) -> String {
    match node.create(sandbox, config).await {
        Err(e) => e.chain(),
        Ok(id) => node.rt().start_container(&id).await.expect_err("it started").chain(),
    }
}

/// A volume over `/proc`, below it, or on a link that leads there.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_mounted_on_the_process_file_system() {
    let node = Node::new().await;
    let sandbox = node.sandbox().await;
    let volume = node.dir.path().join("volume");
    std::fs::create_dir_all(volume.join("dir")).unwrap();
    symlink("/proc", volume.join("proc")).unwrap();
    symlink("/proc/sys/kernel", volume.join("deep")).unwrap();
    symlink("../../../../proc/self/attr", volume.join("up")).unwrap();
    let with = |paths: &[&str]| {
        let mut config = sh("true");
        config.mounts = paths.iter().map(|p| mount(p, &volume)).collect();
        config
    };
    let error = start_error(&node, &sandbox, with(&["/proc"])).await;
    assert!(
        error.contains("\"/proc\" cannot be mounted because it is not of type proc"),
        "{error}"
    );
    for path in ["/proc/sys", "/proc/self", "/proc/1", "/proc/kcore", "//proc//sys"] {
        let error = start_error(&node, &sandbox, with(&[path])).await;
        assert!(error.contains("inside /proc"), "{path}: {error}");
    }
    for link in ["/v/proc", "/v/deep", "/v/up", "/v/proc/sys"] {
        let error = start_error(&node, &sandbox, with(&["/v", link])).await;
        assert!(error.contains("Operation not permitted"), "{link}: {error}");
    }
    // Tools that fake a container's view do this.
    std::fs::write(volume.join("meminfo"), "MemTotal: 1 kB\n").unwrap();
    let mut config = sh("cat /proc/meminfo");
    config.mounts = vec![mount("/proc/meminfo", &volume.join("meminfo"))];
    assert_eq!(node.script(&sandbox, config).await.1, "MemTotal: 1 kB\n");
}

/// Links out of a volume end inside the container, and make nothing on the host (CVE-2021-30465,
/// CVE-2024-45310).
#[tokio::test(flavor = "multi_thread")]
async fn links_of_volumes_stay_inside() {
    let node = Node::new().await;
    let sandbox = node.sandbox().await;
    let volume = node.dir.path().join("volume");
    let outside = node.dir.path().join("outside");
    std::fs::create_dir_all(&volume).unwrap();
    std::fs::create_dir_all(&outside).unwrap();
    symlink(&outside, volume.join("absolute")).unwrap();
    symlink("../outside", volume.join("relative")).unwrap();
    for link in ["absolute", "relative"] {
        let mut mounted = sh("touch /v/absolute/x /v/relative/x");
        mounted.mounts = vec![mount("/v", &volume), mount(&format!("/v/{link}/a"), &volume)];
        let mut working = sh("touch x");
        working.mounts = vec![mount("/v", &volume)];
        working.working_dir = format!("/v/{link}/made/here");
        for config in [mounted, working] {
            let id = node.create(&sandbox, config).await.unwrap();
            // A link to nowhere (seen from inside) may be refused; nothing may happen outside.
            let _ = node.rt().start_container(&id).await;
        }
    }
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn images_with_links_for_system_directories() {
    let node = Node::new().await;
    let sandbox = node.sandbox().await;
    let build = |name: &str, links: &[(&str, &str)]| {
        let mut all = vec![("/bin/sh", "busybox"), ("/bin/ls", "busybox"), ("/bin/cat", "busybox")];
        all.extend(links);
        let image = StaticImage {
            file: "/bin/busybox".into(),
            path: "/bin/busybox".to_owned(),
            links: all.iter().map(|(p, t)| ((*p).to_owned(), (*t).to_owned())).collect(),
            names: vec![name.to_owned()],
            ..StaticImage::default()
        };
        node.rt().images().build_static(&image).unwrap();
    };
    let of = |name: &str, script: &str| ContainerConfig {
        image: Some(ImageSpec { image: name.to_owned(), ..ImageSpec::default() }),
        ..sh(script)
    };
    build("proc-link", &[("/proc", "/tmp"), ("/etc/passwd", "/proc/self/environ")]);
    let error = start_error(&node, &sandbox, of("proc-link", "true")).await;
    assert!(error.contains("mount proc to /proc"), "{error}");
    build("sys-link", &[("/sys", "tmp")]);
    let error = start_error(&node, &sandbox, of("sys-link", "true")).await;
    assert!(error.contains("mount sysfs to /sys"), "{error}");
    build("dev-link", &[("/dev", "tmp/../tmp")]);
    let (_, text) = node.script(&sandbox, of("dev-link", "ls -l /tmp/null; ls /dev/pts")).await;
    assert!(text.contains("1,   3"), "{text}");
    build("dev-fd", &[("/dev", "/proc/self/fd")]);
    start_error(&node, &sandbox, of("dev-fd", "true")).await;
    // Files of users that lead elsewhere are not read.
    build("users", &[("/etc/passwd", "/proc/self/environ"), ("/etc/group", "/../../../etc/group")]);
    let mut config = of("users", "true");
    config.linux = Some(LinuxContainerConfig {
        security_context: Some(LinuxContainerSecurityContext {
            run_as_username: "daemon".to_owned(),
            ..LinuxContainerSecurityContext::default()
        }),
        resources: None,
    });
    let error = start_error(&node, &sandbox, config).await;
    assert!(error.contains("unable to find user daemon"), "{error}");
}
