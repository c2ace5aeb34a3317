//! Snapshots of several volumes at one moment: all are frozen before the first is copied.

use std::collections::BTreeSet;

use csi::v1::*;
use grpc::Code;
use grpc::server::Status;

use super::snapshots;
use crate::errors::{internal, invalid, not_found};
use crate::inner::Inner;
use crate::state::{Group as Record, Snapshot as SnapshotRecord, id_of, now};

/// A group freezes its volumes together: not too many.
const SOURCES_MAX: usize = 64;

pub(super) fn claim(id: &str) -> String {
    format!("group snapshot {id}")
}

/// The volumes of a request, each once.
pub(super) fn sources(of: &[String]) -> Result<Vec<String>, Status> {
    let all: BTreeSet<&String> = of.iter().collect();
    match all.len() {
        0 => Err(invalid("source volume ids are missing in the request")),
        1..=SOURCES_MAX => Ok(all.into_iter().cloned().collect()),
        many => {
            Err(invalid(format!("{many} volumes are more than a group can have: {SOURCES_MAX}")))
        }
    }
}

impl Inner {
    fn group(&self, id: &str) -> Result<Option<Record>, Status> {
        self.state.get(id).map_err(internal("a group's record cannot be read"))
    }

    pub(super) fn has_group(&self, id: &str) -> Result<bool, Status> {
        Ok(self.group(id)?.is_some())
    }

    pub(super) fn create_group(
        &self,
        name: &str,
        sources: &[String],
    ) -> Result<VolumeGroupSnapshot, Status> {
        let id = id_of(name);
        if let Some(found) = self.group(&id)? {
            return match found.name == name && found.sources == sources {
                true => self.group_answer(&found),
                false => {
                    let why = format!("group snapshot {id:?} exists, of other volumes");
                    Err(Status::new(Code::AlreadyExists, why))
                }
            };
        }
        let record = Record {
            snapshots: self.snapshot_all(&id, name, sources)?,
            created: now(),
            id,
            name: name.to_owned(),
            sources: sources.to_vec(),
        };
        let failed = "the group cannot be put in place";
        let unfinished = self.state.begin().map_err(internal(failed))?;
        self.state.finish(unfinished, &record.id, &record).map_err(internal(failed))?;
        self.group_answer(&record)
    }

    /// Ids of the snapshots that were made.
    fn snapshot_all(&self, group: &str, name: &str, of: &[String]) -> Result<Vec<String>, Status> {
        let volumes: Vec<_> = of.iter().map(|id| self.volume(id)).collect::<Result<_, _>>()?;
        let still = self.still(of)?;
        let mut made = Vec::new();
        for volume in &volumes {
            let id = id_of(&format!("{name}/{}", volume.id));
            // Left by a try that did not come to its end: of another moment.
            self.state.delete::<SnapshotRecord>(&id).map_err(internal("an old snapshot"))?;
            let (unfinished, mut record) = self.copy_of(volume, id, name)?;
            record.group = group.to_owned();
            made.push((unfinished, record));
        }
        drop(still);
        let made = made.into_iter().map(|made| self.finish_snapshot(made).map(|s| s.snapshot_id));
        made.collect()
    }

    fn group_answer(&self, record: &Record) -> Result<VolumeGroupSnapshot, Status> {
        let all = record.snapshots.iter().map(|id| self.snapshot(id));
        let all: Vec<SnapshotRecord> = all.collect::<Result<_, _>>()?;
        let (seconds, nanos) = record.created;
        Ok(VolumeGroupSnapshot {
            group_snapshot_id: record.id.clone(),
            snapshots: all.iter().map(snapshots::answer).collect(),
            creation_time: Some(Timestamp { seconds, nanos }),
            ready_to_use: true,
        })
    }

    /// Refuses a list of snapshots that is not the group's.
    fn check_members(record: &Record, snapshots: &[String]) -> Result<(), Status> {
        let (given, known): (BTreeSet<_>, BTreeSet<_>) =
            (snapshots.iter().collect(), record.snapshots.iter().collect());
        match given.is_empty() || given == known {
            true => Ok(()),
            false => {
                let why =
                    format!("group snapshot {:?} has other snapshots than those given", record.id);
                Err(invalid(why))
            }
        }
    }

    pub(super) fn get_group(
        &self,
        id: &str,
        snapshots: &[String],
    ) -> Result<VolumeGroupSnapshot, Status> {
        let record = self.group(id)?.ok_or_else(|| not_found("group snapshot", id))?;
        Inner::check_members(&record, snapshots)?;
        self.group_answer(&record)
    }

    pub(super) fn delete_group(&self, id: &str, snapshots: &[String]) -> Result<(), Status> {
        let Some(record) = self.group(id)? else { return Ok(()) };
        Inner::check_members(&record, snapshots)?;
        for snapshot in &record.snapshots {
            let deleted = self.state.delete::<SnapshotRecord>(snapshot);
            deleted.map_err(internal("a snapshot of the group cannot be deleted"))?;
        }
        self.state.delete::<Record>(id).map_err(internal("the group cannot be deleted"))
    }
}
