//! `nfs`, as a pod's volume and as a PersistentVolume, by the kernel's client. No helper program is run: the
//! options that `mount.nfs` would find out are given to the kernel here, which speaks version 4.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::NFSVolumeSource;

use crate::spec::uid_of;
use crate::volumes::mounter::NewMount;
use crate::volumes::plugin::{Failed, Ready, SetUp, VolumePlugin};
use crate::volumes::spec::Spec;
use crate::volumes::volume_dir;

pub(crate) struct Nfs;

const DIRECTORY: &str = "kubernetes.io~nfs";
const PORT: u16 = 2049;
/// Time for the server's name, and for the mount (upstream waits for both without a limit).
const RESOLVE: Duration = Duration::from_secs(10);
const MOUNT: Duration = Duration::from_secs(110);
/// Options of `mount(8)` that are not the file system's.
const NOT_THE_KERNELS: [&str; 6] = ["defaults", "rw", "ro", "_netdev", "nofail", "auto"];

fn source(spec: &Spec) -> Option<&NFSVolumeSource> {
    spec.volume.nfs.as_ref().or_else(|| spec.source().and_then(|s| s.nfs.as_ref()))
}

#[async_trait]
impl VolumePlugin for Nfs {
    fn name(&self) -> &'static str {
        "kubernetes.io/nfs"
    }

    fn supports(&self, spec: &Spec) -> bool {
        source(spec).is_some()
    }

    fn supports_mount_options(&self) -> bool {
        true
    }

    async fn set_up(&self, of: &SetUp<'_>) -> Result<Ready, Failed> {
        let nfs = source(of.spec).cloned().unwrap_or_default();
        let name = of.spec.name();
        let target = volume_dir(&of.shared.config.root_dir, uid_of(of.pod), DIRECTORY, name);
        let mounter = of.shared.volumes.mounter();
        if mounter.is_mount_point(&target).map_err(|e| format!("{}: {e}", target.display()))? {
            return Ok(Ready::at(target));
        }
        let kernel = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
        is_known(&kernel)?;
        let address = resolve(&nfs.server).await?;
        let data = options(of.spec.mount_options(), address)?;
        let read_only = nfs.read_only.unwrap_or(false) || of.spec.read_only();
        let from = format!("{}:{}", nfs.server, nfs.path);
        let (shared, at) = (of.shared.clone(), target.clone());
        let work = tokio::task::spawn_blocking(move || -> Result<(), String> {
            let failed = |e: std::io::Error| format!("mounting {from} failed: {e}");
            std::fs::create_dir_all(&at).map_err(failed)?;
            let new = NewMount { source: &from, target: &at, kind: "nfs4", read_only, data: &data };
            shared.volumes.mounter().mount(&new).map_err(failed)
        });
        let late = || format!("mounting {}:{} took longer than {MOUNT:?}", nfs.server, nfs.path);
        let done = tokio::time::timeout(MOUNT, work).await.map_err(|_| late())?;
        done.map_err(|e| e.to_string())??;
        Ok(Ready::at(PathBuf::from(&target)))
    }
}

fn is_known(filesystems: &str) -> Result<(), String> {
    match filesystems.lines().any(|l| l.split_whitespace().next_back() == Some("nfs4")) {
        true => Ok(()),
        false => Err("the node's kernel has no NFS client (nfs4 is not in /proc/filesystems): load the module nfsv4".into()),
    }
}

async fn resolve(server: &str) -> Result<IpAddr, String> {
    let plain = server.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = plain.parse() {
        return Ok(address);
    }
    let found = tokio::time::timeout(RESOLVE, tokio::net::lookup_host((server, PORT))).await;
    let found = found.map_err(|_| format!("NFS server {server} not resolved in {RESOLVE:?}"))?;
    let mut found = found.map_err(|e| format!("NFS server {server} not resolved: {e}"))?;
    let first = found.next().as_ref().map(SocketAddr::ip);
    first.ok_or_else(|| format!("NFS server {server} has no address"))
}

/// What the kernel is told.
fn options(given: &[String], server: IpAddr) -> Result<String, String> {
    let mut out = Vec::new();
    let mut has_version = false;
    for option in given.iter().flat_map(|o| o.split(',')).filter(|o| !o.is_empty()) {
        let (key, value) = option.split_once('=').unwrap_or((option, ""));
        if matches!(key, "vers" | "nfsvers") {
            if !value.starts_with('4') {
                return Err(format!(
                    "mount option {option:?}: this node mounts NFS version 4 only"
                ));
            }
            has_version = true;
        }
        if matches!(key, "addr" | "clientaddr" | "mountaddr") {
            return Err(format!("mount option {option:?} is not allowed"));
        }
        if !NOT_THE_KERNELS.contains(&key) {
            out.push(option.to_owned());
        }
    }
    if !has_version {
        out.push("vers=4.2".into());
    }
    out.push(format!("addr={server}"));
    Ok(out.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_told_what_a_helper_would_find_out() {
        let server = "10.0.0.7".parse().unwrap();
        let of = |given: &[&str]| {
            let given: Vec<String> = given.iter().map(|s| (*s).to_owned()).collect();
            options(&given, server)
        };
        assert_eq!(of(&[]).unwrap(), "vers=4.2,addr=10.0.0.7");
        assert_eq!(of(&["hard,rw", "nfsvers=4.1"]).unwrap(), "hard,nfsvers=4.1,addr=10.0.0.7");
        assert!(of(&["vers=3"]).unwrap_err().contains("version 4 only"));
        assert!(of(&["addr=1.2.3.4"]).unwrap_err().contains("not allowed"));
    }

    #[test]
    fn a_kernel_without_nfs_is_named() {
        assert_eq!(is_known("nodev\ttmpfs\nnodev\tnfs4\n"), Ok(()));
        assert!(is_known("nodev\tnfsd\n").unwrap_err().contains("no NFS client"));
    }
}
