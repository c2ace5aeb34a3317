//! The control plane in this process: store, API server, and clients of it.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use apiserver::{Local, NodeDialer, Server, ServiceNetwork, TlsSetup, User};
use client::{Client, Tasks};
use encryption::Encryption;
use pki::KeyPairPem;
use store::{EtcdOptions, LogEngine, Store, Transformer};
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

use crate::at_rest::{self, EncryptionFile};
use crate::authentication::Authentication;
use crate::authorization::Authorization;
use crate::certificates::Certificates;
use crate::cluster::folder::make_private;
use crate::config_reloads;
use crate::flags;
use crate::pki_files::PkiFiles;

/// What distinguishes one control plane from another.
pub(crate) struct Options {
    pub(crate) data_dir: PathBuf,
    /// A real etcd instead of the embedded store.
    pub(crate) etcd: Option<EtcdOptions>,
    /// How objects are encrypted at rest. Without one, Secrets in the embedded store are encrypted
    /// with a key of the cluster's own; what is in etcd is as its other servers left it.
    pub(crate) encryption: Option<EncryptionFile>,
    pub(crate) service_network: ServiceNetwork,
    pub(crate) authorization: Authorization,
    /// Serve the versions that Kubernetes served once.
    pub(crate) legacy: bool,
    /// Serve `metrics.k8s.io`.
    pub(crate) resource_metrics: bool,
    pub(crate) event_ttl: std::time::Duration,
    pub(crate) admission: apiserver::AdmissionOptions,
    /// One of the cluster's own when absent.
    pub(crate) front_proxy: Option<apiserver::FrontProxy>,
    pub(crate) limits: apiserver::Limits,
    /// What is told of requests, if anything is.
    pub(crate) auditor: Option<Arc<apiserver::audit::Auditor>>,
    /// Records requests, if anything does.
    pub(crate) tracer: Option<Arc<traces::Tracer>>,
    pub(crate) authentication: Authentication,
    /// Published as the `kubernetes` Service's endpoint.
    pub(crate) advertise: SocketAddr,
    /// Addresses the server's certificate is valid for, besides those of the Service.
    pub(crate) addresses: Vec<IpAddr>,
    /// The server's certificate; one of the cluster's own CA when absent.
    pub(crate) serving: Option<KeyPairPem>,
    /// PEM of the CA that signs clients; the cluster's own when absent.
    pub(crate) client_ca_pem: Option<String>,
    pub(crate) node_dialer: Arc<dyn NodeDialer>,
    /// For `/metrics`, beside what the server counts.
    pub(crate) figures: Vec<apiserver::Figures>,
    /// The other parts of the control plane, for ComponentStatuses.
    pub(crate) components: Vec<Arc<dyn apiserver::HealthCheck>>,
}

/// A running control plane.
#[derive(Debug)]
pub(crate) struct ControlPlane {
    pub(crate) server: Server,
    store: Store,
    pub(crate) certificates: Arc<Certificates>,
    tasks: Tasks,
    listeners: TaskTracker,
}

async fn open_store(
    options: &Options,
    pki: &PkiFiles,
    tasks: &Tasks,
) -> Result<(Store, Option<Arc<Encryption>>)> {
    // What is in etcd is plain unless a configuration says otherwise, as with upstream.
    let file = match (&options.encryption, &options.etcd) {
        (Some(file), _) => Some(file.clone()),
        (None, Some(_)) => None,
        (None, None) => Some(EncryptionFile { path: pki.encryption()?, followed: false }),
    };
    let encryption = match file {
        Some(file) => Some(file.load(tasks).await?),
        None => None,
    };
    let transformer = encryption.clone().map(|encryption| encryption as Arc<dyn Transformer>);
    let specs = apiserver::collections();
    let store = match &options.etcd {
        Some(etcd) => Store::connect(EtcdOptions { transformer, ..etcd.clone() }, specs).await?,
        None => {
            std::fs::create_dir_all(&options.data_dir)
                .with_context(|| format!("create {}", options.data_dir.display()))?;
            make_private(&options.data_dir.join("db"))?;
            let engine = LogEngine::open(&options.data_dir.join("db"))?;
            Store::open_with(Box::new(engine), specs, transformer)?
        }
    };
    if let Some(encryption) = &encryption {
        store.read_encrypted().await;
        let unread = store.clone();
        tasks.essential("encrypted objects", move || {
            let store = unread.clone();
            async move { store.keep_reading_encrypted().await }
        });
        if let Some(file) = options.encryption.as_ref().filter(|file| file.followed) {
            file.follow(encryption, &store, tasks);
        }
    }
    Ok((store, encryption))
}

impl ControlPlane {
    /// Opens the store and makes the bootstrap objects; nothing listens yet.
    pub(crate) async fn start(
        options: Options,
        pki: &PkiFiles,
        tasks: &Tasks,
    ) -> Result<ControlPlane> {
        let (store, encryption) = open_store(&options, pki, tasks).await?;
        let tokens = Arc::new(pki.tokens()?);
        let believes_proxies = options.authentication.front_proxies.is_some();
        let authenticator = options.authentication.authenticator(tokens.clone(), tasks).await?;
        let mut addresses = options.addresses.clone();
        addresses.extend([options.service_network.api_server_ip(), options.advertise.ip()]);
        let pair = match options.serving {
            Some(pair) => pair,
            None => pki.api_server(&addresses, &[])?,
        };
        let front_proxy = options.front_proxy.map_or_else(|| pki.front_proxy(), Ok)?;
        let front_proxy_ca_pem = believes_proxies.then(|| front_proxy.ca_pem.clone());
        let (modes, followed) = options.authorization.into_parts();
        let config = apiserver::Config {
            authenticator,
            service_network: options.service_network,
            node_dialer: options.node_dialer,
            advertise: (options.advertise.ip(), options.advertise.port()),
            tokens,
            authorization: modes,
            event_ttl: options.event_ttl,
            admission: options.admission,
            front_proxy: Some(front_proxy),
            limits: options.limits,
            auditor: options.auditor,
            tracer: options.tracer,
            resource_metrics: options.resource_metrics,
            legacy: options.legacy,
            component: flags::component("kube-apiserver"),
            components: options.components,
            health_checks: encryption.iter().filter_map(at_rest::health_check).collect(),
            figures: options
                .figures
                .into_iter()
                .chain(encryption.iter().map(at_rest::figures))
                .chain(
                    [
                        client::figures,
                        controllers::figures,
                        scheduler::figures,
                        config_reloads::figures,
                    ]
                    .map(|of| Box::new(of) as _),
                )
                .collect(),
        };
        let server = Server::new(store.clone(), config)?;
        if let Some(file) = followed {
            tasks.spawn("authorization configuration", file.follow(server.clone()));
        }
        server.bootstrap(tasks).await.context("make the bootstrap objects")?;
        let client_ca_pem = options.client_ca_pem.unwrap_or_else(|| pki.ca_pem().to_owned());
        let published = server.publish_client_ca(&client_ca_pem, tasks);
        published.await.context("publish the authority of client certificates")?;
        let tls = TlsSetup {
            cert_pem: pair.cert_pem,
            key_pem: pair.key_pem,
            client_ca_pem,
            front_proxy_ca_pem,
        };
        let certificates = Arc::new(Certificates::new(server.clone(), tls, tasks)?);
        let (tasks, listeners) = (tasks.clone(), TaskTracker::new());
        Ok(ControlPlane { server, store, certificates, tasks, listeners })
    }

    /// Serves on one more socket.
    pub(crate) fn listen(&self, listener: TcpListener) {
        let tls = self.certificates.tls();
        let listening = apiserver::listen(self.server.clone(), listener, tls);
        let open = self.listeners.clone();
        self.tasks.spawn("API listener", open.track_future(listening.run()));
    }

    /// Stops serving in order: nothing new is accepted, streams end, and requests under way have
    /// `grace` to finish.
    pub(crate) async fn drain(&self, grace: std::time::Duration) {
        self.server.drain();
        self.listeners.close();
        if tokio::time::timeout(grace, self.listeners.wait()).await.is_err() {
            tracing::warn!(?grace, "some requests did not finish in time");
        }
    }

    /// An in-process client with this identity.
    pub(crate) fn client(&self, user: &str, groups: &[&str], agent: &str) -> Client {
        let mut user = User::new(user, groups);
        user.groups.push("system:authenticated".into());
        Client::new(Arc::new(Local::new(self.server.clone(), user, agent, self.tasks.clone())))
    }

    /// Leaves the cluster's endpoints, commits what is queued and closes the store.
    pub(crate) async fn close(&self) {
        self.server.retire().await;
        self.store.close().await;
    }
}
