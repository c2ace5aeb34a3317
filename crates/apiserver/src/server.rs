//! The server as its handlers see it: the store, the tables, and who may do what.

use std::net::IpAddr;
use std::sync::Arc;

use api::Object;
use api::registry::{Registry, Resource};
use api::schema::{Schema, Shape};
use auth::{Authenticator, AuthorizationModes, Authorizer};
use store::{Collection, CollectionSpec, EngineError, Store, Write, WriteError};
use tokio_util::sync::CancellationToken;

use crate::allocate::{Allocators, RANGES, ServiceNetwork};
use crate::bootstrap::MASTERS;
use crate::custom::{Customs, Served};
use crate::documents::Documents;
use crate::health::Health;
use crate::limits::{InFlight, Limits};
use crate::node_proxy::NodeDialer;
use crate::ports::StoredObjects;

/// What the wiring decides.
pub struct Config {
    pub authenticator: Authenticator,
    pub service_network: ServiceNetwork,
    /// Where kubelets and pods are reached from.
    pub node_dialer: Arc<dyn NodeDialer>,
    /// Address and port published as the `kubernetes` Service's endpoint.
    pub advertise: (IpAddr, u16),
    /// Issues and checks service account tokens.
    pub tokens: Arc<pki::TokenIssuer>,
    /// How long events are kept after their last write (`--event-ttl`).
    pub event_ttl: std::time::Duration,
    /// `--authorization-mode`.
    pub authorization: AuthorizationModes,
    pub limits: Limits,
}

/// One API server. Clones are the same one.
#[derive(Clone)]
pub struct Server {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) store: Store,
    pub(crate) registry: &'static Registry,
    pub(crate) schema: &'static Schema,
    pub(crate) config: Config,
    pub(crate) customs: Customs,
    pub(crate) authorizer: Authorizer,
    /// The store, as crate `auth` reads it.
    pub(crate) objects: Arc<StoredObjects>,
    pub(crate) allocators: Allocators,
    pub(crate) quota_queues: crate::admission::QuotaQueues,
    pub(crate) in_flight: InFlight,
    pub(crate) health: Health,
    /// Documents that all clients share.
    pub(crate) documents: Documents,
    /// Cancelled when the server stops serving: streams end, connections finish what they do.
    pub(crate) closing: CancellationToken,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Server")
    }
}

/// The collections every server keeps.
pub fn collections() -> Vec<CollectionSpec> {
    let mut specs: Vec<CollectionSpec> = Vec::new();
    for row in Registry::built_in().rows().iter().filter(|r| !r.prefix.is_empty()) {
        if !specs.iter().any(|s| s.prefix == row.prefix) {
            specs.push(CollectionSpec { prefix: row.prefix.clone(), selectable: row.selectable });
        }
    }
    let unserved =
        [RANGES, MASTERS].map(|prefix| CollectionSpec { prefix: prefix.into(), selectable: &[] });
    specs.extend(unserved);
    specs
}

impl Server {
    /// A server over a store that was opened with [`collections`].
    pub fn new(store: Store, config: Config) -> Result<Server, EngineError> {
        let objects =
            Arc::new(StoredObjects { store: store.clone(), registry: Registry::built_in() });
        let inner = Inner {
            authorizer: Authorizer::new(objects.clone(), config.authorization),
            objects,
            allocators: Allocators::new(&config.service_network, &store),
            quota_queues: Default::default(),
            store,
            registry: Registry::built_in(),
            schema: Schema::built_in(),
            customs: Customs::default(),
            in_flight: InFlight::new(&config.limits),
            config,
            health: Health::default(),
            documents: Documents::default(),
            closing: CancellationToken::new(),
        };
        Ok(Server { inner: Arc::new(inner) })
    }

    /// From now on `/readyz` fails, so that load balancers send new clients elsewhere; everything is
    /// still answered.
    pub fn announce_end(&self) {
        self.inner.health.end();
    }

    /// Ends serving: listeners close, streams end, requests under way are finished. The listeners'
    /// `run` returns when the last connection has.
    pub fn drain(&self) {
        self.announce_end();
        self.inner.closing.cancel();
    }
}

impl Inner {
    /// The collection of a resource that is stored.
    pub(crate) fn collection(&self, row: &Resource) -> Arc<Collection> {
        self.store.collection(&row.prefix).expect("every stored resource was registered at start")
    }

    /// Writes an object of a resource; events go by themselves where the store sees to that.
    pub(crate) async fn write(
        &self,
        row: &Resource,
        write: Write,
    ) -> Result<Arc<Object>, WriteError> {
        let is_event = row.name == "events" && ["", "events.k8s.io"].contains(&row.group);
        match is_event && self.store.is_shared() {
            true => self.store.write_for(write, self.config.event_ttl).await,
            false => self.store.write(write).await,
        }
    }

    /// The collection of a core or named resource.
    pub(crate) fn collection_of(
        &self,
        group: &str,
        version: &str,
        resource: &str,
    ) -> Arc<Collection> {
        let row = self.registry.find(group, version, resource, "").expect("a built-in resource");
        self.collection(row)
    }

    /// The row that a path names, built in or custom.
    pub(crate) fn find(
        &self,
        (group, version, name): (&str, &str, &str),
        subresource: &str,
    ) -> Option<(&'static Resource, Option<Arc<Served>>)> {
        if let Some(row) = self.registry.find(group, version, name, subresource) {
            return Some((row, None));
        }
        let (row, served) = self.customs.find((group, version, name), subresource)?;
        Some((row, Some(served)))
    }

    /// Every row that is served right now.
    pub(crate) fn rows(&self) -> Vec<&'static Resource> {
        let installed = self.customs.installed();
        let custom = installed.all().iter().flat_map(|served| served.rows());
        self.registry.rows().iter().chain(custom).collect()
    }

    pub(crate) fn shape(&self, row: &Resource) -> Shape {
        row.ty.map_or(Shape::Any, Shape::Struct)
    }
}
