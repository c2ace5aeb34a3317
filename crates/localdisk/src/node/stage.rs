//! Staging: a volume's file gets its loop device, and its file system is made and mounted.

use std::io;
use std::path::Path;

use csi::v1::*;
use grpc::Code;
use grpc::server::Status;

use crate::capability::{self, EXT4};
use crate::disk;
use crate::errors::internal;
use crate::ext4::{self, Growth};
use crate::inner::Inner;
use crate::kernel::{loops, mounts};
use crate::state::{Volume as Record, now};

/// Freed blocks go back to the node's disk.
const DISCARD: &str = "discard";

impl Inner {
    pub(super) fn stage(
        &self,
        id: &str,
        path: &str,
        capability: &VolumeCapability,
    ) -> Result<(), Status> {
        let mut record = self.volume(id)?;
        if capability::is_block(capability) {
            let attached = loops::attach(&self.state.disk::<Record>(id), false);
            attached.map_err(internal("no loop device for the volume"))?;
            return Ok(());
        }
        let path = Path::new(path);
        if self.is_staged(id, path)? {
            return Ok(());
        }
        self.format(&mut record)?;
        let flags = match &capability.access_type {
            Some(AccessType::Mount(mount)) => mount.mount_flags.clone(),
            _ => Vec::new(),
        };
        self.mount(&record, path, flags).map_err(internal("the volume cannot be mounted"))
    }

    /// Whether the volume is mounted there. Another one is an error.
    fn is_staged(&self, id: &str, path: &Path) -> Result<bool, Status> {
        let Some(there) = mounts::at(path).map_err(internal("mounts"))? else { return Ok(false) };
        match self.uses(id)?.mounts.contains(&there) {
            true => Ok(true),
            false => {
                let why = format!("something else is mounted at {}", path.display());
                Err(Status::new(Code::Internal, why))
            }
        }
    }

    /// Makes the file system of a volume that has none. Data that is no file system of ours is left alone.
    fn format(&self, record: &mut Record) -> Result<(), Status> {
        if record.file_system.is_some() {
            return Ok(());
        }
        let failed = "the file system cannot be made";
        let file = disk::open(&self.state.disk::<Record>(&record.id)).map_err(internal(failed))?;
        if !record.formatting && disk::has_data(&file).map_err(internal(failed))? {
            let why = format!("volume {:?} has data that is no file system", record.id);
            return Err(Status::new(Code::FailedPrecondition, why));
        }
        // A superblock is there only when all the rest is: then a former try just did not say so.
        if !record.formatting || !ext4::is_there(&file).map_err(internal(failed))? {
            record.formatting = true;
            self.state.update(&record.id, record).map_err(internal(failed))?;
            let blank = disk::erase(&file, record.allocation);
            blank.and_then(|()| make_ext4(&file, record.size)).map_err(internal(failed))?;
        }
        record.formatting = false;
        record.file_system = Some(EXT4.to_owned());
        self.state.update(&record.id, record).map_err(internal(failed))
    }

    /// A volume that was expanded, or made larger than its source, grows before it is mounted.
    fn mount(&self, record: &Record, path: &Path, mut flags: Vec<String>) -> io::Result<()> {
        std::fs::create_dir_all(path)?;
        let disk = self.state.disk::<Record>(&record.id);
        if loops::find(&disk)?.is_none() {
            let file = disk::open(&disk)?;
            if ext4::growth(&file, record.size)? == Growth::AfterRecovery {
                // The kernel replays the journal.
                mount_device(&disk, path, &[])?;
                mounts::unmount(path)?;
                loops::wait_until_gone(&disk)?;
            }
            ext4::grow(&file, record.size)?;
        }
        if record.allocation == crate::state::Allocation::Thin {
            flags.push(DISCARD.to_owned());
        }
        mount_device(&disk, path, &flags)
    }

    pub(super) fn unstage(&self, id: &str, path: &str) -> Result<(), Status> {
        mounts::unmount(Path::new(path)).map_err(internal("the volume cannot be unmounted"))?;
        let uses = self.uses(id)?;
        if let (Some(device), None) = (&uses.device, uses.elsewhere(&[])) {
            device.detach().map_err(internal("the loop device cannot be given back"))?;
        }
        Ok(())
    }
}

fn mount_device(disk: &Path, path: &Path, flags: &[String]) -> io::Result<()> {
    // Held until it is mounted: the device goes away with its last user.
    let (device, _held) = loops::attach(disk, true)?;
    mounts::mount(&device.device, path, EXT4, flags)
}

fn make_ext4(file: &std::fs::File, size: u64) -> io::Result<()> {
    let identity = ext4::Identity {
        uuid: uuid::Uuid::new_v4().into_bytes(),
        hash_seed: uuid::Uuid::new_v4().into_bytes(),
        now: now().0 as u32,
    };
    ext4::make(file, size, &identity)
}
