//! Links, addresses and routes: the dozen requests the pod network needs, typed.
//!
//! Each method is one exchange. "Already there" and "already gone" are success wherever the method
//! says so, because the callers are idempotent. It decides nothing about who gets which address.

use std::net::IpAddr;
use std::os::fd::AsRawFd;

use ipnet::IpNet;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{
    InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, LinkAttribute,
    LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
    RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{NetlinkError, Socket};
use crate::netns::NetNs;

/// A routing socket of one namespace.
#[derive(Debug)]
pub struct Route {
    socket: Socket,
}

/// A link as far as we look at it.
#[derive(Debug, Clone)]
pub struct Link {
    pub index: u32,
    pub name: String,
    pub mac: Vec<u8>,
    pub controller: Option<u32>,
    pub up: bool,
}

/// A pair of virtual Ethernet links, the second end born in another namespace.
#[derive(Debug)]
pub struct VethPair<'a> {
    pub name: &'a str,
    pub peer: &'a str,
    pub peer_ns: Option<&'a NetNs>,
    pub mtu: Option<u32>,
}

/// Where a route leads.
#[derive(Debug, Clone, Copy, Default)]
pub struct NextHop {
    pub gateway: Option<IpAddr>,
    pub link: Option<u32>,
    /// The gateway is reachable on the link although no address says so.
    pub on_link: bool,
    /// Address that local senders use.
    pub source: Option<IpAddr>,
}

impl Route {
    pub fn open(ns: Option<&NetNs>) -> Result<Self, NetlinkError> {
        Ok(Route { socket: Socket::open(libc::NETLINK_ROUTE, ns)? })
    }

    /// The link called `name`, if there is one.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>, NetlinkError> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        let mut found = None;
        let request = RouteNetlinkMessage::GetLink(message);
        let answer = self.ask(request, NLM_F_ACK, &|| format!("look up link {name}"), |message| {
            if let RouteNetlinkMessage::NewLink(link) = message {
                found = Some(describe(&link));
            }
        });
        match answer {
            Err(e) if e.errno() == Some(libc::ENODEV) => Ok(None),
            Err(e) => Err(e),
            Ok(()) => Ok(found),
        }
    }

    /// Every link of the namespace.
    pub fn links(&mut self) -> Result<Vec<Link>, NetlinkError> {
        let mut found = Vec::new();
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        self.ask(request, NLM_F_DUMP, &|| "list links".into(), |message| {
            if let RouteNetlinkMessage::NewLink(link) = message {
                found.push(describe(&link));
            }
        })?;
        Ok(found)
    }

    /// Creates the bridge `name` with a hardware address of its own: one taken from the ports
    /// would change with them, and pods would keep the old one as their gateway's.
    pub fn add_bridge(&mut self, name: &str, mac: [u8; 6]) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::Address(mac.to_vec()),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]),
        ];
        let request = RouteNetlinkMessage::NewLink(message);
        self.tell(request, NLM_F_CREATE | NLM_F_EXCL, &|| format!("create bridge {name}"))
    }

    /// Creates both ends of a pair. The peer cannot be born up: the caller does that inside.
    pub fn add_veth(&mut self, pair: &VethPair<'_>) -> Result<(), NetlinkError> {
        let mut peer = LinkMessage::default();
        peer.attributes.push(LinkAttribute::IfName(pair.peer.to_owned()));
        if let Some(ns) = pair.peer_ns {
            peer.attributes.push(LinkAttribute::NetNsFd(ns.as_fd().as_raw_fd()));
        }
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(pair.name.to_owned()));
        if let Some(mtu) = pair.mtu {
            peer.attributes.push(LinkAttribute::Mtu(mtu));
            message.attributes.push(LinkAttribute::Mtu(mtu));
        }
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        let what = || format!("create the veth pair {} and {}", pair.name, pair.peer);
        self.tell(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL, &what)
    }

    /// Removes the link called `name`; success when there is none.
    pub fn delete_link(&mut self, name: &str) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        let request = RouteNetlinkMessage::DelLink(message);
        match self.tell(request, 0, &|| format!("delete link {name}")) {
            Err(e) if e.errno() == Some(libc::ENODEV) => Ok(()),
            other => other,
        }
    }

    pub fn set_up(&mut self, index: u32) -> Result<(), NetlinkError> {
        let message = up_message(index);
        let request = RouteNetlinkMessage::SetLink(message);
        self.tell(request, 0, &|| format!("bring link {index} up"))
    }

    /// Makes the link called `name` a port of bridge `bridge` and brings it up.
    pub fn enslave(&mut self, name: &str, bridge: u32) -> Result<(), NetlinkError> {
        let mut message = up_message(0);
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        message.attributes.push(LinkAttribute::Controller(bridge));
        let request = RouteNetlinkMessage::SetLink(message);
        self.tell(request, 0, &|| format!("make link {name} a port of bridge {bridge}"))
    }

    /// Lets the bridge send a packet back out of the port it came in by (a pod that reaches itself
    /// through its service).
    pub fn set_hairpin(&mut self, name: &str) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(InfoPortData::BridgePort(vec![InfoBridgePort::HairpinMode(true)])),
        ]));
        let request = RouteNetlinkMessage::NewLink(message);
        self.tell(request, 0, &|| format!("set hairpin mode on {name}"))
    }

    /// Gives the link an address; success when it has it. No duplicate address detection.
    pub fn add_address(&mut self, index: u32, address: IpNet) -> Result<(), NetlinkError> {
        let mut message = AddressMessage::default();
        message.header.family = family(address.addr());
        message.header.prefix_len = address.prefix_len();
        message.header.index = index;
        message.attributes.push(AddressAttribute::Local(address.addr()));
        message.attributes.push(AddressAttribute::Address(address.addr()));
        if address.addr().is_ipv6() {
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        let request = RouteNetlinkMessage::NewAddress(message);
        let what = || format!("give link {index} the address {address}");
        self.tell(request, NLM_F_CREATE | NLM_F_REPLACE, &what)
    }

    /// Takes the address away; success when the link does not have it.
    pub fn delete_address(&mut self, index: u32, address: IpNet) -> Result<(), NetlinkError> {
        let mut message = AddressMessage::default();
        message.header.family = family(address.addr());
        message.header.prefix_len = address.prefix_len();
        message.header.index = index;
        message.attributes.push(AddressAttribute::Local(address.addr()));
        let request = RouteNetlinkMessage::DelAddress(message);
        match self.tell(request, 0, &|| format!("take {address} from link {index}")) {
            Err(e) if e.errno() == Some(libc::EADDRNOTAVAIL) => Ok(()),
            other => other,
        }
    }

    /// Addresses of the namespace, as (link index, address).
    pub fn addresses(&mut self) -> Result<Vec<(u32, IpNet)>, NetlinkError> {
        let mut found = Vec::new();
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        self.ask(request, NLM_F_DUMP, &|| "list addresses".into(), |message| {
            if let RouteNetlinkMessage::NewAddress(address) = message {
                found.extend(describe_address(&address));
            }
        })?;
        Ok(found)
    }

    /// Sets the route to `to`, replacing one with the same destination.
    pub fn set_route(&mut self, to: IpNet, via: NextHop) -> Result<(), NetlinkError> {
        let request = RouteNetlinkMessage::NewRoute(route_message(to, via));
        let what = || format!("set the route to {to}");
        self.tell(request, NLM_F_CREATE | NLM_F_REPLACE, &what)
    }

    /// Removes the route to `to`; success when there is none.
    pub fn delete_route(&mut self, to: IpNet) -> Result<(), NetlinkError> {
        let mut message = route_message(to, NextHop::default());
        message.header.scope = RouteScope::NoWhere;
        message.header.protocol = RouteProtocol::Unspec;
        message.header.kind = RouteType::Unspec;
        let request = RouteNetlinkMessage::DelRoute(message);
        match self.tell(request, 0, &|| format!("delete the route to {to}")) {
            Err(e) if e.errno() == Some(libc::ESRCH) => Ok(()),
            other => other,
        }
    }

    /// Adds a route that refuses packets to `to` (`EHOSTUNREACH`), beside others of another metric.
    pub fn add_unreachable(&mut self, to: IpNet, metric: u32) -> Result<(), NetlinkError> {
        let request = RouteNetlinkMessage::NewRoute(unreachable(to, metric));
        let what = || format!("make {to} unreachable");
        self.tell(request, NLM_F_CREATE | NLM_F_REPLACE, &what)
    }

    /// Removes the route of [`Route::add_unreachable`]; success when there is none.
    pub fn delete_unreachable(&mut self, to: IpNet, metric: u32) -> Result<(), NetlinkError> {
        let request = RouteNetlinkMessage::DelRoute(unreachable(to, metric));
        match self.tell(request, 0, &|| format!("make {to} reachable")) {
            Err(e) if e.errno() == Some(libc::ESRCH) => Ok(()),
            other => other,
        }
    }

    /// Destinations of the IPv4 routes of the main table that lead somewhere.
    pub fn destinations(&mut self) -> Result<Vec<IpNet>, NetlinkError> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        let mut found = Vec::new();
        let request = RouteNetlinkMessage::GetRoute(message);
        self.ask(request, NLM_F_DUMP, &|| "list routes".into(), |message| {
            if let RouteNetlinkMessage::NewRoute(route) = message
                && route.header.table == RouteHeader::RT_TABLE_MAIN
                && route.header.kind == RouteType::Unicast
            {
                found.extend(destination(&route));
            }
        })?;
        Ok(found)
    }

    /// Whether the main table has a default route of the family of `like`.
    pub fn has_default_route(&mut self, like: IpAddr) -> Result<bool, NetlinkError> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(like);
        let mut found = false;
        let request = RouteNetlinkMessage::GetRoute(message);
        self.ask(request, NLM_F_DUMP, &|| "list routes".into(), |message| {
            if let RouteNetlinkMessage::NewRoute(route) = message {
                found |= route.header.destination_prefix_length == 0
                    && route.header.table == RouteHeader::RT_TABLE_MAIN
                    && route.header.kind == RouteType::Unicast;
            }
        })?;
        Ok(found)
    }

    fn tell(
        &mut self,
        request: RouteNetlinkMessage,
        flags: u16,
        what: &dyn Fn() -> String,
    ) -> Result<(), NetlinkError> {
        self.ask(request, flags | NLM_F_ACK, what, |_| {})
    }

    fn ask(
        &mut self,
        request: RouteNetlinkMessage,
        flags: u16,
        what: &dyn Fn() -> String,
        mut each: impl FnMut(RouteNetlinkMessage),
    ) -> Result<(), NetlinkError> {
        let sequence = self.socket.next_sequence();
        let mut message = NetlinkMessage::from(request);
        message.header.flags = NLM_F_REQUEST | flags;
        message.header.sequence_number = sequence;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        let mut broken = None;
        self.socket.exchange(&bytes, sequence, what, |received| {
            match NetlinkMessage::<RouteNetlinkMessage>::deserialize(received.whole()) {
                Ok(NetlinkMessage { payload: NetlinkPayload::InnerMessage(inner), .. }) => {
                    each(inner);
                }
                Ok(_) => {}
                Err(e) => broken = Some(e.to_string()),
            }
        })?;
        broken.map_or(Ok(()), |text| Err(NetlinkError::Malformed(text)))
    }
}

/// A random, locally administered hardware address derived from `seed`.
pub fn local_mac(seed: &str) -> [u8; 6] {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let mut hasher = RandomState::new().build_hasher();
    hasher.write(seed.as_bytes());
    let [a, b, c, d, e, ..] = hasher.finish().to_ne_bytes();
    // First byte: unicast, locally administered.
    [0x02, a, b, c, d, e]
}

fn up_message(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message
}

fn route_message(to: IpNet, via: NextHop) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(to.addr());
    message.header.destination_prefix_length = to.prefix_len();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.kind = RouteType::Unicast;
    let direct = via.gateway.is_none() && via.link.is_some() && to.addr().is_ipv4();
    message.header.scope = if direct { RouteScope::Link } else { RouteScope::Universe };
    if via.on_link {
        message.header.flags |= RouteFlags::Onlink;
    }
    if to.prefix_len() > 0 {
        message.attributes.push(RouteAttribute::Destination(to.network().into()));
    }
    message.attributes.extend(via.gateway.map(|gateway| RouteAttribute::Gateway(gateway.into())));
    message.attributes.extend(via.link.map(RouteAttribute::Oif));
    message.attributes.extend(via.source.map(|source| RouteAttribute::PrefSource(source.into())));
    message
}

fn unreachable(to: IpNet, metric: u32) -> RouteMessage {
    let mut message = route_message(to, NextHop::default());
    message.header.kind = RouteType::Unreachable;
    message.attributes.push(RouteAttribute::Priority(metric));
    message
}

/// Where an IPv4 route leads; the default route has no attribute for it.
fn destination(route: &RouteMessage) -> Option<IpNet> {
    let address = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(*address),
        _ => None,
    });
    let address = address.unwrap_or(std::net::Ipv4Addr::UNSPECIFIED);
    IpNet::new(address.into(), route.header.destination_prefix_length).ok()
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn describe(message: &LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        mac: Vec::new(),
        controller: None,
        up: message.header.flags.contains(LinkFlags::Up),
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(mac) => link.mac.clone_from(mac),
            LinkAttribute::Controller(index) => link.controller = Some(*index),
            _ => {}
        }
    }
    link
}

fn describe_address(message: &AddressMessage) -> Option<(u32, IpNet)> {
    let found = |wanted_local: bool| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(address) if wanted_local => Some(*address),
            AddressAttribute::Address(address) if !wanted_local => Some(*address),
            _ => None,
        })
    };
    let address = found(true).or_else(|| found(false))?;
    Some((message.header.index, IpNet::new(address, message.header.prefix_len).ok()?))
}
