//! Expansion on the node: the device, and the file system while it is mounted.

use std::fs::File;
use std::io;
use std::path::Path;

use csi::v1::NodeExpandVolumeRequest;
use grpc::Code;
use grpc::server::Status;

use crate::errors::{internal, not_found};
use crate::ext4;
use crate::inner::Inner;
use crate::kernel::{self, loops::Loop};
use crate::state::Volume;

/// Makes a mounted file system as long as its device. The kernel asks for `CAP_SYS_RESOURCE`.
fn grow(device: &Loop, disk: &Path, mounted: &Path, size: u64) -> io::Result<()> {
    if kernel::device_size(&device.open()?)? < size {
        device.refresh()?;
    }
    // It has grown when it was staged: the kernel would ask for the capability all the same.
    if ext4::growth(&File::open(disk)?, size)? == ext4::Growth::None {
        return Ok(());
    }
    match kernel::grow_ext4(&File::open(mounted)?, size / ext4::BLOCK) {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            let why = "this process lacks CAP_SYS_RESOURCE, without which the kernel expands no mounted file \
                       system; it is expanded when the volume is staged again";
            Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
        }
        grown => grown,
    }
}

/// What the specification calls "volume in use": it can be expanded, but not now.
fn failed(error: io::Error) -> Status {
    let what = "the volume cannot be expanded on the node";
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            Status::new(Code::FailedPrecondition, format!("{what}: {error}"))
        }
        _ => internal(what)(error),
    }
}

impl Inner {
    /// The size afterwards.
    pub(super) fn node_expand(&self, q: &NodeExpandVolumeRequest) -> Result<u64, Status> {
        let record = self.volume(&q.volume_id)?;
        let uses = self.uses(&q.volume_id)?;
        let Some(device) = &uses.device else {
            return Err(not_found("device of volume", &q.volume_id));
        };
        match uses.mounts.iter().find(|mount| !mount.file_system_read_only) {
            Some(mount) => {
                grow(device, &self.state.disk::<Volume>(&record.id), &mount.point, record.size)
                    .map_err(failed)?
            }
            // A block device, or a file system that takes no writes and grows when it is staged again.
            None => device.refresh().map_err(failed)?,
        }
        Ok(record.size)
    }
}
