//! Stale UDP connections: the kernel would keep sending a client's datagrams to an endpoint that is
//! gone for as long as the client keeps sending.
//!
//! Only entries towards a changed service whose answering side is not a serving endpoint are
//! removed; every other flow stays (the rule of pkg/proxy/conntrack in upstream).

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};

use network::NetNs;
use network::netlink::msg::{Writer, attribute, be_u16};
use network::netlink::{NetlinkError, Socket};

use crate::fragment::UdpFlows;

/// A UDP connection as the kernel remembers it.
#[derive(Debug, Clone)]
pub struct Flow {
    /// Where the client sent to.
    pub destination: SocketAddr,
    /// Who answers.
    pub answering: SocketAddr,
    v6: bool,
    tuple: Vec<u8>,
    id: Vec<u8>,
}

/// The kernel's table of connections, in one namespace.
#[derive(Debug)]
pub struct Conntrack {
    socket: Socket,
}

const SUBSYSTEM: u16 = 1;
const GET: u16 = 1;
const DELETE: u16 = 2;
const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const DUMP: u16 = 0x300;
const UDP: u8 = 17;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ID: u16 = 12;
/// Bytes of `nfgenmsg`.
const HEADER_BYTES: usize = 4;

impl Conntrack {
    pub fn open(ns: Option<&NetNs>) -> Result<Self, NetlinkError> {
        Ok(Conntrack { socket: Socket::open(libc::NETLINK_NETFILTER, ns)? })
    }

    /// Every UDP connection, both families.
    pub fn udp_flows(&mut self) -> Result<Vec<Flow>, NetlinkError> {
        let mut flows = Vec::new();
        for v6 in [false, true] {
            let sequence = self.socket.next_sequence();
            let mut writer = Writer::default();
            let kind = SUBSYSTEM << 8 | GET;
            let open = writer.netfilter(kind, REQUEST | DUMP, sequence, family(v6), 0);
            writer.end(open);
            let what = || "list connections".to_owned();
            self.socket.exchange(writer.bytes(), sequence, &what, |message| {
                let body = message.payload.get(HEADER_BYTES..).unwrap_or_default();
                flows.extend(parse(body, v6));
            })?;
        }
        Ok(flows)
    }

    /// Removes one connection; success when it has ended by itself.
    pub fn delete(&mut self, flow: &Flow) -> Result<(), NetlinkError> {
        let sequence = self.socket.next_sequence();
        let mut writer = Writer::default();
        let kind = SUBSYSTEM << 8 | DELETE;
        let open = writer.netfilter(kind, REQUEST | ACK, sequence, family(flow.v6), 0);
        // 0x8000: the tuple is a nest, its bytes are those the kernel gave us.
        writer.attr(TUPLE_ORIGINAL | 0x8000, &flow.tuple);
        writer.attr(ID, &flow.id);
        writer.end(open);
        let what = || format!("remove the connection to {}", flow.destination);
        match self.socket.exchange(writer.bytes(), sequence, &what, |_| {}) {
            Err(e) if e.errno() == Some(libc::ENOENT) => Ok(()),
            other => other,
        }
    }

    /// Removes the connections that `services` no longer serve; says how many.
    pub fn repair(
        &mut self,
        services: &[UdpFlows],
        node_ips: &[IpAddr],
    ) -> Result<usize, NetlinkError> {
        if services.iter().all(|service| service.serving.is_empty()) {
            return Ok(0);
        }
        let flows = self.udp_flows()?;
        let stale = stale(services, node_ips, &flows);
        for flow in &stale {
            self.delete(flow)?;
        }
        Ok(stale.len())
    }
}

/// The flows to a service (by address or node port) that nobody of it answers. Pure.
pub fn stale<'f>(services: &[UdpFlows], node_ips: &[IpAddr], flows: &'f [Flow]) -> Vec<&'f Flow> {
    let mut serving: HashMap<SocketAddr, &BTreeSet<SocketAddr>> = HashMap::new();
    // A service without endpoints answers nobody: there is no better place for its flows.
    for service in services.iter().filter(|service| !service.serving.is_empty()) {
        let nodes = service
            .node_port
            .into_iter()
            .flat_map(|port| node_ips.iter().map(move |ip| SocketAddr::new(*ip, port)));
        for at in service.addresses.iter().copied().chain(nodes) {
            let same_family = service.serving.iter().any(|e| e.is_ipv6() == at.is_ipv6());
            if same_family {
                serving.insert(at, &service.serving);
            }
        }
    }
    let is_stale = |flow: &&Flow| {
        serving.get(&flow.destination).is_some_and(|all| !all.contains(&flow.answering))
    };
    flows.iter().filter(is_stale).collect()
}

fn parse(body: &[u8], v6: bool) -> Option<Flow> {
    let original = attribute(body, TUPLE_ORIGINAL)?;
    let reply = attribute(body, TUPLE_REPLY)?;
    Some(Flow {
        destination: endpoint(original, v6, false)?,
        answering: endpoint(reply, v6, true)?,
        v6,
        tuple: original.to_vec(),
        id: attribute(body, ID)?.to_vec(),
    })
}

/// Source or destination of a UDP tuple.
fn endpoint(tuple: &[u8], v6: bool, source: bool) -> Option<SocketAddr> {
    let (ip, protocol) = (attribute(tuple, 1)?, attribute(tuple, 2)?);
    if attribute(protocol, 1)? != [UDP] {
        return None;
    }
    let port = be_u16(attribute(protocol, if source { 2 } else { 3 })?)?;
    let kind = match (v6, source) {
        (false, true) => 1,
        (false, false) => 2,
        (true, true) => 3,
        (true, false) => 4,
    };
    let bytes = attribute(ip, kind)?;
    let address = match v6 {
        false => IpAddr::from(*bytes.first_chunk::<4>()?),
        true => IpAddr::from(*bytes.first_chunk::<16>()?),
    };
    Some(SocketAddr::new(address, port))
}

fn family(v6: bool) -> u8 {
    u8::try_from(if v6 { libc::AF_INET6 } else { libc::AF_INET }).unwrap_or(0)
}
