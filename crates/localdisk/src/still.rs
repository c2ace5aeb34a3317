//! Volumes that hold still while they are copied: the file system is frozen. Where it is mounted is kept on
//! disk meanwhile, so that a driver that was killed thaws it with its next start.

use std::fs::File;
use std::path::PathBuf;

use grpc::Code;
use grpc::server::Status;

use crate::disk;
use crate::errors::internal;
use crate::inner::Inner;
use crate::kernel;
use crate::state::{State, sync_directory, write};

/// Frozen file systems; thawed when this is dropped.
#[derive(Debug, Default)]
pub(crate) struct Still(Vec<Frozen>);

#[derive(Debug)]
struct Frozen {
    mounted: File,
    marker: PathBuf,
}

impl Drop for Frozen {
    fn drop(&mut self) {
        thaw(&self.mounted, &self.marker);
    }
}

fn thaw(mounted: &File, marker: &std::path::Path) {
    match kernel::thaw(mounted) {
        // EINVAL: it is not frozen.
        Err(error) if error.raw_os_error() != Some(libc::EINVAL) => {
            tracing::error!(marker = %marker.display(), %error, "a file system stays frozen");
        }
        _ => {
            if let Err(error) = std::fs::remove_file(marker) {
                tracing::warn!(marker = %marker.display(), %error, "a marker was not removed");
            }
        }
    }
}

impl Inner {
    /// Makes volumes hold still. A volume that nobody uses does so by itself.
    pub(crate) fn still(&self, ids: &[String]) -> Result<Still, Status> {
        let mut still = Still::default();
        for id in ids {
            let uses = self.uses(id)?;
            if !uses.nodes.is_empty() {
                self.still_block(id, uses.device.as_ref())?;
            }
            if let Some(mount) = uses.mounts.iter().find(|mount| !mount.file_system_read_only) {
                still.0.push(self.freeze(id, mount.point.clone())?);
            }
        }
        Ok(still)
    }

    /// A block device cannot be frozen: a copy is of one moment only if it takes none.
    fn still_block(&self, id: &str, device: Option<&kernel::loops::Loop>) -> Result<(), Status> {
        if !disk::shares_blocks(self.state.root()) {
            let why = format!(
                "volume {id:?} is in use as a block device, and the file system below {} cannot share blocks \
                 (reflink): it can be copied when no pod uses it",
                self.state.root().display()
            );
            return Err(Status::new(Code::FailedPrecondition, why));
        }
        let synced = device.map_or(Ok(()), |device| device.open()?.sync_all());
        synced.map_err(internal("the block device cannot be synced"))
    }

    fn freeze(&self, id: &str, point: PathBuf) -> Result<Frozen, Status> {
        let failed = "the file system cannot be frozen";
        let mounted = File::open(&point).map_err(internal(failed))?;
        let marker = self.state.frozen().join(id);
        write(&marker, &point).map_err(internal(failed))?;
        // From here on it is thawed, whatever happens.
        let frozen = Frozen { mounted, marker };
        kernel::freeze(&frozen.mounted).map_err(internal(failed))?;
        Ok(frozen)
    }
}

/// Thaws what a driver that was killed left frozen.
pub(crate) fn thaw_all(state: &State) {
    let thawed = std::fs::read_dir(state.frozen()).and_then(|markers| {
        for marker in markers {
            let marker = marker?.path();
            let text = std::fs::read(&marker)?;
            let point = serde_json::from_slice::<PathBuf>(&text);
            match point.map_err(std::io::Error::from).and_then(File::open) {
                Ok(mounted) => thaw(&mounted, &marker),
                // Not mounted any more, or the marker was never whole: nothing was frozen.
                Err(_) => std::fs::remove_file(&marker)?,
            }
        }
        sync_directory(&state.frozen())
    });
    if let Err(error) = thawed {
        tracing::warn!(%error, "frozen file systems cannot be looked at");
    }
}
