//! A driver with its client, and requests as a kubelet makes them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use csi::Client;
use csi::v1::*;
use grpc::{CallError, Tasks};
use localdisk::{Config, Driver, methods};

pub(crate) const MIB: u64 = 1 << 20;

pub(crate) struct Rig {
    pub(crate) client: Client,
    tasks: Option<Tasks>,
    directory: tempfile::TempDir,
}

impl Rig {
    pub(crate) fn new() -> Rig {
        let directory = tempfile::tempdir().unwrap();
        let client = Client::new(directory.path().join("csi.sock"));
        let mut rig = Rig { client, tasks: None, directory };
        rig.restart();
        rig
    }

    /// The driver ends as if it was killed, and another one takes its place.
    pub(crate) fn restart(&mut self) {
        self.tasks = None;
        let config =
            Config { root: self.root(), node: "n1".into(), volumes_max: 0, version: "it".into() };
        let listener = grpc::server::bind(&self.path("csi.sock")).unwrap();
        let driver = Driver::open(config).unwrap();
        let tasks = Tasks::default();
        tasks.spawn("driver", grpc::server::listen(listener, Arc::new(methods(&driver))));
        self.tasks = Some(tasks);
        self.client = Client::new(self.path("csi.sock"));
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.path("root")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    pub(crate) async fn create(&self, request: CreateVolumeRequest) -> Result<Volume, CallError> {
        Ok(self.client.create_volume(&request).await?.volume.unwrap())
    }

    pub(crate) async fn delete(&self, id: &str) -> Result<(), CallError> {
        let request = DeleteVolumeRequest { volume_id: id.into(), secrets: vec![] };
        self.client.delete_volume(&request).await.map(drop)
    }

    pub(crate) async fn stage(&self, id: &str, of: VolumeCapability) -> Result<(), CallError> {
        let request = NodeStageVolumeRequest {
            volume_id: id.into(),
            staging_target_path: self.text(&format!("stage-{id}")),
            volume_capability: Some(of),
            ..Default::default()
        };
        self.client.node_stage_volume(&request).await.map(drop)
    }

    pub(crate) async fn unstage(&self, id: &str) -> Result<(), CallError> {
        let staging_target_path = self.text(&format!("stage-{id}"));
        let request = NodeUnstageVolumeRequest { volume_id: id.into(), staging_target_path };
        self.client.node_unstage_volume(&request).await.map(drop)
    }

    pub(crate) fn publication(
        &self,
        id: &str,
        at: &str,
        of: VolumeCapability,
    ) -> NodePublishVolumeRequest {
        NodePublishVolumeRequest {
            volume_id: id.into(),
            staging_target_path: self.text(&format!("stage-{id}")),
            target_path: self.text(at),
            volume_capability: Some(of),
            ..Default::default()
        }
    }

    pub(crate) async fn publish(
        &self,
        id: &str,
        at: &str,
        of: VolumeCapability,
    ) -> Result<(), CallError> {
        let request = self.publication(id, at, of);
        self.client.node_publish_volume(&request).await.map(drop)
    }

    pub(crate) async fn unpublish(&self, id: &str, at: &str) -> Result<(), CallError> {
        let request =
            NodeUnpublishVolumeRequest { volume_id: id.into(), target_path: self.text(at) };
        self.client.node_unpublish_volume(&request).await.map(drop)
    }

    pub(crate) async fn snapshot(&self, of: &str, name: &str) -> Result<Snapshot, CallError> {
        let request = CreateSnapshotRequest {
            source_volume_id: of.into(),
            name: name.into(),
            ..Default::default()
        };
        Ok(self.client.create_snapshot(&request).await?.snapshot.unwrap())
    }

    /// Staged and published at `at`.
    pub(crate) async fn mount(&self, id: &str, at: &str) -> PathBuf {
        self.stage(id, mounted()).await.unwrap();
        self.publish(id, at, mounted()).await.unwrap();
        self.path(at)
    }

    pub(crate) async fn unmount(&self, id: &str, at: &str) {
        self.unpublish(id, at).await.unwrap();
        self.unstage(id).await.unwrap();
    }

    pub(crate) async fn expand(&self, id: &str, to: u64) -> Result<i64, CallError> {
        let range = CapacityRange { required_bytes: to as i64, limit_bytes: 0 };
        let request = ControllerExpandVolumeRequest {
            volume_id: id.into(),
            capacity_range: Some(range),
            ..Default::default()
        };
        Ok(self.client.controller_expand_volume(&request).await?.capacity_bytes)
    }

    pub(crate) async fn node_expand(&self, id: &str, at: &str) -> Result<i64, CallError> {
        let request = NodeExpandVolumeRequest {
            volume_id: id.into(),
            volume_path: self.text(at),
            ..Default::default()
        };
        Ok(self.client.node_expand_volume(&request).await?.capacity_bytes)
    }

    /// Bytes that the volume at a path has in all, by the driver's own figures.
    pub(crate) async fn total(&self, id: &str, at: &str) -> i64 {
        let request = NodeGetVolumeStatsRequest {
            volume_id: id.into(),
            volume_path: self.text(at),
            staging_target_path: String::new(),
        };
        let stats = self.client.node_get_volume_stats(&request).await.unwrap();
        assert!(!stats.volume_condition.unwrap().abnormal);
        stats.usage.iter().find(|u| u.unit == UsageUnit::Bytes as i32).unwrap().total
    }

    /// Loop devices of this driver.
    pub(crate) fn devices(&self) -> Vec<PathBuf> {
        let root = std::fs::canonicalize(self.root()).unwrap();
        let all = std::fs::read_dir("/sys/block").unwrap().map(|entry| entry.unwrap().path());
        all.filter(|block| {
            let file = std::fs::read_to_string(block.join("loop/backing_file"));
            file.is_ok_and(|file| PathBuf::from(file.trim_end()).starts_with(&root))
        })
        .map(|block| PathBuf::from("/dev").join(block.file_name().unwrap()))
        .collect()
    }
}

impl Drop for Rig {
    /// A test that failed leaves nothing on the machine.
    fn drop(&mut self) {
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let points = table.lines().filter_map(|line| line.split(' ').nth(4));
        let own: Vec<_> =
            points.filter(|p| std::path::Path::new(p).starts_with(self.directory.path())).collect();
        for point in own.iter().rev() {
            rustix::mount::unmount(*point, rustix::mount::UnmountFlags::DETACH).unwrap_or_default();
        }
        self.tasks = None;
        // Gives back loop devices that nobody uses.
        let config =
            Config { root: self.root(), node: "n1".into(), volumes_max: 0, version: "it".into() };
        drop(Driver::open(config));
    }
}

fn capability(access_type: AccessType, mode: Mode) -> VolumeCapability {
    let access_mode = Some(AccessMode { mode: mode as i32 });
    VolumeCapability { access_type: Some(access_type), access_mode }
}

pub(crate) fn mounted() -> VolumeCapability {
    capability(AccessType::Mount(MountVolume::default()), Mode::SingleNodeWriter)
}

pub(crate) fn one_writer() -> VolumeCapability {
    capability(AccessType::Mount(MountVolume::default()), Mode::SingleNodeSingleWriter)
}

pub(crate) fn block() -> VolumeCapability {
    capability(AccessType::Block(BlockVolume {}), Mode::SingleNodeWriter)
}

pub(crate) fn of_size(name: &str, bytes: u64) -> CreateVolumeRequest {
    CreateVolumeRequest {
        name: name.into(),
        capacity_range: Some(CapacityRange { required_bytes: bytes as i64, limit_bytes: 0 }),
        volume_capabilities: vec![mounted()],
        ..Default::default()
    }
}

pub(crate) fn from(source: ContentSource) -> Option<VolumeContentSource> {
    Some(VolumeContentSource { kind: Some(source) })
}

pub(crate) fn from_snapshot(id: &str) -> Option<VolumeContentSource> {
    from(ContentSource::Snapshot(SnapshotSource { snapshot_id: id.into() }))
}

pub(crate) fn from_volume(id: &str) -> Option<VolumeContentSource> {
    from(ContentSource::Volume(VolumeSource { volume_id: id.into() }))
}

pub(crate) fn map(of: &[(&str, &str)]) -> BTreeMap<String, String> {
    of.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

/// The code's name and the text of a call that was refused.
pub(crate) fn why<T: std::fmt::Debug>(of: Result<T, CallError>) -> (String, String) {
    let error = of.unwrap_err();
    (error.code_name(), error.to_string())
}

#[track_caller]
pub(crate) fn assert_refused<T: std::fmt::Debug>(of: Result<T, CallError>, code: &str, text: &str) {
    let (was, message) = why(of);
    assert!(was == code && message.contains(text), "{was}: {message}");
}
