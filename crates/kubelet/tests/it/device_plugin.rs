//! A device plugin for tests, on a real socket. It counts what it is asked.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt as _;
use grpc::server::{Methods, Status};
use grpc::{CallError, Channel, Code, Settings, Tasks};
use tokio::sync::watch;

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Nothing {}

#[derive(Clone, PartialEq, prost::Message)]
struct Options {
    #[prost(bool, tag = "1")]
    pre_start: bool,
    #[prost(bool, tag = "2")]
    preferred: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Register {
    #[prost(string, tag = "1")]
    version: String,
    #[prost(string, tag = "2")]
    endpoint: String,
    #[prost(string, tag = "3")]
    resource: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Numbers {
    #[prost(message, repeated, tag = "1")]
    nodes: Vec<Number>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Number {
    #[prost(int64, tag = "1")]
    id: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Device {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    health: String,
    #[prost(message, optional, tag = "3")]
    topology: Option<Numbers>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct List {
    #[prost(message, repeated, tag = "1")]
    devices: Vec<Device>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Ids {
    #[prost(string, repeated, tag = "1")]
    ids: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Asked {
    #[prost(message, repeated, tag = "1")]
    containers: Vec<Ids>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Answers {
    #[prost(message, repeated, tag = "1")]
    containers: Vec<Answer>,
}

/// What a container gets.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Answer {
    #[prost(btree_map = "string, string", tag = "1")]
    pub(crate) envs: BTreeMap<String, String>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) mounts: Vec<Mount>,
    #[prost(message, repeated, tag = "3")]
    pub(crate) devices: Vec<Spec>,
    #[prost(btree_map = "string, string", tag = "4")]
    pub(crate) annotations: BTreeMap<String, String>,
    #[prost(message, repeated, tag = "5")]
    pub(crate) cdi: Vec<Name>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Name {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Mount {
    #[prost(string, tag = "1")]
    pub(crate) container: String,
    #[prost(string, tag = "2")]
    pub(crate) host: String,
    #[prost(bool, tag = "3")]
    pub(crate) read_only: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Spec {
    #[prost(string, tag = "1")]
    pub(crate) container: String,
    #[prost(string, tag = "2")]
    pub(crate) host: String,
    #[prost(string, tag = "3")]
    pub(crate) permissions: String,
}

pub(crate) fn device(id: &str, healthy: bool, node: Option<i64>) -> Device {
    let health = if healthy { "Healthy" } else { "Unhealthy" };
    let topology = node.map(|id| Numbers { nodes: vec![Number { id }] });
    Device { id: id.into(), health: health.into(), topology }
}

pub(crate) struct Plugin {
    pub(crate) calls: Arc<Mutex<Vec<String>>>,
    devices: watch::Sender<Vec<Device>>,
    folder: PathBuf,
    name: String,
    tasks: Option<Tasks>,
}

/// What the plugin prefers and answers; the devices that are asked for are added as `DEVICES`.
#[derive(Default)]
pub(crate) struct Ways {
    pub(crate) prefers: Option<Vec<String>>,
    pub(crate) pre_start: bool,
    pub(crate) answer: Answer,
    pub(crate) refuses: bool,
}

impl Plugin {
    /// Serves on a socket of this name in the folder of the kubelet's own.
    /// The kubelet, which takes old sockets away when it starts, must be there.
    pub(crate) async fn serve(root: &Path, name: &str, devices: Vec<Device>, ways: Ways) -> Plugin {
        let folder = root.join("device-plugins");
        let kubelet = folder.join("kubelet.sock");
        let there = async {
            while tokio::net::UnixStream::connect(&kubelet).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), there).await.unwrap();
        let (calls, devices) = (Arc::<Mutex<Vec<String>>>::default(), watch::Sender::new(devices));
        let tasks = Tasks::default();
        let methods = methods(&calls, &devices, ways);
        let listener = grpc::server::bind(&folder.join(name)).unwrap();
        tasks.spawn("plugin", grpc::server::listen(listener, Arc::new(methods)));
        Plugin { calls, devices, folder, name: name.into(), tasks: Some(tasks) }
    }

    /// Registers at the kubelet's socket, once that is there.
    pub(crate) async fn register(&self, version: &str, resource: &str) -> Result<(), CallError> {
        let settings = Settings {
            peer: "the kubelet",
            origin: "http://localhost".into(),
            headers: &[],
            deadline: Duration::from_secs(20),
            message_max: 1 << 16,
            decorate: None,
        };
        let socket = csi::Socket(self.folder.join("kubelet.sock"));
        let channel = Channel::new(socket, settings);
        let request = Register {
            version: version.into(),
            endpoint: self.name.clone(),
            resource: resource.into(),
        };
        loop {
            match channel.call::<_, Nothing>("/v1beta1.Registration/Register", &request).await {
                Err(CallError::Unreachable(_)) => tokio::task::yield_now().await,
                done => return done.map(drop),
            }
        }
    }

    pub(crate) fn list(&self, devices: Vec<Device>) {
        self.devices.send_replace(devices);
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }

    pub(crate) async fn stop(mut self) {
        self.tasks.take().unwrap().shutdown().await;
    }
}

fn methods(
    calls: &Arc<Mutex<Vec<String>>>,
    devices: &watch::Sender<Vec<Device>>,
    ways: Ways,
) -> Methods {
    let options = Options { pre_start: ways.pre_start, preferred: ways.prefers.is_some() };
    let (devices, noted) = (devices.clone(), calls.clone());
    let note = move |what: &str, ids: &[String]| {
        noted.lock().unwrap().push(format!("{what} {}", ids.join(" ")));
    };
    let (allocated, preferred, started) = (note.clone(), note.clone(), note);
    let (prefers, answer, refuses) = (ways.prefers.unwrap_or_default(), ways.answer, ways.refuses);
    Methods::new(1 << 20)
        .unary("/v1beta1.DevicePlugin/GetDevicePluginOptions", move |_: Nothing| {
            let options = options.clone();
            async move { Ok(options) }
        })
        .streaming("/v1beta1.DevicePlugin/ListAndWatch", move |_: Nothing| {
            let lists = values_of(devices.subscribe());
            async move { Ok(lists.map(|devices| Ok(List { devices }))) }
        })
        .unary("/v1beta1.DevicePlugin/GetPreferredAllocation", move |asked: Asked| {
            preferred("preferred", &asked.containers[0].ids);
            let containers = vec![Ids { ids: prefers.clone() }];
            async move { Ok(Asked { containers }) }
        })
        .unary("/v1beta1.DevicePlugin/Allocate", move |asked: Asked| {
            let ids = asked.containers[0].ids.clone();
            allocated("allocate", &ids);
            let mut answer = answer.clone();
            answer.envs.insert("DEVICES".into(), ids.join(","));
            async move {
                match refuses {
                    true => Err(Status::new(Code::Internal, "no power")),
                    false => Ok(Answers { containers: vec![answer] }),
                }
            }
        })
        .unary("/v1beta1.DevicePlugin/PreStartContainer", move |asked: Ids| {
            started("start", &asked.ids);
            async move { Ok(Nothing {}) }
        })
}

/// The present value, then every other one.
pub(crate) fn values_of<T: Clone + Send + Sync + 'static>(
    receiver: watch::Receiver<T>,
) -> impl futures::Stream<Item = T> + Send {
    futures::stream::unfold((receiver, true), |(mut receiver, first)| async move {
        if !first {
            receiver.changed().await.ok()?;
        }
        let value = receiver.borrow_and_update().clone();
        Some((value, (receiver, false)))
    })
}
