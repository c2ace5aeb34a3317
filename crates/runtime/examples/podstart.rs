//! How long a whole pod takes: sandbox, container created, program running. Budget: p50 <= 8 ms.
//!
//! `cargo run --release -p runtime --example podstart [idle-ms]`; needs root, busybox-static, and the
//! `supervisor` example built beside it. With a pause before each pod it measures what a calm node sees.

use std::sync::Arc;
use std::time::{Duration, Instant};

use runtime::cri::*;
use runtime::image::StaticImage;
use runtime::{Config, Embedded, LoopbackOnly, Result, RuntimeService};

const PODS: usize = 60;

#[tokio::main]
async fn main() -> Result<()> {
    let pause: u64 = std::env::args().nth(1).and_then(|a| a.parse().ok()).unwrap_or(0);
    let dir = tempfile::tempdir_in("/var/tmp").expect("a directory in /var/tmp");
    let mut config = Config::new(dir.path().join("lib"), dir.path().join("run"));
    config.cgroup_parent = format!("/trireme-test-bench-{}", std::process::id());
    let here = std::env::current_exe().expect("a path");
    config.supervisor_command = vec![here.with_file_name("supervisor").into()];
    let runtime = Embedded::open(config.clone(), Arc::new(LoopbackOnly)).await?;
    runtime.images().build_static(&StaticImage {
        file: "/bin/busybox".into(),
        path: "/bin/sleep".to_owned(),
        entrypoint: vec!["/bin/sleep".to_owned(), "1000".to_owned()],
        names: vec!["bench".to_owned()],
        ..StaticImage::default()
    })?;
    let mut times = Vec::new();
    for n in 0..PODS {
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let started = Instant::now();
        let sandbox = runtime.run_pod_sandbox(RunPodSandboxRequest { config: Some(pod(n)), ..Default::default() }).await?;
        let after_sandbox = started.elapsed();
        let request = CreateContainerRequest { pod_sandbox_id: sandbox.clone(), config: Some(container()), sandbox_config: None };
        let id = runtime.create_container(request).await?;
        let after_create = started.elapsed();
        runtime.start_container(&id).await?;
        times.push([after_sandbox, after_create - after_sandbox, started.elapsed() - after_create, started.elapsed()]);
        runtime.remove_pod_sandbox(&sandbox).await?;
    }
    for (name, column) in ["sandbox", "create", "start", "whole pod"].iter().zip(0..) {
        let mut list: Vec<f64> = times.iter().map(|t| t[column].as_secs_f64() * 1e3).collect();
        list.sort_by(f64::total_cmp);
        println!("{name:>10}: p50 {:.2} ms, p90 {:.2} ms, max {:.2} ms", list[PODS / 2], list[PODS * 9 / 10], list[PODS - 1]);
    }
    clean_up(runtime, &config)
}

fn pod(n: usize) -> PodSandboxConfig {
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata { name: format!("p{n}"), ..PodSandboxMetadata::default() }),
        hostname: format!("p{n}"),
        log_directory: "/tmp".to_owned(),
        ..PodSandboxConfig::default()
    }
}

/// Limits, default filter, capabilities: what a kubelet asks for.
fn container() -> ContainerConfig {
    let context = LinuxContainerSecurityContext { seccomp: Some(SecurityProfile::default()), ..Default::default() };
    let resources = LinuxContainerResources {
        memory_limit_in_bytes: 64 << 20,
        cpu_quota: 50_000,
        cpu_period: 100_000,
        ..LinuxContainerResources::default()
    };
    ContainerConfig {
        metadata: Some(ContainerMetadata { name: "c".to_owned(), attempt: 0 }),
        image: Some(ImageSpec { image: "bench".to_owned(), ..ImageSpec::default() }),
        linux: Some(LinuxContainerConfig { resources: Some(resources), security_context: Some(context) }),
        ..ContainerConfig::default()
    }
}

fn clean_up(runtime: Embedded, config: &Config) -> Result<()> {
    let group = runtime.cgroups().group(&config.cgroup_parent)?;
    for pid in group.pids() {
        let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let line = |key: &str| text.lines().find(|l| l.starts_with(key)).unwrap_or("").to_owned();
        println!("supervisor {pid}: {} {} {}", line("Rss"), line("Pss:"), line("Private_Dirty"));
    }
    drop(runtime);
    let deadline = Instant::now() + Duration::from_secs(5);
    while group.kill().and_then(|()| group.remove()).is_err() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    rustix::mount::unmount(&config.state_dir, rustix::mount::UnmountFlags::DETACH).expect("the state directory is a mount");
    Ok(())
}
