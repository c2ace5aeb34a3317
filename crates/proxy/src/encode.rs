//! From planned rules and operations to nf_tables messages.
//!
//! The registers of a balancing rule: a random number in the first, the endpoint's address and port
//! from the fifth on. Only what Debian's `nft` can list and load again is used: it cannot show a map
//! that packets fill with addresses and ports, so affinity keeps a set of clients per endpoint.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use network::nft::expr::{Meta, R0};
use network::nft::set::Element;
use network::nft::{Batch, DataType, Exprs, SetSpec, Verdict};

use crate::fragment::{Chain, Entry, Rule, Target};
use crate::layout::{MASQUERADE_BIT, REJECT, Shared, address_bytes, address_type};
use crate::table::Operations;

/// Where the endpoint found is put; the key before it may be an IPv6 address.
const ENDPOINT: u32 = R0 + 4;
const MS_PER_SECOND: u64 = 1000;

/// Writes the operations into a batch, in the order in which the kernel can take them: what is
/// referred to comes before, and goes after, what refers to it.
pub(crate) fn encode(batch: &mut Batch, operations: &Operations) {
    for (name, map) in &operations.add_maps {
        let ip = address_type(map.v6);
        let spec = SetSpec::set(&[ip]);
        batch.add_set(name, &spec.with_timeout(u64::from(map.timeout_seconds) * MS_PER_SECOND));
    }
    for name in &operations.add_chains {
        batch.add_chain(name);
    }
    entries(batch, &operations.delete_entries, false);
    for name in &operations.flush_chains {
        batch.flush_chain(name);
    }
    for (name, chain) in &operations.fill_chains {
        fill(batch, name, chain);
    }
    entries(batch, &operations.add_entries, true);
    for name in &operations.delete_chains {
        batch.delete_chain(name);
    }
    for name in &operations.delete_maps {
        batch.delete_set(name);
    }
}

/// An entry as the kernel takes it; members of sets have no verdict.
type KeyAndVerdict = (Vec<u8>, Option<Verdict>);

/// Adds or deletes entries, those of one map together.
fn entries(batch: &mut Batch, list: &[(Entry, Target)], add: bool) {
    let mut by_set: BTreeMap<&str, Vec<KeyAndVerdict>> = BTreeMap::new();
    for (entry, target) in list {
        let (set, key) = key_of(entry);
        by_set.entry(set).or_default().push((key, verdict_of(target)));
    }
    for (set, list) in &by_set {
        let elements = list.iter().map(|(key, verdict)| match verdict {
            Some(verdict) => Element::Verdict(key, verdict),
            None => Element::Key(key),
        });
        if add {
            batch.add_elements(set, elements);
        } else {
            batch.delete_elements(set, elements);
        }
    }
}

fn key_of(entry: &Entry) -> (&'static str, Vec<u8>) {
    let service = |protocol: u8, port: u16| {
        let [high, low] = port.to_be_bytes();
        [protocol, 0, 0, 0, high, low, 0, 0]
    };
    match entry {
        Entry::Address(ip, protocol, port) => {
            let mut key = address_bytes(*ip);
            key.extend(service(protocol.number(), *port));
            (Shared::Addresses.name(ip.is_ipv6()), key)
        }
        Entry::NodePort { v6, protocol, port } => {
            (Shared::NodePorts.name(*v6), service(protocol.number(), *port).to_vec())
        }
        Entry::HostPort { v6, protocol, port } => {
            (Shared::HostPorts.name(*v6), service(protocol.number(), *port).to_vec())
        }
        Entry::Hairpin(ip) => {
            let one = address_bytes(*ip);
            (Shared::Hairpins.name(ip.is_ipv6()), [one.clone(), one].concat())
        }
    }
}

fn verdict_of(target: &Target) -> Option<Verdict> {
    match target {
        Target::Goto(chain) => Some(Verdict::Goto(chain.clone())),
        Target::Reject => Some(Verdict::Goto(REJECT.into())),
        Target::Drop => Some(Verdict::Drop),
        Target::Member => None,
    }
}

fn fill(batch: &mut Batch, name: &str, chain: &Chain) {
    for rule in &chain.rules {
        let exprs = encode_rule(batch, rule, chain);
        batch.add_rule(name, &exprs);
    }
}

fn encode_rule(batch: &mut Batch, rule: &Rule, chain: &Chain) -> Exprs {
    let (new, v6) = (Exprs::new(), chain.v6);
    let goto = |chain: &String| Verdict::Goto(chain.clone());
    match rule {
        Rule::MarkMasquerade => new.set_mark_bits(MASQUERADE_BIT),
        Rule::MarkMasqueradeFrom(range) => {
            new.family(v6).source(v6, R0).in_range(R0, range, true).set_mark_bits(MASQUERADE_BIT)
        }
        Rule::MarkMasqueradeFromSelf => new.is_local(true).set_mark_bits(MASQUERADE_BIT),
        Rule::Goto(chain) => new.verdict(&goto(chain)),
        Rule::GotoFrom(range, chain) => {
            new.family(v6).source(v6, R0).in_range(R0, range, true).verdict(&goto(chain))
        }
        Rule::GotoFromSelf(chain) => new.is_local(true).verdict(&goto(chain)),
        Rule::GotoKnown { clients, chain } => {
            new.family(v6).source(v6, R0).in_set(clients, R0).verdict(&goto(chain))
        }
        Rule::Spread(chains) => spread(batch, chains),
        Rule::Remember { clients, timeout_seconds } => {
            let timeout = u64::from(*timeout_seconds) * MS_PER_SECOND;
            new.family(v6).source(v6, R0).update_set(clients, R0, timeout)
        }
        Rule::Balance(endpoints) => redirect(choose(batch, chain, endpoints), v6),
        Rule::Drop => new.verdict(&Verdict::Drop),
    }
}

/// Goes on in a random one of the chains.
fn spread(batch: &mut Batch, chains: &[String]) -> Exprs {
    if let [only] = chains {
        return Exprs::new().verdict(&Verdict::Goto(only.clone()));
    }
    let verdicts: Vec<_> = chains.iter().cloned().map(Verdict::Goto).collect();
    let count = u32::try_from(verdicts.len()).unwrap_or(u32::MAX);
    let keys: Vec<_> = (0..count).map(u32::to_ne_bytes).collect();
    let elements = keys.iter().zip(&verdicts).map(|(key, to)| Element::Verdict(key, to));
    let map = batch.anonymous(&SetSpec::verdicts(&[DataType::Integer]), elements);
    Exprs::new().random(count, R0).lookup_in(&map, R0, Some(0))
}

/// Loads a random endpoint's address and port.
fn choose(batch: &mut Batch, chain: &Chain, endpoints: &[SocketAddr]) -> Exprs {
    let (new, v6) = (of_protocol(chain), chain.v6);
    if let [only] = endpoints {
        let address = address_bytes(only.ip());
        return new.load(ENDPOINT, &address).load(port_register(v6), &only.port().to_be_bytes());
    }
    let values: Vec<_> = endpoints.iter().map(endpoint_bytes).collect();
    let count = u32::try_from(values.len()).unwrap_or(u32::MAX);
    let keys: Vec<_> = (0..count).map(u32::to_ne_bytes).collect();
    let spec = SetSpec::map(&[DataType::Integer], &[address_type(v6), DataType::Port]);
    let elements = keys.iter().zip(&values).map(|(key, value)| Element::Value(key, value));
    let map = batch.anonymous(&spec, elements);
    new.random(count, R0).lookup_in(&map, R0, Some(ENDPOINT))
}

/// Matches what is known anyway: without it `nft` cannot load again what it has listed (it asks for
/// the protocol in every rule that changes a port).
fn of_protocol(chain: &Chain) -> Exprs {
    Exprs::new().meta(Meta::Protocol, R0).equals(R0, &[chain.protocol.number()])
}

fn redirect(exprs: Exprs, v6: bool) -> Exprs {
    exprs.redirect(v6, ENDPOINT, port_register(v6))
}

fn port_register(v6: bool) -> u32 {
    let registers = if v6 { size_of::<Ipv6Addr>() } else { size_of::<Ipv4Addr>() } / 4;
    ENDPOINT + u32::try_from(registers).unwrap_or(0)
}

fn endpoint_bytes(endpoint: &SocketAddr) -> Vec<u8> {
    let mut bytes = address_bytes(IpAddr::clone(&endpoint.ip()));
    bytes.extend(endpoint.port().to_be_bytes());
    bytes.extend([0, 0]);
    bytes
}
