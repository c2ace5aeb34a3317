//! The rules one service (or host port) needs, as a value that can be printed, compared and encoded.
//!
//! A fragment owns its chains and affinity sets by name. Entries of the shared maps may be wanted by
//! several fragments (two services with one external address); [`crate::table`] decides then.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::model::{Protocol, ServiceKey};

/// Everything one owner puts into the table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fragment {
    pub chains: BTreeMap<String, Chain>,
    /// Clients of an endpoint, filled by packets.
    pub affinity: BTreeMap<String, AffinitySet>,
    pub entries: BTreeMap<Entry, Target>,
    /// Connectionless flows to look after when endpoints go.
    pub udp: Vec<UdpFlows>,
    pub health: Option<HealthCheck>,
}

/// The rules of a chain; all packets in it are of one address family and protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    pub v6: bool,
    pub protocol: Protocol,
    pub rules: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AffinitySet {
    pub v6: bool,
    pub timeout_seconds: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// The connection's source becomes this node, so that answers come back through it.
    MarkMasquerade,
    /// The same, only for connections from this range.
    MarkMasqueradeFrom(IpNet),
    /// The same, only for connections from this node itself.
    MarkMasqueradeFromSelf,
    /// Go on in another chain.
    Goto(String),
    /// Go on in another chain if the source is in the range.
    GotoFrom(IpNet, String),
    /// Go on in another chain if this node itself is the source.
    GotoFromSelf(String),
    /// Go on in another chain if the client is in the set.
    GotoKnown {
        clients: String,
        chain: String,
    },
    /// Go on in a random one of these chains.
    Spread(Vec<String>),
    /// Put the client into the set for some time.
    Remember {
        clients: String,
        timeout_seconds: u32,
    },
    /// Send the connection to a random endpoint.
    Balance(Vec<SocketAddr>),
    Drop,
}

/// The key of an entry in one of the table's shared maps and sets.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Entry {
    /// Connections to one address and port.
    Address(IpAddr, Protocol, u16),
    /// Connections to a port of the node's own addresses for node ports.
    NodePort { v6: bool, protocol: Protocol, port: u16 },
    /// Connections to a port of any of this machine's addresses.
    HostPort { v6: bool, protocol: Protocol, port: u16 },
    /// A pod that may reach itself through a service.
    Hairpin(IpAddr),
}

/// Where an entry leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    Goto(String),
    Reject,
    Drop,
    /// The entry is a member of a set and leads nowhere.
    Member,
}

/// A UDP service port: which flows are its, and where they may go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UdpFlows {
    pub addresses: BTreeSet<SocketAddr>,
    pub node_port: Option<u16>,
    /// Endpoints that serve, ready or not.
    pub serving: BTreeSet<SocketAddr>,
}

/// What a load balancer asks about a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    pub service: ServiceKey,
    pub port: u16,
    pub local_endpoints: usize,
}

impl fmt::Display for Fragment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, chain) in &self.chains {
            writeln!(f, "chain {name}")?;
            for rule in &chain.rules {
                writeln!(f, "  {rule}")?;
            }
        }
        for (name, set) in &self.affinity {
            writeln!(f, "affinity {name} {}s", set.timeout_seconds)?;
        }
        for (entry, target) in &self.entries {
            writeln!(f, "{entry}{target}")?;
        }
        if let Some(health) = &self.health {
            writeln!(f, "health port {} local {}", health.port, health.local_endpoints)?;
        }
        Ok(())
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |endpoints: &[SocketAddr]| {
            endpoints.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        match self {
            Rule::MarkMasquerade => write!(f, "masquerade"),
            Rule::MarkMasqueradeFrom(range) => write!(f, "from {range} masquerade"),
            Rule::MarkMasqueradeFromSelf => write!(f, "from self masquerade"),
            Rule::Goto(chain) => write!(f, "goto {chain}"),
            Rule::GotoFrom(range, chain) => write!(f, "from {range} goto {chain}"),
            Rule::GotoFromSelf(chain) => write!(f, "from self goto {chain}"),
            Rule::GotoKnown { clients, chain } => write!(f, "from @{clients} goto {chain}"),
            Rule::Spread(chains) => write!(f, "spread {}", chains.join(" ")),
            Rule::Remember { clients, .. } => write!(f, "remember in {clients}"),
            Rule::Balance(endpoints) => write!(f, "balance {}", list(endpoints)),
            Rule::Drop => write!(f, "drop"),
        }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = |v6: &bool| if *v6 { "v6" } else { "v4" };
        match self {
            Entry::Address(address, protocol, port) => {
                write!(f, "address {address} {} {port}", protocol.name())
            }
            Entry::NodePort { v6, protocol, port } => {
                write!(f, "node port {} {} {port}", family(v6), protocol.name())
            }
            Entry::HostPort { v6, protocol, port } => {
                write!(f, "host port {} {} {port}", family(v6), protocol.name())
            }
            Entry::Hairpin(address) => write!(f, "hairpin {address}"),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Goto(chain) => write!(f, " -> {chain}"),
            Target::Reject => write!(f, " -> reject"),
            Target::Drop => write!(f, " -> drop"),
            Target::Member => Ok(()),
        }
    }
}
