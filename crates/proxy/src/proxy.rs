//! The proxy itself: collects changes, plans what they touch, and brings the kernel's table there.
//!
//! `apply` only notes what changed; `sync` plans and sends one batch. The caller debounces: a
//! hundred changes between two syncs cost one batch. The first sync replaces whatever table an
//! earlier process left, in one step, so connections never meet an empty table: apply the whole
//! initial state before it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;
use network::NetNs;
use network::netlink::NetlinkError;
use network::nft::watch::{Seen, Watch};
use network::nft::{Batch, Family, Nft, NftError};

use crate::conntrack::Conntrack;
use crate::encode::encode;
use crate::fragment::{Fragment, HealthCheck, UdpFlows};
use crate::layout::{self, Layout};
use crate::model::{Change, HostPort, Service, ServiceKey, Slice};
use crate::plan::{PlanConfig, plan_hostport, plan_service};
use crate::table::{Operations, Owner, Table};

/// What the proxy of a node must know.
#[derive(Debug, Clone, Default)]
pub struct ProxyConfig {
    pub node_name: String,
    /// The name of the kernel's table; `trireme` when none is given. Two proxies of one network have two.
    pub table: Option<&'static str>,
    /// The node's addresses: node ports are offered on these.
    pub node_ips: Vec<IpAddr>,
    /// The node's topology zone, if it has one.
    pub zone: Option<String>,
    /// The node's namespace; none for the host's own network.
    pub netns: Option<NetNs>,
    /// Every service address: connections to one that no service has are refused.
    pub service_cidrs: Vec<IpNet>,
    /// Every pod of the cluster, on all nodes: connections from elsewhere are masqueraded.
    pub pod_cidrs: Vec<IpNet>,
    /// Service addresses that the node answers itself (cluster DNS): left alone.
    pub local_addresses: Vec<IpAddr>,
}

#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    #[error("open the node's firewall: {0}")]
    Open(#[source] NftError),
    #[error("update the service rules: {0}")]
    Update(#[source] NftError),
    #[error("read the service rules back: {0}")]
    Inspect(#[source] NftError),
    #[error("remove stale UDP connections: {0}")]
    Conntrack(#[source] NetlinkError),
}

/// What a sync did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SyncReport {
    /// Services and host ports whose rules changed.
    pub changed: usize,
    /// Messages sent to the kernel.
    pub messages: usize,
    /// The whole table was written anew.
    pub rebuilt: bool,
    /// Stale UDP connections removed.
    pub flows_removed: usize,
}

/// The load balancer of one node. Methods block (a sync of one change: well below a millisecond).
#[derive(Debug)]
pub struct Proxy {
    plan: PlanConfig,
    layout: Layout,
    netns: Option<NetNs>,
    nft: Nft,
    conntrack: Conntrack,
    services: HashMap<ServiceKey, Service>,
    slices: HashMap<SliceKey, Slice>,
    by_service: HashMap<ServiceKey, BTreeSet<SliceKey>>,
    hostports: BTreeMap<String, HostPort>,
    dirty: HashSet<Owner>,
    table: Table,
    /// UDP connections that may be stale and were not looked at yet.
    flows: Vec<UdpFlows>,
    /// The kernel's table is not what we think: write it anew.
    stale: bool,
    handle: u64,
}

/// Namespace and name of an EndpointSlice.
type SliceKey = (String, String);

impl Proxy {
    /// Opens the node's firewall. Changes nothing yet.
    pub fn new(config: ProxyConfig) -> Result<Self, ProxyError> {
        let nft = Nft::open(config.netns.as_ref()).map_err(ProxyError::Open)?;
        let conntrack =
            Conntrack::open(config.netns.as_ref()).map_err(|e| ProxyError::Open(e.into()))?;
        Ok(Proxy {
            plan: PlanConfig {
                node_name: config.node_name,
                zone: config.zone.unwrap_or_default(),
                pod_cidrs: config.pod_cidrs.clone(),
                local_addresses: config.local_addresses,
            },
            layout: Layout {
                table: config.table,
                node_ips: config.node_ips,
                service_cidrs: config.service_cidrs,
                pod_cidrs: config.pod_cidrs,
            },
            netns: config.netns,
            nft,
            conntrack,
            services: HashMap::new(),
            slices: HashMap::new(),
            by_service: HashMap::new(),
            hostports: BTreeMap::new(),
            dirty: HashSet::new(),
            table: Table::default(),
            flows: Vec::new(),
            stale: true,
            handle: 0,
        })
    }

    /// Notes a change; [`Proxy::sync`] makes it true. Says whether anything we look at changed.
    pub fn apply(&mut self, change: Change) -> bool {
        match change {
            Change::Service(service) => {
                let metadata = &service.metadata;
                let (namespace, name) = (metadata.namespace.as_deref(), metadata.name.as_deref());
                let key = ServiceKey::new(namespace.unwrap_or("default"), name.unwrap_or_default());
                self.set_service(key, Service::from_api(&service))
            }
            Change::ServiceDeleted { namespace, name } => {
                self.set_service(ServiceKey { namespace, name }, None)
            }
            Change::EndpointSlice(slice) => {
                let metadata = &slice.metadata;
                let (namespace, name) = (metadata.namespace.as_deref(), metadata.name.as_deref());
                let key = (namespace.unwrap_or_default().into(), name.unwrap_or_default().into());
                self.set_slice(key, Slice::from_api(&slice))
            }
            Change::EndpointSliceDeleted { namespace, name } => {
                self.set_slice((namespace, name), None)
            }
        }
    }

    /// Offers a pod's port on the node; effective with the next sync.
    pub fn hostport_add(&mut self, hostport: HostPort) {
        self.dirty.insert(Owner::HostPort(hostport.id.clone()));
        self.hostports.insert(hostport.id.clone(), hostport);
    }

    /// Takes it back; effective with the next sync. Success when there is none.
    pub fn hostport_remove(&mut self, id: &str) {
        if self.hostports.remove(id).is_some() {
            self.dirty.insert(Owner::HostPort(id.to_owned()));
        }
    }

    /// The node's zone label changed: services with topology hints are planned anew.
    pub fn set_zone(&mut self, zone: Option<String>) {
        let zone = zone.unwrap_or_default();
        if self.plan.zone != zone {
            self.plan.zone = zone;
            self.dirty.extend(self.services.keys().cloned().map(Owner::Service));
        }
    }

    /// Brings the kernel's table to what the changes so far mean. After an error nothing is lost:
    /// the next sync writes the whole table.
    pub fn sync(&mut self) -> Result<SyncReport, ProxyError> {
        let changes: Vec<_> = std::mem::take(&mut self.dirty)
            .into_iter()
            .map(|owner| (owner.clone(), self.plan_owner(&owner)))
            .collect();
        let mut report = SyncReport { changed: changes.len(), ..SyncReport::default() };
        for (owner, new) in &changes {
            if self.table.get(owner) != new.as_ref() {
                let flows = new.iter().flat_map(|fragment| fragment.udp.iter());
                let unknown: Vec<_> = flows.filter(|f| !self.flows.contains(f)).cloned().collect();
                self.flows.extend(unknown);
            }
        }
        let operations = self.table.replace(changes);
        if self.stale {
            report.messages = self.rebuild()?;
            report.rebuilt = true;
        } else if !operations.is_empty() {
            report.messages = self.update(&operations)?;
        }
        let repaired = self.conntrack.repair(&self.flows, &self.layout.node_ips);
        report.flows_removed = repaired.map_err(ProxyError::Conntrack)?;
        self.flows.clear();
        Ok(report)
    }

    /// Whether a sync would do anything.
    pub fn is_dirty(&self) -> bool {
        self.stale || !self.dirty.is_empty() || !self.flows.is_empty()
    }

    /// Watches for other programs changing the table; give what it sees to [`Proxy::healed_by_sync`].
    /// Needs a tokio runtime.
    pub fn watch(&self) -> Result<Watch, ProxyError> {
        Watch::open(self.netns.as_ref(), self.layout.table(), self.nft.port())
            .map_err(ProxyError::Open)
    }

    /// Takes a sign from the watch; true when the next sync will write the table anew.
    pub fn healed_by_sync(&mut self, seen: Seen) -> Result<bool, ProxyError> {
        let state =
            self.nft.table(Family::Inet, self.layout.table()).map_err(ProxyError::Inspect)?;
        let same = state.is_some_and(|state| state.handle == self.handle);
        // Lost notifications are mostly those of our own large batches.
        self.stale |= seen == Seen::Foreign || !same;
        Ok(self.stale)
    }

    /// The health check node ports to serve now; give them to [`crate::HealthServer::update`].
    pub fn health_checks(&self) -> Vec<HealthCheck> {
        self.table.fragments().filter_map(|fragment| fragment.health.clone()).collect()
    }

    /// Removes the table from the kernel.
    pub fn remove(mut self) -> Result<(), ProxyError> {
        let mut batch = Batch::new(Family::Inet, self.layout.table());
        batch.add_table();
        batch.delete_table();
        self.nft.commit(batch).map_err(ProxyError::Update)
    }

    fn set_service(&mut self, key: ServiceKey, service: Option<Service>) -> bool {
        let changed = self.services.get(&key) != service.as_ref();
        if changed {
            match service {
                Some(service) => self.services.insert(key.clone(), service),
                None => self.services.remove(&key),
            };
            self.dirty.insert(Owner::Service(key));
        }
        changed
    }

    fn set_slice(&mut self, key: SliceKey, slice: Option<Slice>) -> bool {
        if self.slices.get(&key) == slice.as_ref() {
            return false;
        }
        if let Some(old) = self.slices.remove(&key) {
            if let Some(slices) = self.by_service.get_mut(&old.service) {
                slices.remove(&key);
                if slices.is_empty() {
                    self.by_service.remove(&old.service);
                }
            }
            self.dirty.insert(Owner::Service(old.service));
        }
        if let Some(slice) = slice {
            self.by_service.entry(slice.service.clone()).or_default().insert(key.clone());
            self.dirty.insert(Owner::Service(slice.service.clone()));
            self.slices.insert(key, slice);
        }
        true
    }

    fn plan_owner(&self, owner: &Owner) -> Option<Fragment> {
        match owner {
            Owner::Service(key) => {
                let service = self.services.get(key)?;
                let names = self.by_service.get(key).into_iter().flatten();
                let slices: Vec<_> = names.filter_map(|name| self.slices.get(name)).collect();
                Some(plan_service(&self.plan, key, service, &slices))
            }
            Owner::HostPort(id) => self.hostports.get(id).map(plan_hostport),
        }
    }

    fn update(&mut self, operations: &Operations) -> Result<usize, ProxyError> {
        let mut batch = Batch::new(Family::Inet, self.layout.table());
        encode(&mut batch, operations);
        let messages = batch.len();
        if let Err(e) = self.nft.commit(batch) {
            self.stale = true;
            return Err(ProxyError::Update(e));
        }
        Ok(messages)
    }

    fn rebuild(&mut self) -> Result<usize, ProxyError> {
        let mut batch = layout::fresh(&self.layout);
        encode(&mut batch, &self.table.all());
        let messages = batch.len();
        self.nft.commit(batch).map_err(ProxyError::Update)?;
        let state =
            self.nft.table(Family::Inet, self.layout.table()).map_err(ProxyError::Inspect)?;
        self.handle = state.map(|state| state.handle).unwrap_or_default();
        self.stale = false;
        Ok(messages)
    }
}
