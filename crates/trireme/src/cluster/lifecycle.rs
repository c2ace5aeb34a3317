//! `down`, `reset` and `status`: what is done to a cluster from outside its process.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use network::{Fabric, FabricConfig, PinDir};
use runtime::{Embedded, LoopbackOnly};
use std::sync::Arc;

use super::leftovers;
use super::node::runtime_config;
use super::paths::ClusterPaths;
use super::start::remove_file;
use super::{egress, server};

/// Time a cluster gets to end its pods in order.
const STOP_MAX: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// Ends the cluster; its data stays.
pub(crate) fn down(name: &str) -> Result<()> {
    let paths = ClusterPaths::new(name)?;
    if let Some(record) = paths.running() {
        stop_process(record.pid)?;
    }
    if !paths.root.exists() {
        bail!("there is no cluster {name:?}");
    }
    clean(&paths)?;
    println!("Cluster {name:?} is down; its data is kept in {}.", paths.root.display());
    Ok(())
}

fn stop_process(pid: u32) -> Result<()> {
    let pid =
        i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).context("a process id")?;
    rustix::process::kill_process(pid, rustix::process::Signal::TERM)
        .context("stop the cluster's process")?;
    let start = Instant::now();
    while rustix::process::test_kill_process(pid).is_ok() {
        if start.elapsed() > STOP_MAX {
            bail!("process {} has not ended after {} s", pid.as_raw_nonzero(), STOP_MAX.as_secs());
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}

/// Removes what a killed process left: containers, mounts, namespaces.
fn clean(paths: &ClusterPaths) -> Result<()> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    for index in 0.. {
        if !paths.node(index).exists() {
            break;
        }
        let config = runtime_config(paths, index, None);
        if !config.state_dir.exists() {
            continue;
        }
        let ended = runtime.block_on(async {
            Embedded::open(config, Arc::new(LoopbackOnly)).await?.reset().await
        });
        ended.with_context(|| format!("remove the containers of node {index}"))?;
    }
    // Its tasks have ended then: nobody starts a supervisor after the last look for them.
    drop(runtime);
    if paths.namespaces().exists() {
        let pins = PinDir::open(paths.namespaces())?;
        Fabric::create(pins, FabricConfig::new(paths.name.clone()))?.remove()?;
        PinDir::open(paths.namespaces())?.close()?;
    }
    egress::remove_leftovers(paths).context("remove the way out")?;
    server::close_host(paths)?;
    leftovers::end_supervisors(paths);
    leftovers::remove_cgroups(&paths.name);
    unmount_below(&paths.root)?;
    remove_file(&paths.record())
}

/// Unmounts whatever is mounted below a folder, deepest first: volumes of pods that are gone.
pub(super) fn unmount_below(folder: &Path) -> Result<()> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").context("read the mount table")?;
    // The second word is the mount point, with blanks as octal escapes (proc(5)).
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    let mut below: Vec<PathBuf> = points
        .map(|point| PathBuf::from(point.replace("\\040", " ")))
        .filter(|point| point.starts_with(folder))
        .collect();
    below.sort_by_key(|point| std::cmp::Reverse(point.components().count()));
    for point in below {
        rustix::mount::unmount(&point, rustix::mount::UnmountFlags::DETACH)
            .with_context(|| format!("unmount {}", point.display()))?;
    }
    Ok(())
}

/// Ends the cluster and forgets everything about it.
pub(crate) fn reset(name: &str, yes: bool) -> Result<()> {
    let paths = ClusterPaths::new(name)?;
    if !paths.root.exists() {
        bail!("there is no cluster {name:?}");
    }
    if !yes {
        bail!(
            "this deletes every object and image of cluster {name:?} in {}; say --yes to do it",
            paths.root.display()
        );
    }
    if let Some(record) = paths.running() {
        stop_process(record.pid)?;
    }
    clean(&paths)?;
    std::fs::remove_dir_all(&paths.root)
        .with_context(|| format!("delete {}", paths.root.display()))?;
    println!("Cluster {name:?} is gone.");
    Ok(())
}

/// Prints what runs.
pub(crate) fn status(name: &str, json: bool) -> Result<()> {
    let paths = ClusterPaths::new(name)?;
    let Some(record) = paths.running() else {
        bail!("cluster {name:?} is not running; `trireme up --name {name}` starts it");
    };
    if json {
        println!("{}", serde_json::to_string_pretty(&record)?);
    } else {
        println!(
            "name:       {}\npid:        {}\nserver:     {}",
            record.name, record.pid, record.server
        );
        println!(
            "kubeconfig: {}\nnodes:      {}",
            record.kubeconfig.display(),
            record.nodes.join(", ")
        );
    }
    Ok(())
}
