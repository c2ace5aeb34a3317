//! The pods' side of a node's network: one bridge, one veth pair per pod.
//!
//! Why so: a pod gets its address with a host prefix (/32, /128) and a route to the gateway only.
//! So traffic between two pods of a node passes the node's routing and its firewall like any
//! other; an answer to a load-balanced connection is always translated back, and policy sees every
//! packet, without `br_netfilter`. The peer is created directly inside the pod's namespace, because
//! moving a link between namespaces costs 15 ms (runtime.md §6.1).
//!
//! It does not run pods, and host ports belong to the proxy's table.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;

use crate::ipam::{Ipam, IpamError};
use crate::netlink::NetlinkError;
use crate::netlink::route::{NextHop, Route, VethPair, local_mac};
use crate::netns::{NetNs, NetNsError};
use crate::sysctl::{self, SysctlError};

/// What a node's pod network is made from.
#[derive(Debug, Clone)]
pub struct PodNetworkConfig {
    /// The node's namespace; none for the host's own network.
    pub node_ns: Option<NetNs>,
    /// The node's share of the pod addresses: one range, or one of each family.
    pub pod_cidrs: Vec<IpNet>,
    /// Routed to the bridge, so that the node's own processes reach service addresses even when
    /// there is no default route. The proxy translates or refuses them before they get there.
    pub service_cidrs: Vec<IpNet>,
    /// Service addresses that the node answers itself (cluster DNS): put on the bridge.
    pub local_addresses: Vec<IpAddr>,
    /// The file that remembers who has which address.
    pub ipam_path: PathBuf,
    /// Link name of the bridge; [`DEFAULT_BRIDGE`] unless several share a namespace.
    pub bridge: String,
    /// Link MTU of the pods; none leaves the kernel's 1500.
    pub mtu: Option<u32>,
}

/// Name of the pods' bridge.
pub const DEFAULT_BRIDGE: &str = "trireme0";

/// Name of the link a pod sees.
pub const POD_LINK: &str = "eth0";

/// What a pod got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// One address per family, in the order of the pod ranges.
    pub addresses: Vec<IpAddr>,
    pub gateways: Vec<IpAddr>,
    /// Name of the pair's end in the node's namespace.
    pub host_link: String,
}

#[derive(Debug, thiserror::Error)]
pub enum PodNetworkError {
    #[error(transparent)]
    Ipam(#[from] IpamError),
    #[error("set up the pod bridge: {0}")]
    Bridge(#[source] NetlinkError),
    #[error("the pod bridge {0} vanished")]
    NoBridge(String),
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
    #[error("open the namespace of pod {id}: {source}")]
    OpenPod { id: String, source: NetNsError },
    #[error("connect pod {id}: {source}")]
    Attach { id: String, source: ConnectError },
    #[error("disconnect pod {id}: {source}")]
    Detach { id: String, source: NetlinkError },
}

/// Which part of connecting a pod failed.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
}

/// A node's pod network. Methods block for about a millisecond; they may be called from any thread.
#[derive(Debug)]
pub struct PodNetwork {
    config: PodNetworkConfig,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    ipam: Ipam,
    route: Route,
    bridge: u32,
}

impl PodNetwork {
    /// Makes the bridge, its addresses, routes and switches, or takes over those that are there.
    pub fn new(config: PodNetworkConfig) -> Result<Self, PodNetworkError> {
        let ipam = Ipam::open(&config.ipam_path, &config.pod_cidrs)?;
        let ns = config.node_ns.as_ref();
        let mut route = Route::open(ns).map_err(PodNetworkError::Bridge)?;
        let bridge = ensure_bridge(&mut route, &config.bridge)?;
        sysctl::set(ns, &node_switches(&config))?;
        dress_bridge(&mut route, bridge, &config, &ipam).map_err(PodNetworkError::Bridge)?;
        Ok(PodNetwork { config, state: Mutex::new(State { ipam, route, bridge }) })
    }

    /// Connects the pod `id`, whose namespace is pinned at `netns`. Calling it again for a pod
    /// that is connected changes nothing and gives the same answer; a half-made connection (the
    /// process died) is completed.
    pub fn attach(&self, id: &str, netns: &Path) -> Result<Attachment, PodNetworkError> {
        let open = |source| PodNetworkError::OpenPod { id: id.to_owned(), source };
        let pod_ns = NetNs::open(netns).map_err(open)?;
        let mut state = self.state();
        let addresses = state.ipam.allocate(id)?;
        let attachment =
            Attachment { gateways: state.ipam.gateways(), host_link: link_name(id), addresses };
        match self.connect(&mut state, &attachment, &pod_ns) {
            Ok(()) => Ok(attachment),
            Err(source) => {
                drop(state);
                self.detach(id)?;
                Err(PodNetworkError::Attach { id: id.to_owned(), source })
            }
        }
    }

    /// Removes the pod's link and gives its addresses back. Success when there is nothing.
    pub fn detach(&self, id: &str) -> Result<(), PodNetworkError> {
        let mut state = self.state();
        let fail = |source| PodNetworkError::Detach { id: id.to_owned(), source };
        // First the link, then the address: the other order could give the address to two links.
        state.route.delete_link(&link_name(id)).map_err(fail)?;
        state.ipam.release(id)?;
        Ok(())
    }

    /// The addresses the pod has.
    pub fn addresses(&self, id: &str) -> Option<Vec<IpAddr>> {
        self.state().ipam.get(id)
    }

    /// Every pod that has addresses: after a restart, what is not running any more is detached.
    pub fn ids(&self) -> Vec<String> {
        self.state().ipam.ids().map(str::to_owned).collect()
    }

    /// The bridge's own addresses.
    pub fn gateways(&self) -> Vec<IpAddr> {
        self.state().ipam.gateways()
    }

    pub fn config(&self) -> &PodNetworkConfig {
        &self.config
    }

    /// Removes the bridge and with it every route through it. Pods' links stay until detached.
    pub fn remove(self) -> Result<(), PodNetworkError> {
        let bridge = self.config.bridge.clone();
        self.state().route.delete_link(&bridge).map_err(PodNetworkError::Bridge)
    }

    fn connect(
        &self,
        state: &mut State,
        attachment: &Attachment,
        pod_ns: &NetNs,
    ) -> Result<(), ConnectError> {
        let mut inside = Route::open(Some(pod_ns))?;
        if inside.link(POD_LINK)?.is_none() || state.route.link(&attachment.host_link)?.is_none() {
            state.route.delete_link(&attachment.host_link)?;
            state.route.add_veth(&VethPair {
                name: &attachment.host_link,
                peer: POD_LINK,
                peer_ns: Some(pod_ns),
                mtu: self.config.mtu,
            })?;
        }
        state.route.enslave(&attachment.host_link, state.bridge)?;
        state.route.set_hairpin(&attachment.host_link)?;
        if attachment.addresses.iter().any(IpAddr::is_ipv6) {
            // IPv6 must work at once: the addresses are ours to give, so nobody else has them.
            let switch = (format!("ipv6/conf/{POD_LINK}/accept_dad"), "0");
            sysctl::set(Some(pod_ns), &[switch])?;
        }
        configure_inside(&mut inside, attachment)?;
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each step leaves the state usable, so a panic elsewhere does not make it less so.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sets up the pod's end: loopback, address, and a route to the gateway alone.
fn configure_inside(inside: &mut Route, attachment: &Attachment) -> Result<(), NetlinkError> {
    inside.set_up(LOOPBACK_INDEX)?;
    let link = inside.link(POD_LINK)?.ok_or_else(|| NetlinkError::Malformed("no eth0".into()))?;
    for address in &attachment.addresses {
        inside.add_address(link.index, IpNet::from(*address))?;
    }
    inside.set_up(link.index)?;
    for gateway in &attachment.gateways {
        let direct = NextHop { link: Some(link.index), ..NextHop::default() };
        inside.set_route(IpNet::from(*gateway), direct)?;
        let via = NextHop {
            gateway: Some(*gateway),
            link: Some(link.index),
            on_link: true,
            source: None,
        };
        inside.set_route(default_net(*gateway), via)?;
    }
    Ok(())
}

fn ensure_bridge(route: &mut Route, name: &str) -> Result<u32, PodNetworkError> {
    if let Some(link) = route.link(name).map_err(PodNetworkError::Bridge)? {
        return Ok(link.index);
    }
    route.add_bridge(name, local_mac(name)).map_err(PodNetworkError::Bridge)?;
    let link = route.link(name).map_err(PodNetworkError::Bridge)?;
    link.map(|link| link.index).ok_or_else(|| PodNetworkError::NoBridge(name.to_owned()))
}

fn dress_bridge(
    route: &mut Route,
    bridge: u32,
    config: &PodNetworkConfig,
    ipam: &Ipam,
) -> Result<(), NetlinkError> {
    for (gateway, range) in ipam.gateways().into_iter().zip(ipam.ranges()) {
        let address = IpNet::new(gateway, range.prefix_len()).unwrap_or(IpNet::from(gateway));
        route.add_address(bridge, address)?;
    }
    for address in &config.local_addresses {
        route.add_address(bridge, IpNet::from(*address))?;
    }
    route.set_up(bridge)?;
    for cidr in &config.service_cidrs {
        // Local senders use the gateway's address: it is a pod address, so answers find the way
        // back from every node without masquerading.
        let source = ipam.gateways().into_iter().find(|ip| ip.is_ipv4() == cidr.addr().is_ipv4());
        let via = NextHop { link: Some(bridge), source, ..NextHop::default() };
        route.set_route(*cidr, via)?;
    }
    Ok(())
}

/// What the node's kernel must do: forward, never tell pods to bypass the gateway, and accept
/// host ports on 127.0.0.1 (the proxy's table drops loopback addresses that come from outside).
fn node_switches(config: &PodNetworkConfig) -> Vec<(String, &'static str)> {
    let bridge = &config.bridge;
    let mut switches = vec![
        ("ipv4/ip_forward".to_owned(), "1"),
        (format!("ipv4/conf/{bridge}/send_redirects"), "0"),
        ("ipv4/conf/all/send_redirects".to_owned(), "0"),
        (format!("ipv4/conf/{bridge}/route_localnet"), "1"),
        (format!("ipv4/conf/{bridge}/rp_filter"), "2"),
    ];
    if config.pod_cidrs.iter().any(|cidr| cidr.addr().is_ipv6()) {
        switches.push(("ipv6/conf/all/forwarding".to_owned(), "1"));
        switches.push((format!("ipv6/conf/{bridge}/accept_dad"), "0"));
    }
    switches
}

/// The name of a pod's link on the node: short enough for the kernel, the same after a restart.
pub fn link_name(id: &str) -> String {
    // FNV-1a, 64 bits; 13 base-32 digits would be too long together with the prefix, so 12 hex
    // digits: two of 1,024 pods (a bridge has no more ports) meet with a chance of 2 in 10^9.
    let hash = id.bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("tv{:012x}", hash & 0xffff_ffff_ffff)
}

/// The destination "everything" of the family of `like`.
pub(crate) fn default_net(like: IpAddr) -> IpNet {
    match like {
        IpAddr::V4(_) => IpNet::V4(ipnet::Ipv4Net::default()),
        IpAddr::V6(_) => IpNet::V6(ipnet::Ipv6Net::default()),
    }
}

/// The kernel gives `lo` index 1 in every namespace.
const LOOPBACK_INDEX: u32 = 1;
