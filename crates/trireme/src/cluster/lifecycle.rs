//! `down`, `reset` and `status`: what is done to a cluster from outside its process.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use network::{Fabric, FabricConfig, PinDir};
use runtime::{Embedded, LoopbackOnly};
use std::sync::Arc;

use super::lock::ClusterLock;
use super::node::runtime_config;
use super::paths::ClusterPaths;
use super::start::remove_file;
use super::{egress, folder, host_routes, leftovers, server};

/// Time a cluster gets to end its pods in order.
const STOP_MAX: Duration = Duration::from_secs(60);

/// Ends the cluster; its data stays.
pub(crate) fn down(name: &str) -> Result<()> {
    let paths = existing(name)?;
    end(&paths)?;
    println!("Cluster {name:?} is down; its data is kept in {}.", paths.root.display());
    Ok(())
}

/// The paths of a cluster that was made once.
fn existing(name: &str) -> Result<ClusterPaths> {
    let paths = ClusterPaths::new(name)?;
    match folder::exists(&paths.root)? {
        true => Ok(paths),
        false => bail!("there is no cluster {name:?}"),
    }
}

/// The kubeconfig of a cluster that exists.
pub(crate) fn kubeconfig_of(name: &str) -> Result<PathBuf> {
    Ok(existing(name)?.kubeconfig())
}

/// Ends the cluster's process, and removes what it left.
fn end(paths: &ClusterPaths) -> Result<()> {
    if let Some(holder) = paths.holder()? {
        holder.end(STOP_MAX)?;
    }
    // Nobody starts it again meanwhile.
    let Some(_lock) = ClusterLock::take(&paths.root)? else {
        bail!("cluster {:?} was started again while it ended", paths.name);
    };
    clean(paths)
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
    host_routes::remove(paths)?;
    leftovers::end_supervisors(paths);
    leftovers::remove_cgroups(&paths.cgroup);
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
    let paths = existing(name)?;
    if !yes {
        bail!(
            "this deletes every object and image of cluster {name:?} in {}; say --yes to do it",
            paths.root.display()
        );
    }
    end(&paths)?;
    std::fs::remove_dir_all(&paths.root)
        .with_context(|| format!("delete {}", paths.root.display()))?;
    println!("Cluster {name:?} is gone.");
    Ok(())
}

/// Prints what runs.
pub(crate) fn status(name: &str, json: bool) -> Result<()> {
    let paths = existing(name)?;
    let Some(holder) = paths.holder()? else {
        bail!("cluster {name:?} is not running; `trireme up --name {name}` starts it");
    };
    // The record is written last, so a former one belongs to another process.
    let Some(record) = paths.read_record().filter(|record| record.pid == holder.pid) else {
        bail!("cluster {name:?} is being started by process {}", holder.pid);
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
