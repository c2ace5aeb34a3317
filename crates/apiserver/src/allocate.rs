//! Allocation of cluster IPs and node ports.
//!
//! What is taken follows from the stored Services: it is rebuilt from them at start, so a crash
//! between allocation and write leaks nothing.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use store::{Collection, Store};

/// Default `--service-node-port-range`.
pub const NODE_PORTS: RangeInclusive<u16> = 30000..=32767;

/// The addresses Services get.
#[derive(Debug, Clone)]
pub struct ServiceNetwork {
    /// Network address and prefix length; one a family, the first is the default.
    pub ranges: Vec<(IpAddr, u8)>,
    pub node_ports: RangeInclusive<u16>,
}

impl ServiceNetwork {
    /// Parses `--service-cluster-ip-range`: one or two CIDRs, comma-separated.
    pub fn parse(text: &str) -> Result<ServiceNetwork, String> {
        let ranges: Result<Vec<_>, String> = text.split(',').map(parse_cidr).collect();
        Ok(ServiceNetwork { ranges: ranges?, node_ports: NODE_PORTS })
    }

    /// The first address of the first range: the `kubernetes` Service's.
    pub fn api_server_ip(&self) -> IpAddr {
        nth(self.ranges[0].0, 1)
    }

    /// The range of a family, if there is one.
    fn range(&self, v6: bool) -> Option<(IpAddr, u8)> {
        self.ranges.iter().copied().find(|(ip, _)| ip.is_ipv6() == v6)
    }
}

fn parse_cidr(text: &str) -> Result<(IpAddr, u8), String> {
    let invalid = || format!("invalid CIDR address: {text}");
    let (ip, bits) = text.trim().split_once('/').ok_or_else(invalid)?;
    let ip: IpAddr = ip.parse().map_err(|_| invalid())?;
    let bits: u8 = bits.parse().map_err(|_| invalid())?;
    let width = if ip.is_ipv4() { 32 } else { 128 };
    if bits >= width - 1 {
        return Err(format!("{text}: a range for Services needs at least four addresses"));
    }
    Ok((nth_masked(ip, bits), bits))
}

fn nth_masked(ip: IpAddr, bits: u8) -> IpAddr {
    match ip {
        IpAddr::V4(v4) => Ipv4Addr::from(u32::from(v4) & (u32::MAX << (32 - bits))).into(),
        IpAddr::V6(v6) => Ipv6Addr::from(u128::from(v6) & (u128::MAX << (128 - bits))).into(),
    }
}

fn nth(base: IpAddr, n: u128) -> IpAddr {
    match base {
        IpAddr::V4(v4) => Ipv4Addr::from(u32::from(v4).wrapping_add(n as u32)).into(),
        IpAddr::V6(v6) => Ipv6Addr::from(u128::from(v6).wrapping_add(n)).into(),
    }
}

fn contains((base, bits): (IpAddr, u8), ip: IpAddr) -> bool {
    base.is_ipv4() == ip.is_ipv4() && nth_masked(ip, bits) == base
}

/// Marks IPAddress objects that say what Services hold.
pub(crate) const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
pub(crate) const MANAGER: &str = "ipallocator.k8s.io";

/// Why an address or port could not be had; the sentence for the field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AllocationError {
    #[error("range is full")]
    Full,
    #[error("provided IP is already allocated")]
    IpTaken,
    #[error("the provided IP ({0}) is not in the valid range. The range of valid IPs is {1}")]
    IpOutside(IpAddr, String),
    #[error("provided port is already allocated")]
    PortTaken,
    #[error("provided port is not in the valid range. The range of valid ports is {0}-{1}")]
    PortOutside(u16, u16),
    #[error("no range of this IP family is configured")]
    NoFamily,
}

#[derive(Debug, Default)]
struct Taken {
    addresses: HashSet<IpAddr>,
    ports: HashSet<(u16, String)>,
    /// Where the next search starts: addresses are not handed out again at once.
    cursor: u128,
}

/// What is taken now.
#[derive(Debug)]
pub(crate) struct Allocators {
    network: ServiceNetwork,
    /// IPAddress objects: what others have set aside.
    published: Option<Arc<Collection>>,
    taken: Mutex<Taken>,
}

impl Allocators {
    pub(crate) fn new(network: &ServiceNetwork, store: &Store) -> Allocators {
        let mut taken = Taken::default();
        let services = store.collection("/registry/services/specs/");
        let all = services.and_then(|c| c.list("", None, 0, usize::MAX, &|_| true).ok());
        for service in all.iter().flat_map(|page| &page.objects) {
            let (addresses, ports) = held(&service.to_value());
            taken.addresses.extend(addresses);
            taken.ports.extend(ports);
        }
        taken.addresses.insert(network.api_server_ip());
        let published = store.collection("/registry/ipaddresses/");
        Allocators { network: network.clone(), published, taken: Mutex::new(taken) }
    }

    pub(crate) fn network(&self) -> &ServiceNetwork {
        &self.network
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether somebody other than this server keeps the address.
    fn is_set_aside(&self, ip: IpAddr) -> bool {
        let object = self.published.as_ref().and_then(|all| all.get(&ip.to_string()));
        object.is_some_and(|object| object.meta().label(MANAGED_BY) != Some(MANAGER))
    }

    /// Any free address of the family. The lowest part of a range is left for those who choose
    /// (KEP-3070).
    pub(crate) fn any_ip(&self, v6: bool) -> Result<IpAddr, AllocationError> {
        let (base, bits) = self.network.range(v6).ok_or(AllocationError::NoFamily)?;
        let width = if v6 { 128 } else { 32 };
        let size: u128 = 1 << (width - u32::from(bits)).min(20);
        let reserved = (size / 16).clamp(16, 256).min(size / 2);
        let mut taken = self.lock();
        let upper = size - reserved - 1;
        for step in 0..upper {
            let offset = reserved + (taken.cursor + step) % upper;
            let ip = nth(base, offset);
            if !self.is_set_aside(ip) && taken.addresses.insert(ip) {
                taken.cursor = (taken.cursor + step + 1) % upper;
                return Ok(ip);
            }
        }
        let lower = (1..reserved)
            .map(|n| nth(base, n))
            .find(|ip| !taken.addresses.contains(ip) && !self.is_set_aside(*ip));
        let ip = lower.ok_or(AllocationError::Full)?;
        taken.addresses.insert(ip);
        Ok(ip)
    }

    pub(crate) fn this_ip(&self, ip: IpAddr) -> Result<(), AllocationError> {
        let range = self.network.range(ip.is_ipv6()).ok_or(AllocationError::NoFamily)?;
        if !contains(range, ip) {
            return Err(AllocationError::IpOutside(ip, format!("{}/{}", range.0, range.1)));
        }
        if !self.is_set_aside(ip) && self.lock().addresses.insert(ip) {
            Ok(())
        } else {
            Err(AllocationError::IpTaken)
        }
    }

    pub(crate) fn any_port(&self, protocol: &str) -> Result<u16, AllocationError> {
        let mut taken = self.lock();
        let (first, last) = (*self.network.node_ports.start(), *self.network.node_ports.end());
        // As with addresses, the lowest 86 of the default range are left for those who choose.
        let span = u64::from(last - first) + 1;
        let seed = u64::from(uuid::Uuid::new_v4().as_fields().0);
        let found = (0..span)
            .map(|n| first + ((seed + n) % span) as u16)
            .find(|port| !taken.ports.contains(&(*port, protocol.to_owned())));
        let port = found.ok_or(AllocationError::Full)?;
        taken.ports.insert((port, protocol.to_owned()));
        Ok(port)
    }

    pub(crate) fn this_port(&self, port: u16, protocol: &str) -> Result<(), AllocationError> {
        if !self.network.node_ports.contains(&port) {
            let range = &self.network.node_ports;
            return Err(AllocationError::PortOutside(*range.start(), *range.end()));
        }
        let fresh = self.lock().ports.insert((port, protocol.to_owned()));
        if fresh { Ok(()) } else { Err(AllocationError::PortTaken) }
    }

    /// Gives back what `service` holds and `kept` (its next state) does not.
    pub(crate) fn give_back(&self, claims: Vec<Claim>) {
        let mut taken = self.lock();
        for claim in claims {
            match claim {
                Claim::Address(ip) => drop(taken.addresses.remove(&ip)),
                Claim::Port(port) => drop(taken.ports.remove(&port)),
            }
        }
    }

    pub(crate) fn release(&self, service: &Value, kept: Option<&Value>) {
        let (addresses, ports) = held(service);
        let (kept_addresses, kept_ports) = kept.map(held).unwrap_or_default();
        let mut taken = self.lock();
        for ip in addresses.difference(&kept_addresses) {
            taken.addresses.remove(ip);
        }
        for port in ports.difference(&kept_ports) {
            taken.ports.remove(port);
        }
    }
}

/// One address or one port of one protocol that was given out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Claim {
    Address(IpAddr),
    Port((u16, String)),
}

/// Addresses and node ports of a Service.
pub(crate) fn held(service: &Value) -> (HashSet<IpAddr>, HashSet<(u16, String)>) {
    let spec = &service["spec"];
    let ips = spec["clusterIPs"].as_array().into_iter().flatten().chain(Some(&spec["clusterIP"]));
    let addresses = ips.filter_map(|ip| ip.as_str()?.parse().ok()).collect();
    let mut ports = HashSet::new();
    for port in spec["ports"].as_array().into_iter().flatten() {
        if let Some(number) = port["nodePort"].as_u64().filter(|n| *n != 0) {
            let protocol = port["protocol"].as_str().unwrap_or("TCP").to_owned();
            ports.insert((number as u16, protocol));
        }
    }
    if let Some(port) = spec["healthCheckNodePort"].as_u64().filter(|n| *n != 0) {
        ports.insert((port as u16, "TCP".into()));
    }
    (addresses, ports)
}
