//! What servers of one etcd agree on: an IPAddress object a cluster IP, and one RangeAllocation with
//! all node ports. Who creates the object, or changes the allocation first, has the address or port.

use std::net::IpAddr;
use std::sync::Arc;

use api::{Draft, Object};
use serde_json::json;
use store::{Collection, Expect, Store, Write, WriteError};
use tokio::sync::Mutex;

use super::ports::PortSet;
use super::{MANAGED_BY, MANAGER};

pub const RANGES: &str = "/registry/ranges/";
/// Addresses of the servers that share a store.
pub const MASTERS: &str = "/registry/masterleases/";
const PORTS: &str = "servicenodeports";
/// Tries to change the allocation before giving up: each lost race is another server's success.
const TRIES: usize = 100;

/// The Service that something was given to: namespace and name.
pub(super) type Parent = (String, String);

/// Whose address is given back.
#[derive(Debug, Clone)]
pub(super) enum Holder {
    /// The object with this uid.
    Uid(String),
    Parent(Parent),
}

#[derive(Debug)]
pub(super) struct Ledger {
    store: Store,
    addresses: Arc<Collection>,
    ranges: Arc<Collection>,
    /// Held while the ports are changed: requests of one server would only race each other.
    changing: Mutex<()>,
}

fn address(ip: IpAddr, uid: &str, parent: &Parent) -> Draft {
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let object = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "IPAddress",
        "metadata": {"name": ip.to_string(), "uid": uid, "creationTimestamp": now, "labels": {
            "ipaddress.kubernetes.io/ip-family": if ip.is_ipv4() { "IPv4" } else { "IPv6" },
            MANAGED_BY: MANAGER,
        }},
        "spec": {"parentRef": {"resource": "services", "namespace": parent.0, "name": parent.1}},
    });
    Draft::new(&object, &[])
}

fn is_held_by(address: &Object, holder: &Holder) -> bool {
    match holder {
        Holder::Uid(uid) => *address.meta().uid == **uid,
        Holder::Parent((namespace, name)) => {
            let reference = &address.to_value()["spec"]["parentRef"];
            reference["namespace"] == **namespace && reference["name"] == **name
        }
    }
}

impl Ledger {
    /// Absent when nobody else writes to the store.
    pub(super) fn of(store: &Store) -> Option<Ledger> {
        let addresses = store.collection("/registry/ipaddresses/")?;
        let ranges = store.collection(RANGES)?;
        let shared = store.is_shared();
        let ledger = Ledger { store: store.clone(), addresses, ranges, changing: Mutex::default() };
        shared.then_some(ledger)
    }

    /// Whether the address was free, and is the parent's now.
    pub(super) async fn take_address(
        &self,
        ip: IpAddr,
        uid: &str,
        parent: &Parent,
    ) -> Result<bool, WriteError> {
        let draft = Some(address(ip, uid, parent));
        let collection = self.addresses.clone();
        let write = Write { collection, key: ip.to_string(), expect: Expect::Absent, draft };
        match self.store.write(write).await {
            Ok(_) => Ok(true),
            Err(WriteError::Conflict(_)) => Ok(false),
            Err(other) => Err(other),
        }
    }

    pub(super) async fn return_address(
        &self,
        ip: IpAddr,
        holder: &Holder,
    ) -> Result<(), WriteError> {
        let key = ip.to_string();
        let Some(there) = self.addresses.get(&key).filter(|there| is_held_by(there, holder)) else {
            return Ok(());
        };
        let expect = Expect::Revision(there.revision());
        let collection = self.addresses.clone();
        match self.store.write(Write { collection, key, expect, draft: None }).await {
            // Somebody changed or deleted it: then it is no longer this one's to give back.
            Ok(_) | Err(WriteError::Conflict(_)) => Ok(()),
            Err(other) => Err(other),
        }
    }

    /// The taken ports, and the revision of what says so.
    pub(super) fn ports(&self) -> Result<Option<(PortSet, u64)>, String> {
        let Some(there) = self.ranges.get(PORTS) else { return Ok(None) };
        PortSet::parse(&there.to_value()).map(|ports| Some((ports, there.revision())))
    }

    /// Replaces what has this revision; none when it is not there yet. False: it was not so.
    pub(super) async fn replace_ports(
        &self,
        ports: &PortSet,
        revision: Option<u64>,
    ) -> Result<bool, WriteError> {
        let draft = Some(Draft::new(&ports.to_object(), &[]));
        let expect = revision.map_or(Expect::Absent, Expect::Revision);
        let collection = self.ranges.clone();
        match self.store.write(Write { collection, key: PORTS.into(), expect, draft }).await {
            Ok(_) => Ok(true),
            Err(WriteError::Conflict(_)) => Ok(false),
            Err(other) => Err(other),
        }
    }

    /// Changes the taken ports; what `change` says of them, when it says that nothing is to be
    /// written or when that was.
    async fn change_ports<T>(
        &self,
        change: impl Fn(&mut PortSet) -> (bool, T),
    ) -> Result<T, WriteError> {
        let _alone = self.changing.lock().await;
        for _ in 0..TRIES {
            let found = self.ports().map_err(WriteError::Engine)?;
            let missing = || WriteError::Unavailable("node ports cannot be allocated yet".into());
            let (mut ports, revision) = found.ok_or_else(missing)?;
            let (write, said) = change(&mut ports);
            if !write || self.replace_ports(&ports, Some(revision)).await? {
                return Ok(said);
            }
        }
        Err(WriteError::Unavailable("other servers allocate node ports all the time".into()))
    }

    /// Takes all of them, or says which one is taken already.
    pub(super) async fn take_ports(&self, wanted: &[u16]) -> Result<Option<u16>, WriteError> {
        self.change_ports(|ports| {
            let taken = wanted.iter().copied().find(|port| !ports.insert(*port));
            (taken.is_none(), taken)
        })
        .await
    }

    pub(super) async fn return_ports(&self, given: &[u16]) -> Result<(), WriteError> {
        self.change_ports(|ports| {
            let changed = given.iter().filter(|port| ports.remove(**port)).count();
            (changed > 0, ())
        })
        .await
    }
}
