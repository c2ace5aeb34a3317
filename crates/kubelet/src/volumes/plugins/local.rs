//! `local` PersistentVolumes: a directory or a device of this node.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Component, Path, PathBuf};

use async_trait::async_trait;
use client::EventType;

use crate::pod::pod_reference;
use crate::spec::uid_of;
use crate::volumes::mounter::Mounter;
use crate::volumes::ownership::Ownership;
use crate::volumes::plugin::{Failed, Ready, SetUp, VolumePlugin};
use crate::volumes::spec::Spec;
use crate::volumes::{change_policy, volume_dir};

pub(crate) struct Local;

const DIRECTORY: &str = "kubernetes.io~local-volume";

#[async_trait]
impl VolumePlugin for Local {
    fn name(&self) -> &'static str {
        "kubernetes.io/local-volume"
    }

    fn supports(&self, spec: &Spec) -> bool {
        spec.source().is_some_and(|s| s.local.is_some())
    }

    fn supports_block(&self) -> bool {
        true
    }

    fn supports_mount_options(&self) -> bool {
        true
    }

    async fn set_up(&self, of: &SetUp<'_>) -> Result<Ready, Failed> {
        let local = of.spec.source().and_then(|s| s.local.clone()).unwrap_or_default();
        let path = PathBuf::from(&local.path);
        checked(of.spec.name(), &path)?;
        if of.spec.is_block() {
            return device(&path)
                .map(Ready::at)
                .map_err(|why| Failed::new("MapVolume.SetUpDevice failed", why));
        }
        if !of.spec.mount_options().is_empty() {
            return Err(refused_options().into());
        }
        let name = of.spec.name().to_owned();
        let _own = of.shared.volumes.exclusive(&format!("local {}", path.display())).await;
        let unique = super::super::unique_name(of.spec, self.name());
        let shared_with = of.shared.volumes.is_used_elsewhere(uid_of(of.pod), &unique);
        let target = volume_dir(&of.shared.config.root_dir, uid_of(of.pod), DIRECTORY, &name);
        let plan = Plan {
            from: path.clone(),
            to: target.clone(),
            read_only: of.spec.read_only(),
            ownership: of.group.map(|group| Ownership {
                group,
                read_only: false,
                only_on_mismatch: change_policy(of.pod),
            }),
            is_first: !shared_with,
        };
        if let Some(group) = of.group.filter(|_| shared_with) {
            warn_of_other_group(of, &path, &name, group);
        }
        let shared = of.shared.clone();
        let work = move || plan.run(shared.volumes.mounter());
        tokio::task::spawn_blocking(work).await.map_err(|e| e.to_string())??;
        Ok(Ready::at(target))
    }
}

fn refused_options() -> String {
    "mount options of local volumes of file system mode are not supported by this node: the directory is bound as it is mounted".into()
}

fn checked(name: &str, path: &Path) -> Result<(), String> {
    if path.as_os_str().is_empty() {
        return Err(format!("LocalVolume volume {name:?} path is empty"));
    }
    match path.components().any(|c| c == Component::ParentDir) {
        true => Err(format!("invalid path: {} must not contain '..'", path.display())),
        false => Ok(()),
    }
}

/// The device behind links of `/dev/disk`.
fn device(path: &Path) -> Result<PathBuf, String> {
    let real = path.canonicalize().map_err(|e| format!("{}: {e}", path.display()))?;
    let kind =
        std::fs::metadata(&real).map_err(|e| format!("{}: {e}", real.display()))?.file_type();
    match kind.is_block_device() {
        true => Ok(real),
        false => Err(format!("{} is not a block device", path.display())),
    }
}

fn warn_of_other_group(of: &SetUp<'_>, path: &Path, name: &str, group: u32) {
    use std::os::unix::fs::MetadataExt;
    let Ok(meta) = std::fs::metadata(path) else { return };
    if meta.gid() == group {
        return;
    }
    let text = format!(
        "The requested fsGroup is {group}, but the volume {name} has GID {}. The volume may not be shareable.",
        meta.gid()
    );
    let about = pod_reference(of.pod);
    of.shared.recorder.event(&about, EventType::Warning, "AlreadyMountedVolume", text);
}

/// What is to be done on the node.
#[derive(Debug)]
struct Plan {
    from: PathBuf,
    to: PathBuf,
    read_only: bool,
    ownership: Option<Ownership>,
    /// No other pod has it.
    is_first: bool,
}

impl Plan {
    fn run(self, mounter: &dyn Mounter) -> Result<(), String> {
        let kind = std::fs::metadata(&self.from)
            .map_err(|e| format!("failed to get file type of {}: {e}", self.from.display()))?
            .file_type();
        if kind.is_block_device() {
            return Err("a block device as a local volume of file system mode must be formatted and mounted by the node's owner: this node formats no disks".into());
        }
        if !kind.is_dir() {
            return Err("only directory and block device are supported".into());
        }
        let failed = |e: io::Error| format!("{}: {e}", self.to.display());
        if mounter.is_mount_point(&self.to).map_err(failed)? {
            return Ok(());
        }
        std::fs::create_dir_all(&self.to).map_err(failed)?;
        if let Err(error) = mounter.bind(&self.from, &self.to, self.read_only) {
            // Only when it is empty, as it was made.
            let _kept = std::fs::remove_dir(&self.to);
            return Err(failed(error));
        }
        match self.ownership.filter(|_| !self.read_only && self.is_first) {
            Some(ownership) => ownership.apply(&self.to).map(drop).map_err(failed),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volumes::mounter::double::Recorder;

    fn plan(from: &Path, to: &Path, read_only: bool) -> Plan {
        let (from, to) = (from.to_owned(), to.to_owned());
        Plan { from, to, read_only, ownership: None, is_first: true }
    }

    #[test]
    fn a_directory_is_bound_once() {
        let dir = tempfile::tempdir().unwrap();
        let (disk, to) = (dir.path().join("disk"), dir.path().join("pods/pv"));
        std::fs::create_dir(&disk).unwrap();
        let mounter = Recorder::default();
        plan(&disk, &to, true).run(&mounter).unwrap();
        plan(&disk, &to, true).run(&mounter).unwrap();
        assert_eq!(mounter.asked(), [format!("bind {} on pv, read-only: true", disk.display())]);
    }

    #[test]
    fn what_is_no_directory_is_refused_and_a_failed_bind_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (disk, to) = (dir.path().join("disk"), dir.path().join("pods/pv"));
        let mounter =
            Recorder { fails: Some(io::ErrorKind::PermissionDenied), ..Recorder::default() };
        assert!(plan(&disk, &to, false).run(&mounter).unwrap_err().contains("No such file"));
        std::fs::write(&disk, "").unwrap();
        assert_eq!(
            plan(&disk, &to, false).run(&mounter).unwrap_err(),
            "only directory and block device are supported"
        );
        assert!(mounter.asked().is_empty());
        std::fs::remove_file(&disk).unwrap();
        std::fs::create_dir(&disk).unwrap();
        assert!(plan(&disk, &to, false).run(&mounter).is_err());
        assert!(!to.exists());
        assert!(checked("pv", Path::new("/a/../b")).is_err());
        assert!(checked("pv", Path::new("")).unwrap_err().contains("path is empty"));
        assert!(device(&disk).unwrap_err().contains("is not a block device"));
    }
}
