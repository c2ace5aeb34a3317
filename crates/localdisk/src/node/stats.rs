//! What is used of a volume, and whether it is well.

use std::path::Path;

use csi::v1::*;
use grpc::server::Status;

use crate::errors::{internal, not_found};
use crate::inner::Inner;
use crate::kernel::mounts::{self, Mount};

impl Inner {
    pub(super) fn stats(&self, id: &str, path: &str) -> Result<NodeGetVolumeStatsResponse, Status> {
        let record = self.volume(id)?;
        let there = mounts::at(Path::new(path)).map_err(internal("mounts"))?;
        let uses = self.uses(id)?;
        let there = there.ok_or_else(|| not_found("volume path", path))?;
        let usage = if uses.mounts.contains(&there) {
            usage(path).map_err(internal("the file system does not tell its use"))?
        } else if uses.nodes.contains(&there) {
            vec![bytes(0, record.size as i64, 0)]
        } else {
            return Err(not_found("volume path", path));
        };
        let volume_condition = Some(self.mounted_condition(id, &there));
        Ok(NodeGetVolumeStatsResponse { usage, volume_condition })
    }

    fn mounted_condition(&self, id: &str, mount: &Mount) -> VolumeCondition {
        let condition = self.condition(id);
        if !condition.abnormal && mount.file_system_read_only && !mount.read_only {
            let message = "the file system has found an error and takes no more writes".into();
            return VolumeCondition { abnormal: true, message };
        }
        condition
    }
}

fn bytes(available: i64, total: i64, used: i64) -> VolumeUsage {
    VolumeUsage { available, total, used, unit: UsageUnit::Bytes as i32 }
}

fn usage(path: &str) -> std::io::Result<Vec<VolumeUsage>> {
    let about = rustix::fs::statvfs(path)?;
    let of = |blocks: u64| (blocks * about.f_frsize) as i64;
    let inodes = VolumeUsage {
        available: about.f_favail as i64,
        total: about.f_files as i64,
        used: about.f_files.saturating_sub(about.f_ffree) as i64,
        unit: UsageUnit::Inodes as i32,
    };
    let used = about.f_blocks.saturating_sub(about.f_bfree);
    Ok(vec![bytes(of(about.f_bavail), of(about.f_blocks), of(used)), inodes])
}
