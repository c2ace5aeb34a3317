//! A cluster of one node without pods.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use apiserver::{
    Authenticator, AuthorizationModes, Limits, Local, NoNodes, Server, ServiceNetwork, User,
};
use client::{Client, Informer, Informers, Resource, Tasks};
use grpc::server;
use k8s_openapi::api::core::v1::{Event, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Value, json};
use store::{MemoryEngine, Store};
use tokio::sync::Notify;

/// Longer than anything here takes; only a failure waits for it.
const PATIENCE: Duration = Duration::from_secs(60);
const CONTROLLERS: [&str; 3] = [
    "persistentvolume-binder-controller",
    "persistentvolume-protection-controller",
    "persistentvolumeclaim-protection-controller",
];

pub(crate) struct World {
    pub(crate) client: Client,
    pub(crate) csi: csi::Client,
    pub(crate) directory: tempfile::TempDir,
    informers: Informers,
    tasks: Tasks,
    _driver: grpc::Tasks,
}

fn server() -> Server {
    let store = Store::open(Box::new(MemoryEngine::default()), apiserver::collections()).unwrap();
    let key = pki::TokenIssuer::generate_key().unwrap();
    let tokens = Arc::new(pki::TokenIssuer::new("https://kubernetes.default.svc", &key).unwrap());
    let config = apiserver::Config {
        authenticator: Arc::new(Authenticator::new(tokens.clone())),
        service_network: ServiceNetwork::parse("10.43.0.0/16").unwrap(),
        node_dialer: Arc::new(NoNodes),
        advertise: (IpAddr::from([192, 0, 2, 1]), 6443),
        tokens,
        event_ttl: Duration::from_secs(3600),
        admission: apiserver::AdmissionOptions::default(),
        limits: Limits::default(),
        authorization: AuthorizationModes::usual(),
        auditor: None,
        tracer: None,
        resource_metrics: false,
        legacy: false,
        health_checks: Vec::new(),
        components: Vec::new(),
        figures: Vec::new(),
        component: apiserver::Component { name: "kube-apiserver".into(), ..Default::default() },
        front_proxy: None,
    };
    Server::new(store, config).unwrap()
}

/// The built-in driver on node `n1`.
fn driver(directory: &tempfile::TempDir) -> grpc::Tasks {
    let config = localdisk::Config {
        root: directory.path().join("root"),
        node: "n1".into(),
        volumes_max: 0,
        version: "it".into(),
    };
    let driver = localdisk::Driver::open(config).unwrap();
    let listener = server::bind(&directory.path().join("csi.sock")).unwrap();
    let tasks = grpc::Tasks::default();
    tasks.spawn("driver", server::listen(listener, Arc::new(localdisk::methods(&driver))));
    tasks
}

impl World {
    pub(crate) async fn new() -> World {
        let (server, tasks) = (server(), Tasks::new());
        server.bootstrap(&tasks).await.unwrap();
        let admin = User::new("admin", &["system:masters", "system:authenticated"]);
        let client = Client::new(Arc::new(Local::new(server, admin, "test", tasks.clone())));
        for definition in sidecars::snapshot_definitions() {
            let definition: CustomResourceDefinition = serde_json::from_value(definition).unwrap();
            client.create("", &definition).await.unwrap();
        }
        let informers = Informers::new(client.clone(), tasks.clone());
        let controllers = CONTROLLERS.map(str::to_owned).to_vec();
        let config = controllers::Config { controllers, ..controllers::Config::default() };
        controllers::run(&informers, &tasks, config).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let _driver = driver(&directory);
        let socket = directory.path().join("csi.sock");
        let config = sidecars::Config {
            driver: localdisk::NAME.into(),
            node: "n1".into(),
            socket: socket.clone(),
            namespace: "kube-system".into(),
            capacity_interval: Duration::from_secs(3600),
        };
        sidecars::start(&informers, &tasks, config);
        let csi = csi::Client::new(socket);
        // Definitions are served a moment after they are made.
        informers.of::<sidecars::VolumeSnapshot>().synced().await;
        informers.of::<sidecars::VolumeSnapshotClass>().synced().await;
        informers.of::<sidecars::VolumeSnapshotContent>().synced().await;
        World { client, csi, directory, informers, tasks, _driver }
    }

    pub(crate) async fn create<K: Resource>(&self, namespace: &str, value: Value) -> K {
        let object: K = serde_json::from_value(value).unwrap();
        self.client.create(namespace, &object).await.unwrap()
    }

    /// One request for JSON: kinds that this test has no types of.
    pub(crate) async fn ask(
        &self,
        method: &str,
        path: &str,
        body: Value,
    ) -> Result<Value, client::Error> {
        let kind = (method == "PATCH").then_some("application/merge-patch+json");
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.client.send(method.parse().unwrap(), path.to_owned(), kind, body.into()).await
    }

    /// A class of the driver.
    pub(crate) async fn class(&self, own: &str, more: Value) {
        let mut class = json!({"metadata": {"name": own}, "provisioner": localdisk::NAME,
            "allowVolumeExpansion": true});
        for (key, value) in more.as_object().unwrap() {
            class[key] = value.clone();
        }
        self.create::<StorageClass>("", class).await;
    }

    pub(crate) async fn claim(&self, own: &str, more: Value) -> PersistentVolumeClaim {
        let mut spec = json!({"accessModes": ["ReadWriteOnce"], "storageClassName": "local",
            "resources": {"requests": {"storage": "64Mi"}}});
        for (key, value) in more["spec"].as_object().into_iter().flatten() {
            spec[key] = value.clone();
        }
        let metadata = json!({"name": own, "annotations": more["annotations"]});
        self.create("default", json!({"metadata": metadata, "spec": spec})).await
    }

    /// Waits until the objects of a kind are as `good` wants them.
    #[track_caller]
    pub(crate) fn until<K: Resource>(
        &self,
        good: impl Fn(&[Arc<K>]) -> bool,
    ) -> impl Future<Output = Vec<Arc<K>>> {
        let view: Informer<K> = self.informers.of();
        let place = std::panic::Location::caller();
        async move {
            let changed = Arc::new(Notify::new());
            let notify = changed.clone();
            view.on_change(move |_| notify.notify_one());
            let wait = async {
                view.synced().await;
                loop {
                    let all = view.list();
                    if good(&all) {
                        return all;
                    }
                    changed.notified().await;
                }
            };
            match tokio::time::timeout(PATIENCE, wait).await {
                Ok(all) => all,
                Err(_) => panic!("{place}: {} never became right: {:?}", K::KIND, view.list()),
            }
        }
    }

    pub(crate) async fn bound(&self, own: &str) -> PersistentVolumeClaim {
        let is = |claim: &Arc<PersistentVolumeClaim>| {
            let phase = claim.status.as_ref().and_then(|s| s.phase.as_deref());
            claim.metadata.name.as_deref() == Some(own) && phase == Some("Bound")
        };
        let all = self.until::<PersistentVolumeClaim>(|all| all.iter().any(is)).await;
        all.iter().find(|claim| is(claim)).unwrap().as_ref().clone()
    }

    /// Waits for an event with this reason, whose message has this in it.
    #[track_caller]
    pub(crate) fn told(&self, reason: &str, message: &str) -> impl Future<Output = ()> {
        let (reason, message) = (reason.to_owned(), message.to_owned());
        let seen = self.until::<Event>(move |all| {
            let is = |event: &Arc<Event>| {
                event.reason.as_deref() == Some(&*reason)
                    && event.message.as_deref().is_some_and(|text| text.contains(&*message))
            };
            all.iter().any(is)
        });
        async move { drop(seen.await) }
    }

    pub(crate) fn volumes(&self) -> Vec<String> {
        let all = std::fs::read_dir(self.directory.path().join("root/volumes")).unwrap();
        all.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}
