//! The wire between the nodes of one machine: a bridge in a namespace of its own.
//!
//! `up` gives every node a namespace; the fabric joins them, so the host's network gets nothing.
//! Node `i` has one link `eth0` with the fabric's address `i + 2` and routes to the other nodes'
//! pod ranges through their fabric addresses. The fabric's own address (number 1) is the nodes'
//! gateway once [`crate::egress`] has given the fabric a way out.
//!
//! It does not make the pods' bridges and does not know what a node runs.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::ipam::nth;
use crate::netlink::NetlinkError;
use crate::netlink::route::{NextHop, Route, VethPair, local_mac};
use crate::netns::{NetNs, NetNsError, PinDir};
use crate::pod::default_net;
use crate::sysctl::{self, SysctlError};

/// Addresses of a fabric.
#[derive(Debug, Clone)]
pub struct FabricConfig {
    /// Name of the fabric's pin, and of its nodes' pins as `<name>-node<i>`.
    pub name: String,
    /// The nodes' own network, one range per family; [`FabricConfig::new`] uses 10.89.0.0/24.
    pub cidrs: Vec<IpNet>,
}

/// A node on the fabric.
#[derive(Debug, Clone)]
pub struct Uplink {
    pub index: u32,
    /// The node's namespace, pinned beside the fabric's.
    pub ns: NetNs,
    /// The node's addresses on the fabric: its InternalIPs.
    pub addresses: Vec<IpAddr>,
    /// The fabric's own addresses.
    pub gateways: Vec<IpAddr>,
}

#[derive(Debug, thiserror::Error)]
pub enum FabricError {
    #[error(transparent)]
    Namespace(#[from] NetNsError),
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
    #[error("set up the fabric: {0}")]
    Bridge(#[source] NetlinkError),
    #[error("put node {index} on the fabric: {source}")]
    Node { index: u32, source: NetlinkError },
    #[error("route from node {index} to {to}: {source}")]
    Route { index: u32, to: IpNet, source: NetlinkError },
    #[error("the fabric {cidr} has no address for node {index}")]
    NoAddress { index: u32, cidr: IpNet },
    #[error("no node {0} on the fabric")]
    NoNode(u32),
    #[error("the link {0} vanished while it was set up")]
    LinkGone(String),
}

/// The fabric. Dropping it leaves everything in place (a detached cluster goes on); [`Fabric::remove`]
/// takes everything away.
#[derive(Debug)]
pub struct Fabric {
    pins: PinDir,
    config: FabricConfig,
    ns: NetNs,
    route: Route,
    bridge: u32,
    nodes: Vec<Uplink>,
}

const BRIDGE: &str = "fabric0";
const NODE_LINK: &str = "eth0";
/// Address number of node 0; 0 is the network, 1 the fabric itself.
const FIRST_NODE_NUMBER: u32 = 2;

impl FabricConfig {
    pub fn new(name: impl Into<String>) -> Self {
        let default = ipnet::Ipv4Net::new_assert([10, 89, 0, 0].into(), 24);
        FabricConfig { name: name.into(), cidrs: vec![IpNet::V4(default)] }
    }
}

impl Fabric {
    /// Makes the fabric, or takes over the one pinned under this name.
    pub fn create(pins: PinDir, config: FabricConfig) -> Result<Self, FabricError> {
        let ns = pins.open_or_create(&config.name)?;
        ns.loopback_up().map_err(FabricError::Bridge)?;
        let mut route = Route::open(Some(&ns)).map_err(FabricError::Bridge)?;
        let bridge = match route.link(BRIDGE).map_err(FabricError::Bridge)? {
            Some(link) => link.index,
            None => add_bridge(&mut route)?,
        };
        for cidr in &config.cidrs {
            let address = IpNet::new(nth(cidr, 1), cidr.prefix_len()).unwrap_or(*cidr);
            route.add_address(bridge, address).map_err(FabricError::Bridge)?;
        }
        let fabric = Fabric { pins, config, ns, route, bridge, nodes: Vec::new() };
        sysctl::set(Some(&fabric.ns), &fabric.link_switches(BRIDGE))?;
        fabric.bridge_up()
    }

    /// Puts node `index` on the fabric, in the namespace pinned as `<fabric>-node<index>`, which
    /// is made when missing. Idempotent.
    pub fn add_node(&mut self, index: u32) -> Result<Uplink, FabricError> {
        if let Some(node) = self.nodes.iter().find(|node| node.index == index) {
            return Ok(node.clone());
        }
        let ns = self.pins.open_or_create(&self.node_pin(index))?;
        let addresses = self.node_addresses(index)?;
        let gateways: Vec<_> = self.config.cidrs.iter().map(|cidr| nth(cidr, 1)).collect();
        let uplink = Uplink { index, ns, addresses, gateways };
        self.connect(&uplink)?;
        self.nodes.push(uplink.clone());
        Ok(uplink)
    }

    /// Leads each (pod range, address of the node that has it) from node `index` over the fabric.
    /// Routes to its own range are the caller's to leave out.
    pub fn set_routes(&self, index: u32, routes: &[(IpNet, IpAddr)]) -> Result<(), FabricError> {
        let node = self.node(index)?;
        for (to, via) in routes {
            let fail = |source| FabricError::Route { index, to: *to, source };
            let mut route = Route::open(Some(&node.ns)).map_err(fail)?;
            let hop = NextHop { gateway: Some(*via), ..NextHop::default() };
            route.set_route(*to, hop).map_err(fail)?;
        }
        Ok(())
    }

    /// Takes the routes to these pod ranges away from node `index`.
    pub fn delete_routes(&self, index: u32, ranges: &[IpNet]) -> Result<(), FabricError> {
        let node = self.node(index)?;
        for to in ranges {
            let fail = |source| FabricError::Route { index, to: *to, source };
            let mut route = Route::open(Some(&node.ns)).map_err(fail)?;
            route.delete_route(*to).map_err(fail)?;
        }
        Ok(())
    }

    /// Makes the fabric the default gateway of node `index` (egress is on).
    pub fn set_default_route(&self, index: u32) -> Result<(), FabricError> {
        let node = self.node(index)?;
        for gateway in &node.gateways {
            let to = default_net(*gateway);
            let fail = |source| FabricError::Route { index, to, source };
            let mut route = Route::open(Some(&node.ns)).map_err(fail)?;
            let hop = NextHop { gateway: Some(*gateway), ..NextHop::default() };
            route.set_route(to, hop).map_err(fail)?;
        }
        Ok(())
    }

    /// Takes node `index` off the fabric and removes its pin. Idempotent.
    pub fn remove_node(&mut self, index: u32) -> Result<(), FabricError> {
        self.nodes.retain(|node| node.index != index);
        self.route.delete_link(&port_name(index)).map_err(FabricError::Bridge)?;
        self.pins.remove(&self.node_pin(index))?;
        Ok(())
    }

    /// Removes everything: nodes' pins (also of nodes that an earlier process put on the fabric),
    /// links, the fabric's own pin.
    pub fn remove(mut self) -> Result<(), FabricError> {
        let prefix = format!("{}-node", self.config.name);
        for name in self.pins.names()? {
            let index = name.strip_prefix(&prefix).and_then(|index| index.parse().ok());
            if let Some(index) = index {
                self.remove_node(index)?;
            }
        }
        self.route.delete_link(BRIDGE).map_err(FabricError::Bridge)?;
        self.pins.remove(&self.config.name)?;
        Ok(())
    }

    pub fn ns(&self) -> &NetNs {
        &self.ns
    }

    pub fn config(&self) -> &FabricConfig {
        &self.config
    }

    pub fn nodes(&self) -> &[Uplink] {
        &self.nodes
    }

    fn bridge_up(mut self) -> Result<Self, FabricError> {
        self.route.set_up(self.bridge).map_err(FabricError::Bridge)?;
        Ok(self)
    }

    fn node(&self, index: u32) -> Result<&Uplink, FabricError> {
        self.nodes.iter().find(|node| node.index == index).ok_or(FabricError::NoNode(index))
    }

    fn node_pin(&self, index: u32) -> String {
        format!("{}-node{index}", self.config.name)
    }

    fn node_addresses(&self, index: u32) -> Result<Vec<IpAddr>, FabricError> {
        let number = index.saturating_add(FIRST_NODE_NUMBER);
        let address = |cidr: &IpNet| {
            let address = nth(cidr, number);
            let is_last = matches!(cidr, IpNet::V4(net) if IpAddr::V4(net.broadcast()) == address);
            let fits = cidr.contains(&address) && !is_last;
            fits.then_some(address).ok_or(FabricError::NoAddress { index, cidr: *cidr })
        };
        self.config.cidrs.iter().map(address).collect()
    }

    fn connect(&mut self, uplink: &Uplink) -> Result<(), FabricError> {
        let index = uplink.index;
        let fail = |source| FabricError::Node { index, source };
        uplink.ns.loopback_up().map_err(fail)?;
        let mut inside = Route::open(Some(&uplink.ns)).map_err(fail)?;
        let port = port_name(index);
        let there = inside.link(NODE_LINK).map_err(fail)?.is_some()
            && self.route.link(&port).map_err(fail)?.is_some();
        if !there {
            self.route.delete_link(&port).map_err(fail)?;
            let pair =
                VethPair { name: &port, peer: NODE_LINK, peer_ns: Some(&uplink.ns), mtu: None };
            self.route.add_veth(&pair).map_err(fail)?;
        }
        self.route.enslave(&port, self.bridge).map_err(fail)?;
        let link = inside.link(NODE_LINK).map_err(fail)?;
        let link = link.ok_or_else(|| FabricError::LinkGone(NODE_LINK.into()))?;
        for (address, cidr) in uplink.addresses.iter().zip(&self.config.cidrs) {
            let address = IpNet::new(*address, cidr.prefix_len()).unwrap_or(IpNet::from(*address));
            inside.add_address(link.index, address).map_err(fail)?;
        }
        sysctl::set(Some(&uplink.ns), &self.link_switches(NODE_LINK))?;
        inside.set_up(link.index).map_err(fail)?;
        Ok(())
    }

    /// Answers may come back another way than they went (through a service on another node), and
    /// IPv6 must work at once: the addresses are ours to give, so nobody else has them.
    fn link_switches(&self, link: &str) -> Vec<(String, &'static str)> {
        let mut switches = vec![(format!("ipv4/conf/{link}/rp_filter"), "2")];
        if self.config.cidrs.iter().any(|cidr| cidr.addr().is_ipv6()) {
            switches.push((format!("ipv6/conf/{link}/accept_dad"), "0"));
        }
        switches
    }
}

fn add_bridge(route: &mut Route) -> Result<u32, FabricError> {
    route.add_bridge(BRIDGE, local_mac(BRIDGE)).map_err(FabricError::Bridge)?;
    let link = route.link(BRIDGE).map_err(FabricError::Bridge)?;
    Ok(link.ok_or_else(|| FabricError::LinkGone(BRIDGE.into()))?.index)
}

fn port_name(index: u32) -> String {
    format!("node{index}")
}
