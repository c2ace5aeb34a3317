//! Snapshots: copies of a volume's disk at one moment.

use csi::v1::*;
use grpc::Code;
use grpc::server::Status;

use crate::disk;
use crate::errors::{internal, not_found};
use crate::inner::Inner;
use crate::state::{
    Allocation, Snapshot as Record, Unfinished, Volume as VolumeRecord, id_of, now,
};

pub(super) fn answer(record: &Record) -> Snapshot {
    let (seconds, nanos) = record.created;
    Snapshot {
        size_bytes: record.size as i64,
        snapshot_id: record.id.clone(),
        source_volume_id: record.source.clone(),
        creation_time: Some(Timestamp { seconds, nanos }),
        ready_to_use: true,
        group_snapshot_id: record.group.clone(),
    }
}

impl Inner {
    pub(super) fn snapshot(&self, id: &str) -> Result<Record, Status> {
        let found = self.state.get(id).map_err(internal("a snapshot's record cannot be read"))?;
        found.ok_or_else(|| not_found("snapshot", id))
    }

    pub(super) fn create_snapshot(&self, name: &str, source: &str) -> Result<Snapshot, Status> {
        let id = id_of(name);
        match self.snapshot(&id) {
            Ok(found) if found.name == name && found.source == source => return Ok(answer(&found)),
            Ok(found) => {
                let why = format!("snapshot {id:?} exists, of volume {:?}", found.source);
                return Err(Status::new(Code::AlreadyExists, why));
            }
            Err(status) if status.code == Code::NotFound => {}
            Err(status) => return Err(status),
        }
        let volume = self.volume(source)?;
        let still = self.still(&[source.to_owned()])?;
        let made = self.copy_of(&volume, id, name)?;
        drop(still);
        self.finish_snapshot(made)
    }

    /// A copy of the volume as it is now, which is not in place yet.
    pub(super) fn copy_of(
        &self,
        volume: &VolumeRecord,
        id: String,
        name: &str,
    ) -> Result<(Unfinished, Record), Status> {
        let failed = "the volume cannot be copied";
        let from = disk::open(&self.state.disk::<VolumeRecord>(&volume.id));
        let from = from.map_err(internal(failed))?;
        let unfinished = self.state.begin().map_err(internal(failed))?;
        let path = unfinished.disk();
        let used = disk::allocated(&from).map_err(internal(failed))?;
        self.with_room(used, || disk::make(&path, volume.size, Allocation::Thin))?;
        let copied = disk::open(&path).and_then(|to| disk::copy(&from, &to));
        let record = Record {
            id,
            name: name.to_owned(),
            source: volume.id.clone(),
            size: volume.size,
            file_system: volume.file_system.clone(),
            block: volume.block,
            created: now(),
            shared: copied.map_err(internal(failed))?,
            group: String::new(),
        };
        Ok((unfinished, record))
    }

    pub(super) fn finish_snapshot(&self, made: (Unfinished, Record)) -> Result<Snapshot, Status> {
        let (unfinished, record) = made;
        let finished = self.state.finish(unfinished, &record.id, &record);
        finished.map_err(internal("the snapshot cannot be put in place"))?;
        tracing::info!(snapshot = record.id, volume = record.source, "snapshot created");
        Ok(answer(&record))
    }

    pub(super) fn delete_snapshot(&self, id: &str) -> Result<(), Status> {
        match self.snapshot(id) {
            Err(status) if status.code == Code::NotFound => return Ok(()),
            Ok(found) if !found.group.is_empty() && self.has_group(&found.group)? => {
                let why = format!("snapshot {id:?} is part of group snapshot {:?}", found.group);
                return Err(Status::new(Code::InvalidArgument, why));
            }
            // One whose record cannot be read is deleted, too.
            _ => {}
        }
        self.state.delete::<Record>(id).map_err(internal("the snapshot cannot be deleted"))?;
        tracing::info!(snapshot = id, "snapshot deleted");
        Ok(())
    }
}
