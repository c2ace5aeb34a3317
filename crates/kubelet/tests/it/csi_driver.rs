//! A CSI driver for tests, on a real socket, that registers with the kubelet. It mounts nothing: a published
//! volume is a directory.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use csi::server::Node;
use csi::v1::*;
use grpc::server::{Methods, Status};
use grpc::{Code, Tasks};
use tokio::sync::watch;

#[derive(Clone, PartialEq, prost::Message)]
struct InfoRequest {}

#[derive(Clone, PartialEq, prost::Message)]
struct PluginInfo {
    #[prost(string, tag = "1")]
    kind: String,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(string, tag = "3")]
    endpoint: String,
    #[prost(string, repeated, tag = "4")]
    versions: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RegistrationStatus {
    #[prost(bool, tag = "1")]
    registered: bool,
    #[prost(string, tag = "2")]
    error: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Nothing {}

pub(crate) const NAME: &str = "it.example.com";

/// What the driver was asked to do.
#[derive(Default)]
pub(crate) struct Asked {
    pub(crate) calls: Vec<String>,
    pub(crate) stage: Option<NodeStageVolumeRequest>,
    pub(crate) publish: Option<NodePublishVolumeRequest>,
    /// The next publish is refused with it.
    pub(crate) refuse: Option<Status>,
}

pub(crate) struct Driver {
    pub(crate) asked: Mutex<Asked>,
    count: watch::Sender<usize>,
    dir: PathBuf,
    tasks: Mutex<Option<Tasks>>,
}

impl Driver {
    /// Its socket lies in `dir`; it registers below the kubelet's root.
    pub(crate) fn start(dir: &Path, root: &Path) -> Arc<Driver> {
        let driver = Arc::new(Driver {
            asked: Mutex::default(),
            count: watch::Sender::new(0),
            dir: dir.to_owned(),
            tasks: Mutex::new(None),
        });
        let socket = driver.dir.join("csi.sock");
        let info = PluginInfo {
            kind: "CSIPlugin".into(),
            name: NAME.into(),
            endpoint: socket.to_string_lossy().into_owned(),
            versions: vec!["1.0.0".into()],
        };
        let registration = Methods::new(1 << 16)
            .unary("/pluginregistration.Registration/GetInfo", move |_: InfoRequest| {
                let info = info.clone();
                async move { Ok(info) }
            })
            .unary(
                "/pluginregistration.Registration/NotifyRegistrationStatus",
                |_: RegistrationStatus| async { Ok(Nothing {}) },
            );
        let tasks = Tasks::default();
        let methods = csi::server::node(csi::server::methods(), &driver);
        let listener = grpc::server::bind(&socket).unwrap();
        tasks.spawn("driver", grpc::server::listen(listener, Arc::new(methods)));
        let listener = grpc::server::bind(&root.join("plugins_registry/it-reg.sock")).unwrap();
        tasks.spawn("registration", grpc::server::listen(listener, Arc::new(registration)));
        *driver.tasks.lock().unwrap() = Some(tasks);
        driver
    }

    /// Ends it, and takes its registration away.
    pub(crate) fn stop(&self, root: &Path) {
        drop(self.tasks.lock().unwrap().take());
        std::fs::remove_file(root.join("plugins_registry/it-reg.sock")).unwrap();
    }

    fn note(&self, call: String) {
        self.asked.lock().unwrap().calls.push(call);
        self.count.send_modify(|n| *n += 1);
    }

    /// Waits until this call was made so often.
    pub(crate) async fn until(&self, call: &str, times: usize) {
        let mut count = self.count.subscribe();
        let wait = async {
            loop {
                count.borrow_and_update();
                let calls = self.asked.lock().unwrap().calls.clone();
                if calls.iter().filter(|c| c.starts_with(call)).count() >= times {
                    return;
                }
                count.changed().await.unwrap();
            }
        };
        let limit = std::time::Duration::from_secs(30);
        let done = tokio::time::timeout(limit, wait).await;
        done.unwrap_or_else(|_| panic!("no {call}; {:?}", self.asked.lock().unwrap().calls));
    }
}

impl Node for Driver {
    async fn node_get_info(&self, _: NodeGetInfoRequest) -> Result<NodeGetInfoResponse, Status> {
        let segments = [("topology.it/node".to_owned(), "n1".to_owned())].into();
        Ok(NodeGetInfoResponse {
            node_id: "node-of-it".into(),
            max_volumes_per_node: 7,
            accessible_topology: Some(Topology { segments }),
        })
    }

    async fn node_get_capabilities(
        &self,
        _: NodeGetCapabilitiesRequest,
    ) -> Result<NodeGetCapabilitiesResponse, Status> {
        let kinds = [
            NodeRpcType::StageUnstageVolume,
            NodeRpcType::ExpandVolume,
            NodeRpcType::GetVolumeStats,
        ];
        let capabilities =
            kinds.map(|kind| NodeServiceCapability { rpc: Some(NodeRpc { kind: kind as i32 }) });
        Ok(NodeGetCapabilitiesResponse { capabilities: capabilities.into() })
    }

    async fn node_stage_volume(
        &self,
        request: NodeStageVolumeRequest,
    ) -> Result<NodeStageVolumeResponse, Status> {
        let call = format!("stage {}", request.volume_id);
        self.asked.lock().unwrap().stage = Some(request);
        self.note(call);
        Ok(NodeStageVolumeResponse {})
    }

    async fn node_unstage_volume(
        &self,
        request: NodeUnstageVolumeRequest,
    ) -> Result<NodeUnstageVolumeResponse, Status> {
        self.note(format!("unstage {}", request.volume_id));
        Ok(NodeUnstageVolumeResponse {})
    }

    async fn node_publish_volume(
        &self,
        request: NodePublishVolumeRequest,
    ) -> Result<NodePublishVolumeResponse, Status> {
        let refused = self.asked.lock().unwrap().refuse.take();
        if let Some(refused) = refused {
            return Err(refused);
        }
        std::fs::create_dir_all(&request.target_path)
            .map_err(|e| Status::new(Code::Internal, e.to_string()))?;
        let call = format!("publish {}", request.volume_id);
        self.asked.lock().unwrap().publish = Some(request);
        self.note(call);
        Ok(NodePublishVolumeResponse {})
    }

    async fn node_unpublish_volume(
        &self,
        request: NodeUnpublishVolumeRequest,
    ) -> Result<NodeUnpublishVolumeResponse, Status> {
        std::fs::remove_dir(&request.target_path)
            .map_err(|e| Status::new(Code::Internal, e.to_string()))?;
        self.note(format!("unpublish {}", request.volume_id));
        Ok(NodeUnpublishVolumeResponse {})
    }

    async fn node_expand_volume(
        &self,
        request: NodeExpandVolumeRequest,
    ) -> Result<NodeExpandVolumeResponse, Status> {
        let bytes = request.capacity_range.unwrap_or_default().required_bytes;
        self.note(format!("expand {} {bytes}", request.volume_id));
        Ok(NodeExpandVolumeResponse { capacity_bytes: bytes })
    }

    async fn node_get_volume_stats(
        &self,
        _: NodeGetVolumeStatsRequest,
    ) -> Result<NodeGetVolumeStatsResponse, Status> {
        let unit = UsageUnit::Bytes as i32;
        let usage = vec![VolumeUsage { available: 60, total: 100, used: 40, unit }];
        Ok(NodeGetVolumeStatsResponse { usage, volume_condition: None })
    }
}
