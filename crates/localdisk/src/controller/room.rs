//! How much room the disk has for volumes: what is free, less what all volumes may still grow to.

use std::io;
use std::path::Path;

use csi::v1::*;
use grpc::Code;
use grpc::server::Status;

use super::parameters;
use crate::capability;
use crate::disk;
use crate::errors::{internal, invalid};
use crate::ext4;
use crate::identity::TOPOLOGY_KEY;
use crate::inner::Inner;
use crate::state::{DISK, Snapshot, Volume as VolumeRecord};

/// For claims that name no size.
const SIZE_DEFAULT: u64 = 1 << 30;

/// The size of a volume that a request asks for: whole blocks, and room for a file system.
pub(super) fn size(range: Option<&CapacityRange>, at_least: u64) -> Result<u64, Status> {
    let (required, limit) = range.map_or((0, 0), |r| (r.required_bytes, r.limit_bytes));
    let (Ok(required), Ok(limit)) = (u64::try_from(required), u64::try_from(limit)) else {
        return Err(invalid("a capacity is negative"));
    };
    if limit != 0 && limit < required {
        return Err(invalid("the capacity limit is below the required capacity"));
    }
    let wanted = match required {
        0 if at_least != 0 => at_least,
        0 if limit != 0 => limit.min(SIZE_DEFAULT),
        0 => SIZE_DEFAULT,
        required => required.max(at_least),
    };
    let size = wanted.max(ext4::SIZE_MIN).checked_next_multiple_of(ext4::BLOCK);
    let size = size.filter(|size| *size <= ext4::SIZE_MAX);
    let out_of_range = |why: String| Status::new(Code::OutOfRange, why);
    let size = size.ok_or_else(|| {
        out_of_range(format!("{wanted} bytes are more than a volume can have: {}", ext4::SIZE_MAX))
    })?;
    if limit != 0 && size > limit {
        return Err(out_of_range(format!(
            "the volume would have {size} bytes, and the limit is {limit}"
        )));
    }
    Ok(size)
}

/// Whether a volume of a size is what the request asks for.
pub(super) fn fits(size: u64, range: Option<&CapacityRange>) -> bool {
    let (required, limit) = range.map_or((0, 0), |r| (r.required_bytes, r.limit_bytes));
    let size = i64::try_from(size).unwrap_or(i64::MAX);
    size >= required && (limit == 0 || size <= limit)
}

/// What a disk may still take beyond what it has.
fn growth(path: &Path) -> io::Result<u64> {
    match std::fs::File::open(path) {
        // Deleted meanwhile, or not there yet.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
        Ok(file) => Ok(file.metadata()?.len().saturating_sub(disk::allocated(&file)?)),
    }
}

impl Inner {
    /// Bytes that new volumes may have in all.
    pub(super) fn available(&self) -> io::Result<u64> {
        let state = &self.state;
        let mut promised = 0_u64;
        for volume in state.all::<VolumeRecord>()? {
            promised += volume.shared + growth(&state.disk::<VolumeRecord>(&volume.id))?;
        }
        for snapshot in state.all::<Snapshot>()? {
            // A snapshot is never written to: only what it shares may have to be stored twice.
            promised += snapshot.shared;
        }
        for making in std::fs::read_dir(state.making())? {
            promised += growth(&making?.path().join(DISK))?;
        }
        Ok(disk::free(state.root())?.saturating_sub(promised))
    }

    /// Takes room with `take`, if there are so many bytes.
    pub(super) fn with_room(
        &self,
        bytes: u64,
        take: impl FnOnce() -> io::Result<()>,
    ) -> Result<(), Status> {
        let _room = self.room.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let available = self.available().map_err(internal("free room cannot be told"))?;
        if bytes > available {
            let root = self.state.root().display();
            let why = format!(
                "not enough room below {root}: {bytes} bytes are asked for, {available} are available"
            );
            return Err(Status::new(Code::ResourceExhausted, why));
        }
        take().map_err(internal("room cannot be taken"))
    }

    pub(super) fn is_here(&self, topology: &Topology) -> bool {
        let node = topology.segments.get(TOPOLOGY_KEY);
        node.is_none_or(|node| *node == self.config.node)
    }

    pub(super) fn capacity(&self, q: &GetCapacityRequest) -> Result<GetCapacityResponse, Status> {
        parameters::allocation(&q.parameters)?;
        let here = q.accessible_topology.as_ref().is_none_or(|topology| self.is_here(topology));
        let offered = q.volume_capabilities.iter().all(|c| capability::unsupported(c).is_none());
        let available = match here && offered {
            true => self.available().map_err(internal("free room cannot be told"))?,
            false => 0,
        };
        Ok(GetCapacityResponse {
            available_capacity: available as i64,
            maximum_volume_size: Some(available.min(ext4::SIZE_MAX) as i64),
            minimum_volume_size: Some(ext4::SIZE_MIN as i64),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(required: i64, limit: i64, at_least: u64) -> Result<u64, Code> {
        let range = CapacityRange { required_bytes: required, limit_bytes: limit };
        size(Some(&range), at_least).map_err(|status| status.code)
    }

    #[test]
    fn sizes_are_whole_blocks_between_the_limits() {
        assert_eq!(size(None, 0).map_err(|s| s.code), Ok(1 << 30));
        assert_eq!(of(0, 0, 5 << 30), Ok(5 << 30), "as large as its source");
        assert_eq!(of((1 << 30) + 1, 0, 0), Ok((1 << 30) + 4096));
        assert_eq!(of(1, 0, 0), Ok(ext4::SIZE_MIN));
        assert_eq!(of(0, 64 << 20, 0), Ok(64 << 20), "the limit alone");
        assert_eq!(of(1 << 30, 1 << 30, 2 << 30), Err(Code::OutOfRange), "its source is larger");
        assert_eq!(of(1, 4096, 0), Err(Code::OutOfRange), "no file system is that small");
        assert_eq!(of(i64::MAX, 0, 0), Err(Code::OutOfRange));
        assert_eq!(of(-1, 0, 0), Err(Code::InvalidArgument));
        assert_eq!(of(2 << 30, 1 << 30, 0), Err(Code::InvalidArgument));
    }
}
