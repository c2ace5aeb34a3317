//! The way out of a cluster that lives in namespaces of its own: opt-in, and never silent.
//!
//! It adds to the outer network exactly one link, one address and one nf_tables table, named after
//! the cluster, and takes them away again. It changes no switch there: when the outer network does
//! not forward, or a firewall drops what is forwarded, it says so and adds nothing. Packets are
//! masqueraded twice, in the fabric and outside, so two clusters may use the same inner addresses.
//!
//! IPv4 only: most hosts have no IPv6 network to masquerade onto.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

use crate::fabric::Fabric;
use crate::netlink::NetlinkError;
use crate::netlink::route::{NextHop, Route, VethPair};
use crate::netns::NetNs;
use crate::nft::expr::R0;
use crate::nft::{BaseChain, Batch, Exprs, Family, Hook, Nft, NftError};
use crate::pod::default_net;
use crate::sysctl::{self, SysctlError};

/// How a cluster reaches the outside.
#[derive(Debug, Clone)]
pub struct EgressConfig {
    /// Name of the cluster: part of the names of what is added outside.
    pub name: String,
    /// Two addresses between outside and fabric; [`EgressConfig::new`] derives them from a number.
    pub link: Ipv4Net,
}

#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    #[error("the outer network has no default route, so there is no outside to reach")]
    NoDefaultRoute,
    #[error(
        "the outer network does not forward packets (net.ipv4.ip_forward is 0); \
         allow it with: sysctl -w net.ipv4.ip_forward=1"
    )]
    ForwardingOff,
    #[error(
        "the outer firewall drops forwarded packets (policy drop in {0}); accept those of link {1}"
    )]
    ForwardDropped(String, String),
    #[error("the link addresses {link} overlap {existing}, which the outer network uses already")]
    Overlap { link: Ipv4Net, existing: IpNet },
    #[error("the link addresses {0} must be a /30")]
    BadLink(Ipv4Net),
    #[error("not permitted to change the outer network (CAP_NET_ADMIN is missing)")]
    NotPermitted,
    #[error("connect the fabric to the outer network: {0}")]
    Connect(#[source] NetlinkError),
    #[error(transparent)]
    Firewall(#[from] NftError),
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
}

/// A way out that stands. [`EgressNat::remove`] takes it away; dropping leaves it (detached cluster).
#[derive(Debug)]
pub struct EgressNat {
    outer: Option<NetNs>,
    link: String,
    table: String,
}

/// The fabric's end of the link.
const INNER_LINK: &str = "uplink";
/// Table in the fabric's own namespace.
const INNER_TABLE: &str = "trireme-fabric";
/// After everyone else's source translation (`srcnat`).
const SOURCE_NAT: BaseChain = BaseChain { kind: "nat", hook: Hook::Postrouting, priority: 100 };

impl EgressConfig {
    /// The `number`-th (0 to 16,383) /30 of 169.254.0.0/16: link-local, so it hides no real network.
    pub fn new(name: impl Into<String>, number: u16) -> Self {
        let base = u32::from(Ipv4Addr::new(169, 254, 0, 0)) + u32::from(number % 16_384) * 4;
        EgressConfig { name: name.into(), link: Ipv4Net::new_assert(base.into(), 30) }
    }
}

impl EgressNat {
    /// Checks what is needed and, when all is well, connects. `outer` is the network to go out by;
    /// none means the network this process runs in.
    pub fn enable(
        fabric: &Fabric,
        outer: Option<&NetNs>,
        config: &EgressConfig,
    ) -> Result<Self, EgressError> {
        let this = EgressNat::of(outer, &config.name);
        this.remove_parts()?;
        this.check(config)?;
        let done = this.connect(fabric, config);
        if done.is_err() {
            this.remove_parts()?;
        }
        done.map(|()| this)
    }

    /// What a cluster of this name has outside, if anything: to be removed after its process died.
    pub fn of(outer: Option<&NetNs>, name: &str) -> Self {
        EgressNat { outer: outer.cloned(), link: link_name(name), table: format!("trireme-{name}") }
    }

    /// Takes the link and the table away. Idempotent.
    pub fn remove(self) -> Result<(), EgressError> {
        self.remove_parts()
    }

    fn check(&self, config: &EgressConfig) -> Result<(), EgressError> {
        if config.link.prefix_len() != 30 {
            return Err(EgressError::BadLink(config.link));
        }
        let outer = self.outer.as_ref();
        let mut route = Route::open(outer).map_err(EgressError::Connect)?;
        let anywhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        if !route.has_default_route(anywhere).map_err(EgressError::Connect)? {
            return Err(EgressError::NoDefaultRoute);
        }
        for (_, existing) in route.addresses().map_err(EgressError::Connect)? {
            if overlaps(config.link, existing) {
                return Err(EgressError::Overlap { link: config.link, existing });
            }
        }
        if sysctl::get(outer, "ipv4/ip_forward")? != "1" {
            return Err(EgressError::ForwardingOff);
        }
        if let Some(chain) = Nft::open(outer)?.dropping_forward_chains()?.into_iter().next() {
            return Err(EgressError::ForwardDropped(chain, self.link.clone()));
        }
        Ok(())
    }

    fn connect(&self, fabric: &Fabric, config: &EgressConfig) -> Result<(), EgressError> {
        let base = u32::from(config.link.network());
        let [outside, inside] = [1, 2].map(|number| IpAddr::V4(Ipv4Addr::from(base + number)));
        let outer = self.outer.as_ref();
        self.add_link(fabric, [outside, inside]).map_err(|e| match e.errno() {
            Some(libc::EPERM) => EgressError::NotPermitted,
            _ => EgressError::Connect(e),
        })?;
        sysctl::set(Some(fabric.ns()), &[("ipv4/ip_forward".to_owned(), "1")])?;
        masquerade(Some(fabric.ns()), INNER_TABLE, |exprs| exprs.output_link(INNER_LINK, true))?;
        let range = IpNet::V4(config.link);
        masquerade(outer, &self.table, |exprs| {
            exprs.family(false).source(false, R0).in_range(R0, &range, true)
        })?;
        Ok(())
    }

    fn add_link(
        &self,
        fabric: &Fabric,
        [outside, inside]: [IpAddr; 2],
    ) -> Result<(), NetlinkError> {
        let mut outer = Route::open(self.outer.as_ref())?;
        let mut inner = Route::open(Some(fabric.ns()))?;
        inner.delete_link(INNER_LINK)?;
        outer.add_veth(&VethPair {
            name: &self.link,
            peer: INNER_LINK,
            peer_ns: Some(fabric.ns()),
            mtu: None,
        })?;
        for (route, name, address) in
            [(&mut outer, self.link.as_str(), outside), (&mut inner, INNER_LINK, inside)]
        {
            let link = route.link(name)?;
            let link =
                link.ok_or_else(|| NetlinkError::Malformed(format!("link {name} is gone")))?;
            let net = IpNet::new(address, 30).unwrap_or(IpNet::from(address));
            route.add_address(link.index, net)?;
            route.set_up(link.index)?;
        }
        let hop = NextHop { gateway: Some(outside), ..NextHop::default() };
        inner.set_route(default_net(outside), hop)
    }

    fn remove_parts(&self) -> Result<(), EgressError> {
        let outer = self.outer.as_ref();
        let mut route = Route::open(outer).map_err(EgressError::Connect)?;
        route.delete_link(&self.link).map_err(EgressError::Connect)?;
        remove_table(outer, &self.table)?;
        Ok(())
    }
}

/// Masquerades pod traffic that leaves the cluster, in the node's namespace: the table
/// `trireme-egress`. Destinations in `cluster` (pods, services, nodes) keep their source.
pub fn masquerade_pods(
    node: Option<&NetNs>,
    pods: &[IpNet],
    cluster: &[IpNet],
) -> Result<(), NftError> {
    let mut nft = Nft::open(node)?;
    let mut batch = fresh_table(POD_TABLE);
    for range in pods {
        let v6 = range.addr().is_ipv6();
        let leaving = cluster.iter().filter(|other| other.addr().is_ipv6() == v6).fold(
            Exprs::new().family(v6).source(v6, R0).in_range(R0, range, true),
            |exprs, other| exprs.destination(v6, R0).in_range(R0, other, false),
        );
        batch.add_rule(CHAIN, &leaving.masquerade());
    }
    nft.commit(batch)
}

/// Takes [`masquerade_pods`] back. Idempotent.
pub fn stop_masquerading_pods(node: Option<&NetNs>) -> Result<(), NftError> {
    remove_table(node, POD_TABLE)
}

const POD_TABLE: &str = "trireme-egress";
const CHAIN: &str = "postrouting";

fn masquerade(
    ns: Option<&NetNs>,
    table: &str,
    which: impl FnOnce(Exprs) -> Exprs,
) -> Result<(), NftError> {
    let mut batch = fresh_table(table);
    batch.add_rule(CHAIN, &which(Exprs::new()).masquerade());
    Nft::open(ns)?.commit(batch)
}

fn fresh_table(table: &str) -> Batch {
    let mut batch = Batch::new(Family::Inet, table);
    batch.add_table();
    batch.delete_table();
    batch.add_table();
    batch.add_base_chain(CHAIN, SOURCE_NAT);
    batch
}

fn remove_table(ns: Option<&NetNs>, table: &str) -> Result<(), NftError> {
    let mut nft = Nft::open(ns)?;
    if nft.table(Family::Inet, table)?.is_some() {
        let mut batch = Batch::new(Family::Inet, table);
        batch.delete_table();
        nft.commit(batch)?;
    }
    Ok(())
}

fn overlaps(link: Ipv4Net, existing: IpNet) -> bool {
    match existing {
        IpNet::V4(net) => net.contains(&link.network()) || link.contains(&net.network()),
        IpNet::V6(_) => false,
    }
}

/// The outer end's name: "tr" and what fits of the cluster's, made unique by [`crate::pod::link_name`].
fn link_name(cluster: &str) -> String {
    crate::pod::link_name(&format!("egress {cluster}")).replacen("tv", "tr", 1)
}
