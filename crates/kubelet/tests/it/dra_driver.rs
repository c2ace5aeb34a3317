//! A DRA driver for tests, on real sockets, that registers with the kubelet.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use futures::StreamExt as _;
use grpc::Tasks;
use grpc::server::Methods;
use tokio::sync::watch;

#[derive(Clone, PartialEq, prost::Message)]
struct Nothing {}

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
struct Registered {
    #[prost(bool, tag = "1")]
    is: bool,
    #[prost(string, tag = "2")]
    error: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Claim {
    #[prost(string, tag = "1")]
    namespace: String,
    #[prost(string, tag = "2")]
    uid: String,
    #[prost(string, tag = "3")]
    name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Claims {
    #[prost(message, repeated, tag = "1")]
    claims: Vec<Claim>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Device {
    #[prost(string, repeated, tag = "1")]
    requests: Vec<String>,
    #[prost(string, tag = "2")]
    pool: String,
    #[prost(string, tag = "3")]
    device: String,
    #[prost(string, repeated, tag = "4")]
    cdi: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Prepared {
    #[prost(btree_map = "string, message", tag = "1")]
    claims: BTreeMap<String, PreparedClaim>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PreparedClaim {
    #[prost(message, repeated, tag = "1")]
    devices: Vec<Device>,
    #[prost(string, tag = "2")]
    error: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Unprepared {
    #[prost(btree_map = "string, message", tag = "1")]
    claims: BTreeMap<String, UnpreparedClaim>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct UnpreparedClaim {
    #[prost(string, tag = "1")]
    error: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct DeviceId {
    #[prost(string, tag = "1")]
    pool: String,
    #[prost(string, tag = "2")]
    device: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Health {
    #[prost(message, optional, tag = "1")]
    device: Option<DeviceId>,
    #[prost(int32, tag = "2")]
    health: i32,
    #[prost(string, tag = "5")]
    message: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Healths {
    #[prost(message, repeated, tag = "1")]
    devices: Vec<Health>,
}

pub(crate) const NAME: &str = "gpu.example.com";

/// What goes wrong with the next call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Refused,
    Skipped,
    Unknown,
}

pub(crate) struct Driver {
    calls: Mutex<Vec<String>>,
    count: watch::Sender<usize>,
    pub(crate) fault: Mutex<Option<Fault>>,
    /// Of the device `d0`: 1 is well, 2 is not.
    pub(crate) health: watch::Sender<i32>,
    registration: PathBuf,
    tasks: Mutex<Option<Tasks>>,
}

impl Driver {
    /// Registers below the kubelet's root, with the services of this version (`v1`, `v1beta1`).
    pub(crate) fn start(root: &Path, version: &'static str) -> Arc<Driver> {
        let driver = Arc::new(Driver {
            calls: Mutex::default(),
            count: watch::Sender::new(0),
            fault: Mutex::default(),
            health: watch::Sender::new(1),
            registration: root.join("plugins_registry/dra-reg.sock"),
            tasks: Mutex::default(),
        });
        let socket = root.join("plugins/dra.sock");
        let info = PluginInfo {
            kind: "DRAPlugin".into(),
            name: NAME.into(),
            endpoint: socket.to_string_lossy().into_owned(),
            versions: vec![format!("{version}.DRAPlugin")],
        };
        let registration = Methods::new(1 << 16)
            .unary("/pluginregistration.Registration/GetInfo", move |_: Nothing| {
                let info = info.clone();
                async move { Ok(info) }
            })
            .unary(
                "/pluginregistration.Registration/NotifyRegistrationStatus",
                |_: Registered| async { Ok(Nothing {}) },
            );
        let tasks = Tasks::default();
        let listener = grpc::server::bind(&socket).unwrap();
        let methods = driver.clone().methods(version);
        tasks.spawn("driver", grpc::server::listen(listener, Arc::new(methods)));
        let listener = grpc::server::bind(&driver.registration).unwrap();
        tasks.spawn("registration", grpc::server::listen(listener, Arc::new(registration)));
        *driver.tasks.lock().unwrap() = Some(tasks);
        driver
    }

    fn methods(self: Arc<Self>, version: &str) -> Methods {
        let (prepare, unprepare) = match version {
            "v1" => (
                "/k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin/NodePrepareResources",
                "/k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin/NodeUnprepareResources",
            ),
            _ => (
                "/k8s.io.kubelet.pkg.apis.dra.v1beta1.DRAPlugin/NodePrepareResources",
                "/k8s.io.kubelet.pkg.apis.dra.v1beta1.DRAPlugin/NodeUnprepareResources",
            ),
        };
        let (one, other, health) = (self.clone(), self.clone(), self);
        Methods::new(1 << 20)
            .unary(prepare, move |asked: Claims| {
                let answer = one.prepare(asked);
                async move { Ok(answer) }
            })
            .unary(unprepare, move |asked: Claims| {
                let answer = other.unprepare(asked);
                async move { Ok(answer) }
            })
            .streaming("/v1alpha1.DRAResourceHealth/NodeWatchResources", move |_: Nothing| {
                let told = crate::device_plugin::values_of(health.health.subscribe());
                let told = told.map(|health| {
                    let device = Some(DeviceId { pool: "p".into(), device: "d0".into() });
                    let message = if health == 2 { "hot".into() } else { String::new() };
                    Ok(Healths { devices: vec![Health { device, health, message }] })
                });
                async move { Ok(told) }
            })
    }

    fn note(&self, what: &str, asked: &Claims) {
        let names: Vec<_> = asked.claims.iter().map(|c| c.name.as_str()).collect();
        self.calls.lock().unwrap().push(format!("{what} {}", names.join(" ")));
        self.count.send_modify(|n| *n += 1);
    }

    fn prepare(&self, asked: Claims) -> Prepared {
        self.note("prepare", &asked);
        let fault = self.fault.lock().unwrap().take();
        let mut claims = BTreeMap::new();
        for claim in asked.claims {
            let device = |index: usize, request: &str| Device {
                requests: vec![request.into()],
                pool: "p".into(),
                device: format!("d{index}"),
                cdi: vec![format!("{NAME}/gpu={}-{index}", claim.name)],
            };
            let mut prepared = PreparedClaim {
                devices: vec![device(0, "a"), device(1, "b")],
                error: String::new(),
            };
            let mut uid = claim.uid.clone();
            match fault {
                Some(Fault::Refused) => prepared.error = "no power".into(),
                Some(Fault::Unknown) => uid = "other".into(),
                Some(Fault::Skipped) => continue,
                None => {}
            }
            claims.insert(uid, prepared);
        }
        Prepared { claims }
    }

    fn unprepare(&self, asked: Claims) -> Unprepared {
        self.note("unprepare", &asked);
        let fault = self.fault.lock().unwrap().take();
        let error = if fault.is_some() { "still in use".to_owned() } else { String::new() };
        let one = |claim: Claim| (claim.uid, UnpreparedClaim { error: error.clone() });
        Unprepared { claims: asked.claims.into_iter().map(one).collect() }
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }

    /// Waits for a call.
    pub(crate) async fn until(&self, call: &str) {
        let mut count = self.count.subscribe();
        let wait = async {
            loop {
                count.borrow_and_update();
                if self.calls().iter().any(|c| c == call) {
                    return;
                }
                count.changed().await.unwrap();
            }
        };
        let done = tokio::time::timeout(std::time::Duration::from_secs(30), wait).await;
        done.unwrap_or_else(|_| panic!("no {call:?}; {:?}", self.calls()));
    }

    /// Ends it, and takes its registration away.
    pub(crate) async fn stop(&self) {
        let tasks = self.tasks.lock().unwrap().take().unwrap();
        tasks.shutdown().await;
        std::fs::remove_file(&self.registration).unwrap();
    }
}
