//! Publishing: a staged volume is shown where a pod looks for it.

use std::io;
use std::path::Path;

use csi::v1::*;
use grpc::Code;
use grpc::server::Status;

use crate::capability;
use crate::errors::{internal, invalid};
use crate::inner::Inner;
use crate::kernel::{loops, mounts};
use crate::state::Volume as Record;

fn unmet(why: String) -> Status {
    Status::new(Code::FailedPrecondition, why)
}

impl Inner {
    pub(super) fn publish(
        &self,
        q: &NodePublishVolumeRequest,
        capability: &VolumeCapability,
    ) -> Result<(), Status> {
        self.volume(&q.volume_id)?;
        if q.staging_target_path.is_empty() {
            return Err(unmet("staging target path is missing in the request".into()));
        }
        let uses = self.uses(&q.volume_id)?;
        if capability::mode(capability) == Mode::SingleNodeSingleWriter
            && let Some(place) = uses.elsewhere(&[&q.staging_target_path, &q.target_path])
        {
            let place = place.display();
            let why = format!("volume {:?} has one writer, at {place}", q.volume_id);
            return Err(unmet(why));
        }
        let target = Path::new(&q.target_path);
        if let Some(there) = mounts::at(target).map_err(internal("mounts"))? {
            let ours = uses.mounts.contains(&there) || uses.nodes.contains(&there);
            let as_asked = there.read_only == (q.readonly || has_ro(capability));
            return match ours && as_asked {
                true => Ok(()),
                false => {
                    let why = format!("{} is mounted otherwise", target.display());
                    Err(Status::new(Code::AlreadyExists, why))
                }
            };
        }
        match &capability.access_type {
            Some(AccessType::Mount(mount)) => self.publish_mount(q, &mount.mount_flags),
            _ => self.publish_block(q),
        }
    }

    fn publish_mount(&self, q: &NodePublishVolumeRequest, flags: &[String]) -> Result<(), Status> {
        let staged = Path::new(&q.staging_target_path);
        let there = mounts::at(staged).map_err(internal("mounts"))?;
        let uses = self.uses(&q.volume_id)?;
        if !there.is_some_and(|there| uses.mounts.contains(&there)) {
            return Err(unmet(format!(
                "volume {:?} is not staged at {}",
                q.volume_id,
                staged.display()
            )));
        }
        let target = Path::new(&q.target_path);
        let made = std::fs::create_dir_all(target);
        let shown = made.and_then(|()| mounts::bind(staged, target, flags, q.readonly));
        shown.map_err(internal("the volume cannot be shown at its target"))
    }

    fn publish_block(&self, q: &NodePublishVolumeRequest) -> Result<(), Status> {
        if q.readonly {
            // A read-only mount of a device's node does not keep anybody from writing to the device.
            return Err(invalid("block volumes cannot be published read-only"));
        }
        let target = Path::new(&q.target_path);
        let shown = || -> io::Result<()> {
            // Again: a restart in between has given it back.
            let (device, _) = loops::attach(&self.state.disk::<Record>(&q.volume_id), false)?;
            if let Some(parent) = target.parent() {
                std::fs::create_dir_all(parent)?;
            }
            std::fs::OpenOptions::new().create(true).append(true).open(target)?;
            mounts::bind(&device.device, target, &[], false)
        };
        shown().map_err(internal("the device cannot be shown at its target"))
    }

    pub(super) fn unpublish(&self, target: &str) -> Result<(), Status> {
        let target = Path::new(target);
        let gone = mounts::unmount(target).and_then(|()| match std::fs::symlink_metadata(target) {
            // Only when it is empty: what is in it now was not the volume's.
            Ok(there) if there.is_dir() => std::fs::remove_dir(target),
            Ok(_) => std::fs::remove_file(target),
            Err(error) => Err(error),
        });
        match gone {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            gone => gone.map_err(internal("the target cannot be removed")),
        }
    }
}

fn has_ro(capability: &VolumeCapability) -> bool {
    match &capability.access_type {
        Some(AccessType::Mount(mount)) => mount.mount_flags.iter().any(|flag| flag == "ro"),
        _ => false,
    }
}
