//! The fixed part of the table (`trireme`, when no other name is asked for): shared maps, base chains, and the rules in them.
//!
//! ```text
//! prerouting, output   (nat)     -> services -> address map | host port map | node port map
//! postrouting          (nat)     marked or hairpin connections are masqueraded
//! guard                (filter)  loopback addresses do not come from links
//! forward, local-out   (filter)  what still wants a service address is refused
//! ```
//! Network policy will live in a table of its own whose `forward` chain runs after this one's; it
//! sees translated destinations, and nothing here accepts a packet finally.

use std::net::IpAddr;

use ipnet::IpNet;
use network::nft::expr::{Meta, R0};
use network::nft::set::Element;
use network::nft::{BaseChain, Batch, DataType, Exprs, Family, Hook, SetSpec, Verdict};

/// The table's name, when none is given.
pub(crate) const TABLE: &str = "trireme";
/// The chain that refuses. (`reject` is a word of nft's language, which could not read it back.)
pub(crate) const REJECT: &str = "refuse";
/// Mark bit of connections to masquerade: the one kube-proxy uses, so that other programs that
/// know it keep off it.
pub(crate) const MASQUERADE_BIT: u32 = 0x4000;

/// A shared map or set in its two families.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Shared {
    Addresses,
    NodePorts,
    HostPorts,
    Hairpins,
    NodeAddresses,
}

/// What the fixed part depends on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Layout {
    pub table: Option<&'static str>,
    pub node_ips: Vec<IpAddr>,
    pub service_cidrs: Vec<IpNet>,
    pub pod_cidrs: Vec<IpNet>,
}

/// `raw`, `dstnat` and `srcnat` of nft, and before other programs' filters.
const RAW: i32 = -300;
const DESTINATION_NAT: i32 = -100;
const SOURCE_NAT: i32 = 100;
const FILTER: i32 = -10;

impl Shared {
    const ALL: [Shared; 5] = [
        Shared::Addresses,
        Shared::NodePorts,
        Shared::HostPorts,
        Shared::Hairpins,
        Shared::NodeAddresses,
    ];

    pub(crate) fn name(self, v6: bool) -> &'static str {
        match (self, v6) {
            (Shared::Addresses, false) => "addresses4",
            (Shared::Addresses, true) => "addresses6",
            (Shared::NodePorts, false) => "node-ports4",
            (Shared::NodePorts, true) => "node-ports6",
            (Shared::HostPorts, false) => "host-ports4",
            (Shared::HostPorts, true) => "host-ports6",
            (Shared::Hairpins, false) => "hairpins4",
            (Shared::Hairpins, true) => "hairpins6",
            (Shared::NodeAddresses, false) => "node-addresses4",
            (Shared::NodeAddresses, true) => "node-addresses6",
        }
    }

    fn spec(self, v6: bool) -> SetSpec {
        let ip = address_type(v6);
        match self {
            Shared::Addresses => SetSpec::verdicts(&[ip, DataType::Protocol, DataType::Port]),
            Shared::NodePorts | Shared::HostPorts => {
                SetSpec::verdicts(&[DataType::Protocol, DataType::Port])
            }
            Shared::Hairpins => SetSpec::set(&[ip, ip]),
            Shared::NodeAddresses => SetSpec::set(&[ip]),
        }
    }
}

pub(crate) fn address_type(v6: bool) -> DataType {
    if v6 { DataType::Ipv6 } else { DataType::Ipv4 }
}

impl Layout {
    pub(crate) fn table(&self) -> &'static str {
        self.table.unwrap_or(TABLE)
    }
}

/// A batch that replaces whatever table of this name there is by the fixed part.
pub(crate) fn fresh(layout: &Layout) -> Batch {
    let mut batch = Batch::new(Family::Inet, layout.table());
    batch.add_table();
    batch.delete_table();
    batch.add_table();
    for shared in Shared::ALL {
        for v6 in [false, true] {
            batch.add_set(shared.name(v6), &shared.spec(v6));
        }
    }
    for ip in &layout.node_ips {
        let key = address_bytes(*ip);
        let set = Shared::NodeAddresses.name(ip.is_ipv6());
        batch.add_elements(set, [Element::Key(&key)]);
    }
    add_chains(&mut batch);
    services_chain(&mut batch, layout);
    postrouting_chain(&mut batch);
    filter_chains(&mut batch, layout);
    batch
}

pub(crate) fn address_bytes(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn add_chains(batch: &mut Batch) {
    batch.add_chain(REJECT);
    batch.add_rule(REJECT, &Exprs::new().reject());
    batch.add_chain("services");
    for (name, kind, hook, priority) in [
        ("prerouting", "nat", Hook::Prerouting, DESTINATION_NAT),
        ("output", "nat", Hook::Output, DESTINATION_NAT),
        ("postrouting", "nat", Hook::Postrouting, SOURCE_NAT),
        ("guard", "filter", Hook::Prerouting, RAW),
        ("forward", "filter", Hook::Forward, FILTER),
        ("local-out", "filter", Hook::Output, FILTER),
    ] {
        batch.add_base_chain(name, BaseChain { kind, hook, priority });
    }
    for from in ["prerouting", "output"] {
        batch.add_rule(from, &Exprs::new().verdict(&Verdict::Jump("services".into())));
    }
}

/// Register after an address of this family that starts at [`R0`].
fn after_address(v6: bool) -> u32 {
    R0 + if v6 { 4 } else { 1 }
}

fn services_chain(batch: &mut Batch, layout: &Layout) {
    for cidr in &layout.service_cidrs {
        // Connections to services from outside the cluster must come back through this node.
        let v6 = cidr.addr().is_ipv6();
        let pods: Vec<_> = layout.pod_cidrs.iter().filter(|r| r.addr().is_ipv6() == v6).collect();
        if pods.is_empty() {
            continue;
        }
        let mut rule = Exprs::new().family(v6).destination(v6, R0).in_range(R0, cidr, true);
        for range in pods {
            rule = rule.source(v6, R0).in_range(R0, range, false);
        }
        batch.add_rule("services", &rule.set_mark_bits(MASQUERADE_BIT));
    }
    for v6 in [false, true] {
        let next = after_address(v6);
        let key = Exprs::new().family(v6).destination(v6, R0).meta(Meta::Protocol, next);
        let rule = key.destination_port(next + 1);
        batch.add_rule("services", &rule.lookup_map(Shared::Addresses.name(v6), R0, 0));
    }
    for v6 in [false, true] {
        let local = Exprs::new().family(v6).is_local(false).meta(Meta::Protocol, R0);
        let rule = local.destination_port(R0 + 1);
        batch.add_rule("services", &rule.lookup_map(Shared::HostPorts.name(v6), R0, 0));
        let node = Exprs::new().family(v6).destination(v6, R0);
        let node = node.in_set(Shared::NodeAddresses.name(v6), R0).meta(Meta::Protocol, R0);
        let rule = node.destination_port(R0 + 1);
        batch.add_rule("services", &rule.lookup_map(Shared::NodePorts.name(v6), R0, 0));
    }
}

fn postrouting_chain(batch: &mut Batch) {
    let marked = Exprs::new().mark_has(MASQUERADE_BIT, true).clear_mark_bits(MASQUERADE_BIT);
    batch.add_rule("postrouting", &marked.masquerade());
    for v6 in [false, true] {
        let pair = Exprs::new().family(v6).was_redirected().source(v6, R0);
        let pair = pair.destination(v6, after_address(v6));
        let hairpin = pair.in_set(Shared::Hairpins.name(v6), R0);
        batch.add_rule("postrouting", &hairpin.masquerade());
    }
}

fn filter_chains(batch: &mut Batch, layout: &Layout) {
    // `route_localnet` lets host ports work on 127.0.0.1; nobody else may use that door.
    let loopback = IpNet::V4(ipnet::Ipv4Net::new_assert([127, 0, 0, 0].into(), 8));
    let stray = Exprs::new().family(false).input_link("lo", false).destination(false, R0);
    let stray = stray.in_range(R0, &loopback, true);
    batch.add_rule("guard", &stray.verdict(&Verdict::Drop));
    for cidr in &layout.service_cidrs {
        let v6 = cidr.addr().is_ipv6();
        let wanted = || Exprs::new().family(v6).destination(v6, R0).in_range(R0, cidr, true);
        let refuse = Verdict::Goto(REJECT.into());
        batch.add_rule("forward", &wanted().verdict(&refuse));
        batch.add_rule("local-out", &wanted().is_local(false).verdict(&Verdict::Return));
        batch.add_rule("local-out", &wanted().verdict(&refuse));
    }
}
