//! Changing volumes: their size, their attributes, and what is told of them.

use std::collections::BTreeMap;

use csi::v1::*;
use grpc::server::Status;

use super::{parameters, room};
use crate::disk;
use crate::errors::internal;
use crate::inner::Inner;
use crate::state::{Allocation, Volume as Record};

impl Inner {
    /// The size afterwards. Volumes never shrink.
    pub(super) fn expand(&self, id: &str, range: &CapacityRange) -> Result<u64, Status> {
        let mut record = self.volume(id)?;
        let size = room::size(Some(range), record.size)?;
        if size <= record.size {
            return Ok(record.size);
        }
        let failed = "the volume cannot be made larger";
        let file = disk::open(&self.state.disk::<Record>(id)).map_err(internal(failed))?;
        let more = size - record.size;
        self.with_room(more, || disk::resize(&file, size, Allocation::Thin))?;
        disk::resize(&file, size, record.allocation).map_err(internal(failed))?;
        record.size = size;
        self.state.update(id, &record).map_err(internal(failed))?;
        tracing::info!(volume = id, size, "volume expanded");
        Ok(size)
    }

    /// `allocation` is all that can change. A volume that was thick keeps its blocks.
    pub(super) fn modify(&self, id: &str, to: &BTreeMap<String, String>) -> Result<(), Status> {
        let mut record = self.volume(id)?;
        let Some(allocation) = parameters::allocation(to)? else { return Ok(()) };
        let failed = "the volume cannot be modified";
        let file = disk::open(&self.state.disk::<Record>(id)).map_err(internal(failed))?;
        disk::resize(&file, record.size, allocation).map_err(internal(failed))?;
        record.allocation = allocation;
        self.state.update(id, &record).map_err(internal(failed))
    }

    pub(super) fn get_volume(&self, id: &str) -> Result<ControllerGetVolumeResponse, Status> {
        let record = self.volume(id)?;
        let status = GotVolumeStatus {
            published_node_ids: self.published(&record),
            volume_condition: Some(self.condition(id)),
        };
        let volume = Some(self.volume_answer(&record));
        Ok(ControllerGetVolumeResponse { volume, status: Some(status) })
    }

    /// Whether the volume's disk is as it must be.
    pub(crate) fn condition(&self, id: &str) -> VolumeCondition {
        let wrong = match self.volume(id) {
            Err(status) => Some(status.message),
            Ok(record) => match std::fs::metadata(self.state.disk::<Record>(id)) {
                Err(error) => Some(format!("the volume's disk is lost: {error}")),
                Ok(disk) if disk.len() < record.size => {
                    Some(format!("the volume's disk has {} bytes only", disk.len()))
                }
                Ok(_) => None,
            },
        };
        let message = wrong.clone().unwrap_or_else(|| "the volume is healthy".into());
        VolumeCondition { abnormal: wrong.is_some(), message }
    }
}
