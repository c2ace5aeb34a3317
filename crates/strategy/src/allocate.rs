//! Allocation of cluster IPs and node ports.
//!
//! A server that is alone decides in memory: what is taken follows from the stored Services and is
//! rebuilt from them at start, so a crash between allocation and write leaks nothing. Servers that
//! share a store choose in memory, too, but what they chose is theirs only when the [`ledger`] has
//! it; what a crash leaves there is put right by [`repair`] and by the objects of addresses.

mod book;
mod ledger;
mod network;
mod ports;
mod ranges;
mod repair;

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use store::{Collection, Store};
use tokio::sync::mpsc;

pub use self::book::{Claims, Unbooked};
use self::ledger::Ledger;
pub use self::ledger::{MASTERS, RANGES};
pub use self::network::{NODE_PORTS, ServiceNetwork};
use self::ranges::Ranges;
pub use self::ranges::{DEFAULT as DEFAULT_RANGE, is_judged as is_judged_range};
pub use self::repair::Repair;

/// Marks IPAddress objects that say what Services hold.
pub const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
pub const MANAGER: &str = "ipallocator.k8s.io";

/// Why an address or port could not be had; the sentence for the field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AllocationError {
    #[error("range is full")]
    Full,
    #[error("provided IP is already allocated")]
    IpTaken,
    #[error("the provided IP ({0}) is not in the valid range. The range of valid IPs is {1}")]
    IpOutside(IpAddr, String),
    /// In no range that is ready.
    #[error("the provided network does not match the current range")]
    IpElsewhere,
    #[error("provided port is already allocated")]
    PortTaken,
    #[error("provided port is not in the valid range. The range of valid ports is {0}-{1}")]
    PortOutside(u16, u16),
    #[error("no range of this IP family is configured")]
    NoFamily,
    /// The shared state of allocation cannot be read.
    #[error("{0}")]
    Unreadable(String),
}

/// What is taken: all of it when this server is alone, otherwise what its requests hold that are
/// not stored yet.
#[derive(Debug, Default)]
struct Taken {
    addresses: HashSet<IpAddr>,
    ports: HashSet<u16>,
    /// Where the next search starts: addresses are not handed out again at once.
    cursor: u128,
}

/// What is taken now.
#[derive(Debug)]
pub struct Allocators {
    network: ServiceNetwork,
    ranges: Ranges,
    /// IPAddress objects: what others have set aside.
    published: Option<Arc<Collection>>,
    services: Option<Arc<Collection>>,
    taken: Mutex<Taken>,
    /// What servers that share the store agree on.
    ledger: Option<Ledger>,
    /// To the task that gives back for requests that ended early, and its end until it runs.
    returns: mpsc::UnboundedSender<Claims>,
    returned: Mutex<Option<mpsc::UnboundedReceiver<Claims>>>,
}

/// A random number, for where to start.
fn random() -> u128 {
    uuid::Uuid::new_v4().as_u128()
}

impl Allocators {
    pub fn new(network: &ServiceNetwork, store: &Store) -> Allocators {
        let mut taken = Taken::default();
        let ledger = Ledger::of(store);
        let services = store.collection("/registry/services/specs/");
        let counted = services.as_ref().filter(|_| ledger.is_none());
        let all = counted.and_then(|c| c.list("", None, 0, usize::MAX, &|_| true).ok());
        for service in all.iter().flat_map(|page| &page.objects) {
            let (addresses, ports) = held(&service.to_value());
            taken.addresses.extend(addresses);
            taken.ports.extend(ports);
        }
        taken.addresses.insert(network.api_server_ip());
        if ledger.is_some() {
            // Servers that start at different places are seldom in each other's way.
            taken.cursor = random();
        }
        let published = store.collection("/registry/ipaddresses/");
        let ranges = Ranges::new(&network.ranges, store.collection("/registry/servicecidrs/"));
        let (returns, returned) = mpsc::unbounded_channel();
        Allocators {
            network: network.clone(),
            ranges,
            published,
            services,
            taken: Mutex::new(taken),
            ledger,
            returns,
            returned: Mutex::new(Some(returned)),
        }
    }

    pub fn network(&self) -> &ServiceNetwork {
        &self.network
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an object keeps the address from being given out: of those that this server makes
    /// from its own Services, none does.
    fn is_set_aside(&self, ip: IpAddr) -> bool {
        let object = self.published.as_ref().and_then(|all| all.get(&ip.to_string()));
        let mine = |object: &Arc<api::Object>| object.meta().label(MANAGED_BY) == Some(MANAGER);
        object.is_some_and(|object| self.ledger.is_some() || !mine(&object))
    }

    /// Any free address of the family.
    pub fn any_ip(&self, v6: bool) -> Result<IpAddr, AllocationError> {
        self.network.range(v6).ok_or(AllocationError::NoFamily)?;
        let ready = self.ranges.ready();
        let mut taken = self.lock();
        for range in ready.iter().filter(|range| range.is_ipv6() == v6) {
            for place in range.places(taken.cursor) {
                let ip = range.host(place);
                if !self.is_set_aside(ip) && taken.addresses.insert(ip) {
                    taken.cursor = range.after(place);
                    return Ok(ip);
                }
            }
        }
        Err(AllocationError::Full)
    }

    pub fn this_ip(&self, ip: IpAddr) -> Result<(), AllocationError> {
        self.network.range(ip.is_ipv6()).ok_or(AllocationError::NoFamily)?;
        let ready = self.ranges.ready();
        let mut around = ready.iter().filter(|range| range.contains(ip)).peekable();
        let first = around.peek().ok_or(AllocationError::IpElsewhere)?.to_string();
        if !around.any(|range| range.is_host(ip)) {
            return Err(AllocationError::IpOutside(ip, first));
        }
        if !self.is_set_aside(ip) && self.lock().addresses.insert(ip) {
            Ok(())
        } else {
            Err(AllocationError::IpTaken)
        }
    }

    /// Is the port another server's, or a stored Service's?
    fn is_booked(&self) -> Result<impl Fn(u16) -> bool + use<>, AllocationError> {
        let shared = self.ledger.as_ref().map(Ledger::ports).transpose();
        let shared = shared.map_err(AllocationError::Unreadable)?.flatten();
        if shared.as_ref().is_some_and(|(ports, _)| *ports.range() != self.network.node_ports) {
            let text = "the provided port range does not match the current port range";
            return Err(AllocationError::Unreadable(text.into()));
        }
        Ok(move |port| shared.as_ref().is_some_and(|(ports, _)| ports.contains(port)))
    }

    /// Any free port. As with addresses, the lowest are left for those who choose (KEP-3668).
    pub fn any_port(&self) -> Result<u16, AllocationError> {
        let (first, last) = (*self.network.node_ports.start(), *self.network.node_ports.end());
        let span = u32::from(last - first) + 1;
        let reserved = if span <= 16 { 0 } else { (span / 32).clamp(16, 128) };
        let seed = random() as u32 % (span - reserved);
        let upper = (0..span - reserved).map(|n| reserved + (seed + n) % (span - reserved));
        let booked = self.is_booked()?;
        let mut taken = self.lock();
        let found = upper
            .chain(0..reserved)
            .map(|offset| first + offset as u16)
            .find(|port| !booked(*port) && taken.ports.insert(*port));
        found.ok_or(AllocationError::Full)
    }

    pub fn this_port(&self, port: u16) -> Result<(), AllocationError> {
        if !self.network.node_ports.contains(&port) {
            let range = &self.network.node_ports;
            return Err(AllocationError::PortOutside(*range.start(), *range.end()));
        }
        let booked = self.is_booked()?;
        let fresh = !booked(port) && self.lock().ports.insert(port);
        if fresh { Ok(()) } else { Err(AllocationError::PortTaken) }
    }

    /// Lets go in memory.
    fn forget(&self, claims: &[Claim]) {
        let mut taken = self.lock();
        for claim in claims {
            match claim.what {
                What::Address(ip) => drop(taken.addresses.remove(&ip)),
                What::Port(port) => drop(taken.ports.remove(&port)),
            }
        }
    }
}

/// One address or one port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Address(IpAddr),
    Port(u16),
}

/// Something that was given out to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    pub what: What,
    /// The server chose it: another one would do.
    pub chosen: bool,
}

/// Addresses and node ports of a Service. One port may serve several protocols of one Service.
pub fn held(service: &Value) -> (HashSet<IpAddr>, HashSet<u16>) {
    let spec = &service["spec"];
    let ips = spec["clusterIPs"].as_array().into_iter().flatten().chain(Some(&spec["clusterIP"]));
    let addresses = ips.filter_map(|ip| ip.as_str()?.parse().ok()).collect();
    let ports = validation::items(spec, "ports").map(|port| &port["nodePort"]);
    let ports = ports.chain(Some(&spec["healthCheckNodePort"]));
    let number = |port: &Value| u16::try_from(port.as_u64()?).ok().filter(|n| *n != 0);
    (addresses, ports.filter_map(number).collect())
}
