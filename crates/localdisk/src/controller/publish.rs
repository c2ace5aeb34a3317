//! Publishing to nodes: there is one node that a volume can be published to, and this keeps a volume that is
//! promised to it from being deleted. Kubernetes does not ask for it (`attachRequired: false`).

use csi::v1::*;
use grpc::Code;
use grpc::server::Status;

use crate::errors::{internal, not_found};
use crate::inner::Inner;
use crate::state::Volume as Record;

impl Inner {
    fn is_own_node(&self, node: &str) -> Result<(), Status> {
        match node == self.config.node {
            true => Ok(()),
            false => Err(not_found("node", node)),
        }
    }

    pub(super) fn controller_publish(
        &self,
        q: &ControllerPublishVolumeRequest,
    ) -> Result<(), Status> {
        let mut record = self.volume(&q.volume_id)?;
        self.is_own_node(&q.node_id)?;
        match record.published_read_only {
            Some(read_only) if read_only == q.readonly => return Ok(()),
            Some(_) => {
                let why = format!("volume {:?} is published otherwise", record.id);
                return Err(Status::new(Code::AlreadyExists, why));
            }
            None => {}
        }
        self.check_limit()?;
        record.published_read_only = Some(q.readonly);
        let kept = self.state.update(&record.id, &record);
        kept.map_err(internal("the volume cannot be published"))
    }

    fn check_limit(&self) -> Result<(), Status> {
        let Some(max) = usize::try_from(self.config.volumes_max).ok().filter(|max| *max != 0)
        else {
            return Ok(());
        };
        let all = self.state.all::<Record>().map_err(internal("volumes"))?;
        match all.iter().filter(|record| record.published_read_only.is_some()).count() < max {
            true => Ok(()),
            false => {
                let why = format!("node {} has {max} volumes, its limit", self.config.node);
                Err(Status::new(Code::ResourceExhausted, why))
            }
        }
    }

    pub(super) fn controller_unpublish(
        &self,
        q: &ControllerUnpublishVolumeRequest,
    ) -> Result<(), Status> {
        if !q.node_id.is_empty() {
            self.is_own_node(&q.node_id)?;
        }
        let mut record = match self.volume(&q.volume_id) {
            Err(status) if status.code == Code::NotFound => return Ok(()),
            record => record?,
        };
        if record.published_read_only.take().is_none() {
            return Ok(());
        }
        let kept = self.state.update(&record.id, &record);
        kept.map_err(internal("the volume cannot be unpublished"))
    }

    /// The nodes that a volume is published to.
    pub(super) fn published(&self, record: &Record) -> Vec<String> {
        record.published_read_only.iter().map(|_| self.config.node.clone()).collect()
    }
}
