//! Making and deleting volumes.

use std::fs::File;

use csi::v1::*;
use grpc::Code;
use grpc::server::Status;

use super::{parameters, room};
use crate::capability;
use crate::disk;
use crate::errors::{internal, invalid};
use crate::inner::Inner;
use crate::state::{Allocation, Origin, Snapshot as SnapshotRecord, Volume as Record, id_of};

/// What a volume is made of.
struct Source {
    origin: Origin,
    size: u64,
    file_system: Option<String>,
}

impl Inner {
    pub(super) fn create_volume(&self, q: &CreateVolumeRequest) -> Result<Volume, Status> {
        let allocation = parameters::allocation(&q.parameters)?;
        let allocation = parameters::allocation(&q.mutable_parameters)?.or(allocation);
        self.check_topology(q.accessibility_requirements.as_ref())?;
        let id = id_of(&q.name);
        let found = self.state.get::<Record>(&id).map_err(internal("a record cannot be read"))?;
        if let Some(found) = found {
            return self.existing(q, &found);
        }
        let source = self.source(q.volume_content_source.as_ref())?;
        let size = room::size(q.capacity_range.as_ref(), source.size)?;
        let record = Record {
            id,
            name: q.name.clone(),
            size,
            origin: source.origin,
            allocation: allocation.unwrap_or_default(),
            file_system: source.file_system,
            formatting: false,
            shared: 0,
            published_read_only: None,
            block: q.volume_capabilities.iter().any(capability::is_block),
        };
        let record = self.make(record)?;
        tracing::info!(volume = record.id, size, origin = ?record.origin, "volume created");
        Ok(self.volume_answer(&record))
    }

    /// The answer to a request that was carried out before.
    fn existing(&self, q: &CreateVolumeRequest, found: &Record) -> Result<Volume, Status> {
        let origin = origin(q.volume_content_source.as_ref())?;
        let same = found.name == q.name && found.origin == origin;
        if same && room::fits(found.size, q.capacity_range.as_ref()) {
            return Ok(self.volume_answer(found));
        }
        let why = format!("volume {:?} exists with another size or source", found.id);
        Err(Status::new(Code::AlreadyExists, why))
    }

    fn check_topology(&self, of: Option<&TopologyRequirement>) -> Result<(), Status> {
        let Some(of) = of.filter(|of| !of.requisite.is_empty()) else { return Ok(()) };
        if of.requisite.iter().any(|topology| self.is_here(topology)) {
            return Ok(());
        }
        let why =
            format!("the volume would be on node {}, which is not asked for", self.config.node);
        Err(Status::new(Code::ResourceExhausted, why))
    }

    fn source(&self, of: Option<&VolumeContentSource>) -> Result<Source, Status> {
        let origin = origin(of)?;
        let (size, file_system) = match &origin {
            Origin::Nothing => (0, None),
            Origin::Snapshot(id) => {
                let snapshot = self.snapshot(id)?;
                (snapshot.size, snapshot.file_system)
            }
            Origin::Volume(id) => {
                let volume = self.volume(id)?;
                (volume.size, volume.file_system)
            }
        };
        Ok(Source { origin, size, file_system })
    }

    fn make(&self, mut record: Record) -> Result<Record, Status> {
        let unfinished = self.state.begin().map_err(internal("no volume can be made"))?;
        let path = unfinished.disk();
        self.with_room(record.size, || disk::make(&path, record.size, Allocation::Thin))?;
        let disk = disk::open(&path).map_err(internal("the new disk"))?;
        record.shared = self.fill(&disk, &record.origin)?;
        let resized = disk::resize(&disk, record.size, record.allocation);
        resized.map_err(internal("the disk's blocks cannot be taken"))?;
        let finished = self.state.finish(unfinished, &record.id, &record);
        finished.map_err(internal("the volume cannot be put in place"))?;
        Ok(record)
    }

    /// Copies what the volume is made of; how many bytes the two share.
    fn fill(&self, disk: &File, origin: &Origin) -> Result<u64, Status> {
        let copy = |path: &std::path::Path| {
            disk::open(path).and_then(|from| disk::copy(&from, disk)).map_err(internal("copying"))
        };
        match origin {
            Origin::Nothing => Ok(0),
            Origin::Snapshot(id) => copy(&self.state.disk::<SnapshotRecord>(id)),
            Origin::Volume(id) => {
                let _still = self.still(std::slice::from_ref(id))?;
                copy(&self.state.disk::<Record>(id))
            }
        }
    }

    pub(super) fn delete_volume(&self, id: &str) -> Result<(), Status> {
        if !crate::state::is_id(id) || !self.state.directory::<Record>(id).exists() {
            return Ok(());
        }
        // One whose record cannot be read is deleted, too.
        if self.volume(id).is_ok_and(|record| record.published_read_only.is_some()) {
            let why = format!("volume {id:?} is published to node {}", self.config.node);
            return Err(Status::new(Code::FailedPrecondition, why));
        }
        if let Some(user) = self.user(id)? {
            let why = format!("volume {id:?} is in use at {}", user.display());
            return Err(Status::new(Code::FailedPrecondition, why));
        }
        self.state.delete::<Record>(id).map_err(internal("the volume cannot be deleted"))?;
        tracing::info!(volume = id, "volume deleted");
        Ok(())
    }

    pub(super) fn validate(
        &self,
        q: ValidateVolumeCapabilitiesRequest,
    ) -> Result<ValidateVolumeCapabilitiesResponse, Status> {
        self.volume(&q.volume_id)?;
        let wrong = q.volume_capabilities.iter().find_map(capability::unsupported);
        let wrong = wrong.or_else(|| {
            let all = [&q.parameters, &q.mutable_parameters];
            all.into_iter().find_map(|of| parameters::allocation(of).err()).map(|s| s.message)
        });
        if let Some(message) = wrong {
            return Ok(ValidateVolumeCapabilitiesResponse { confirmed: None, message });
        }
        let confirmed = ConfirmedCapabilities {
            volume_context: q.volume_context,
            volume_capabilities: q.volume_capabilities,
            parameters: q.parameters,
            mutable_parameters: q.mutable_parameters,
        };
        Ok(ValidateVolumeCapabilitiesResponse {
            confirmed: Some(confirmed),
            message: String::new(),
        })
    }
}

fn origin(of: Option<&VolumeContentSource>) -> Result<Origin, Status> {
    match of.map(|of| of.kind.as_ref()) {
        None => Ok(Origin::Nothing),
        Some(None) => Err(invalid("the volume content source has no type")),
        Some(Some(ContentSource::Snapshot(of))) => Ok(Origin::Snapshot(of.snapshot_id.clone())),
        Some(Some(ContentSource::Volume(of))) => Ok(Origin::Volume(of.volume_id.clone())),
    }
}
