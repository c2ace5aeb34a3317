//! Who uses a volume: asked of the kernel, which knows it also after a restart of the driver.

use std::io;
use std::path::PathBuf;

use grpc::server::Status;

use crate::errors::internal;
use crate::inner::Inner;
use crate::kernel::loops::{self, Loop};
use crate::kernel::mounts::{self, Mount};
use crate::state::Volume as Record;

/// Where a volume's device is in use.
#[derive(Debug, Default)]
pub(crate) struct Uses {
    pub(crate) device: Option<Loop>,
    /// Mounts of its file system.
    pub(crate) mounts: Vec<Mount>,
    /// Places where the device itself is shown (bind mounts of its node).
    pub(crate) nodes: Vec<Mount>,
}

impl Uses {
    pub(crate) fn of(device: Option<Loop>) -> io::Result<Uses> {
        let Some(device) = device else { return Ok(Uses::default()) };
        let number = device.number()?;
        let table = mounts::table()?;
        let mounts = table.iter().filter(|mount| mount.device == number).cloned().collect();
        // A bind mount of `/dev/loop3` shows `/loop3` of the file system that is mounted at `/dev`.
        let dev = table.iter().rfind(|mount| mount.point == *"/dev").map(|m| m.device.clone());
        let name = device.device.file_name().unwrap_or_default();
        let is_node =
            |m: &&Mount| Some(&m.device) == dev.as_ref() && m.root.file_name() == Some(name);
        let nodes = table.iter().filter(is_node).cloned().collect();
        Ok(Uses { device: Some(device), mounts, nodes })
    }

    fn places(&self) -> impl Iterator<Item = &Mount> {
        self.mounts.iter().chain(&self.nodes)
    }

    /// Places but these.
    pub(crate) fn elsewhere(&self, but: &[&str]) -> Option<PathBuf> {
        let known = |mount: &&Mount| !but.iter().any(|but| mount.point == **but);
        self.places().find(known).map(|mount| mount.point.clone())
    }
}

impl Inner {
    pub(crate) fn uses(&self, id: &str) -> Result<Uses, Status> {
        let disk = self.state.disk::<Record>(id);
        let device = match disk.exists() {
            true => loops::find(&disk).map_err(internal("loop devices"))?,
            false => None,
        };
        Uses::of(device).map_err(internal("mounts"))
    }

    /// A place where the volume is in use. One that nobody uses has no device afterwards.
    pub(crate) fn user(&self, id: &str) -> Result<Option<PathBuf>, Status> {
        let uses = self.uses(id)?;
        if let Some(place) = uses.elsewhere(&[]) {
            return Ok(Some(place));
        }
        if let Some(device) = &uses.device {
            device.detach().map_err(internal("the loop device cannot be given back"))?;
        }
        Ok(None)
    }

    /// Gives back loop devices of ours that nobody uses: of volumes whose unstaging was interrupted, and of
    /// disks that are deleted.
    pub(crate) fn detach_orphans(&self) {
        let found = std::fs::canonicalize(self.state.root()).and_then(|root| {
            let all = loops::all()?;
            Ok(all.into_iter().filter(move |device| device.file.starts_with(&root)))
        });
        match found {
            Err(error) => tracing::warn!(%error, "loop devices cannot be looked at"),
            Ok(found) => found.for_each(detach_unused),
        }
    }
}

fn detach_unused(device: Loop) {
    let unused = Uses::of(Some(device.clone())).map(|uses| uses.elsewhere(&[]).is_none());
    let done = unused.and_then(|unused| if unused { device.detach() } else { Ok(()) });
    if let Err(error) = done {
        let device = device.device.display();
        tracing::warn!(%device, %error, "an unused loop device was not given back");
    }
}
