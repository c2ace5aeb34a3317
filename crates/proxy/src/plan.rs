//! From a service and its endpoints to the rules it needs on this node. Pure.
//!
//! Every service port has, per address family, up to four chains (with affinity also one per endpoint): `svc` balances over the cluster's
//! endpoints, `loc` over this node's, `ext` is the entry from outside the cluster, `fw` stands
//! before it when only some sources may use the load balancer's address.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::fragment::{AffinitySet, Chain, Entry, Fragment, HealthCheck, Rule, Target, UdpFlows};
use crate::model::{Endpoint, HostPort, Port, Protocol, Service, ServiceKey, Slice};
use crate::select::{Place, Selection, select};

/// What the plan must know about the node and the cluster.
#[derive(Debug, Clone, Default)]
pub struct PlanConfig {
    pub node_name: String,
    /// The node's topology zone; empty when it has none.
    pub zone: String,
    /// Every pod of the cluster: connections from elsewhere are masqueraded.
    pub pod_cidrs: Vec<IpNet>,
    /// Addresses the node answers itself (cluster DNS): never redirected.
    pub local_addresses: Vec<IpAddr>,
}

/// Longest name of a chain or map the kernel takes, without its final zero byte.
const MAX_NAME_BYTES: usize = 127;

/// The rules for one service.
pub fn plan_service(
    config: &PlanConfig,
    key: &ServiceKey,
    service: &Service,
    slices: &[&Slice],
) -> Fragment {
    let mut fragment = Fragment::default();
    for port in &service.ports {
        for v6 in [false, true] {
            if service.cluster_ips.iter().any(|ip| ip.is_ipv6() == v6) {
                let endpoints = endpoints_of(port, slices, v6);
                let planner = Planner { config, key, service, port, v6 };
                planner.plan(&endpoints, &mut fragment);
            }
        }
    }
    fragment.health = service.health_check_node_port.map(|port| HealthCheck {
        service: key.clone(),
        port,
        local_endpoints: count_local_ready(config, slices),
    });
    fragment
}

/// The rules for one host port.
pub fn plan_hostport(hostport: &HostPort) -> Fragment {
    let mut fragment = Fragment::default();
    let HostPort { host_ip, host_port: port, protocol, .. } = hostport;
    for target in &hostport.targets {
        let v6 = target.is_ipv6();
        if host_ip.is_some_and(|ip| ip.is_ipv6() != v6) {
            continue;
        }
        let chain = name("host", v6, &[&hostport.id, protocol.name(), &port.to_string()]);
        let mut rules =
            loopback_range(v6).map(Rule::MarkMasqueradeFrom).into_iter().collect::<Vec<_>>();
        rules.push(Rule::Balance(vec![*target]));
        fragment.chains.insert(chain.clone(), Chain { v6, protocol: *protocol, rules });
        let entry = match host_ip.filter(|ip| !ip.is_unspecified()) {
            Some(ip) => Entry::Address(ip, *protocol, *port),
            None => Entry::HostPort { v6, protocol: *protocol, port: *port },
        };
        fragment.entries.insert(entry, Target::Goto(chain));
        fragment.entries.insert(Entry::Hairpin(target.ip()), Target::Member);
        if *protocol == Protocol::Udp {
            let ip = host_ip.filter(|ip| !ip.is_unspecified());
            fragment.udp.push(UdpFlows {
                addresses: ip.map(|ip| SocketAddr::new(ip, *port)).into_iter().collect(),
                node_port: ip.is_none().then_some(*port),
                serving: BTreeSet::from([*target]),
            });
        }
    }
    fragment
}

/// One service port in one address family.
struct Planner<'a> {
    config: &'a PlanConfig,
    key: &'a ServiceKey,
    service: &'a Service,
    port: &'a Port,
    v6: bool,
}

/// The chains that a port's entries can lead to.
struct Chains {
    cluster: Option<String>,
    local: Option<String>,
    any: bool,
}

impl Planner<'_> {
    fn plan(&self, endpoints: &BTreeMap<SocketAddr, &Endpoint>, fragment: &mut Fragment) {
        let list: Vec<&Endpoint> = endpoints.values().copied().collect();
        let place = Place { node: &self.config.node_name, zone: &self.config.zone };
        let external = self.is_external();
        let wants_cluster =
            !self.service.internal_local || (external && !self.service.external_local);
        let wants_local = self.service.internal_local || (external && self.service.external_local);
        let selection = select(&list, wants_cluster, wants_local, place);
        let chains = self.balancing_chains(endpoints, &selection, fragment);
        self.internal_entries(&chains, fragment);
        if external {
            self.external_entries(&chains, fragment);
        }
        self.hairpins(&selection, fragment);
        if self.port.protocol == Protocol::Udp {
            fragment.udp.push(self.udp_flows(endpoints));
        }
    }

    fn is_external(&self) -> bool {
        self.port.node_port.is_some()
            || !self.service.external_ips.is_empty()
            || !self.service.load_balancer_ips.is_empty()
    }

    /// The chains that pick an endpoint, as far as there are endpoints to pick.
    fn balancing_chains(
        &self,
        endpoints: &BTreeMap<SocketAddr, &Endpoint>,
        selection: &Selection<'_>,
        fragment: &mut Fragment,
    ) -> Chains {
        let mut chain = |kind: &str, chosen: &[&Endpoint]| {
            let targets = targets(endpoints, chosen);
            if targets.is_empty() {
                return None;
            }
            let chain = self.name(kind);
            let rules = self.balancing_rules(targets, fragment);
            fragment.chains.insert(chain.clone(), self.chain(rules));
            Some(chain)
        };
        let cluster = chain("svc", &selection.cluster);
        let local = chain("loc", &selection.local);
        Chains { cluster, local, any: selection.any }
    }

    fn balancing_rules(&self, endpoints: Vec<SocketAddr>, fragment: &mut Fragment) -> Vec<Rule> {
        let Some(timeout_seconds) = self.service.affinity_seconds else {
            return vec![Rule::Balance(endpoints)];
        };
        let (mut rules, mut chains) = (Vec::new(), Vec::new());
        for endpoint in endpoints {
            let text = endpoint.to_string();
            let chain = self.name_of("ep", &text);
            // The timeout is part of the name, because the kernel cannot change that of a set.
            let clients = self.name_of(&format!("clients-{timeout_seconds}-"), &text);
            let remember = Rule::Remember { clients: clients.clone(), timeout_seconds };
            let inner = self.chain(vec![remember, Rule::Balance(vec![endpoint])]);
            let set = AffinitySet { v6: self.v6, timeout_seconds };
            fragment.affinity.insert(clients.clone(), set);
            fragment.chains.insert(chain.clone(), inner);
            rules.push(Rule::GotoKnown { clients, chain: chain.clone() });
            chains.push(chain);
        }
        rules.push(Rule::Spread(chains));
        rules
    }

    fn internal_entries(&self, chains: &Chains, fragment: &mut Fragment) {
        let target = if self.service.internal_local {
            chains.target(chains.local.as_ref())
        } else {
            chains.target(chains.cluster.as_ref())
        };
        for ip in self.of_family(&self.service.cluster_ips) {
            if !self.config.local_addresses.contains(&ip) {
                self.add(Entry::Address(ip, self.port.protocol, self.port.port), &target, fragment);
            }
        }
    }

    fn external_entries(&self, chains: &Chains, fragment: &mut Fragment) {
        let target = self.external_target(chains, fragment);
        let Port { protocol, port, node_port, .. } = self.port;
        for ip in self.of_family(&self.service.external_ips) {
            self.add(Entry::Address(ip, *protocol, *port), &target, fragment);
        }
        if let Some(port) = *node_port {
            let entry = Entry::NodePort { v6: self.v6, protocol: *protocol, port };
            self.add(entry, &target, fragment);
        }
        let guarded = self.guarded(target, fragment);
        for ip in self.of_family(&self.service.load_balancer_ips) {
            self.add(Entry::Address(ip, *protocol, *port), &guarded, fragment);
        }
    }

    /// Where connections from outside go.
    fn external_target(&self, chains: &Chains, fragment: &mut Fragment) -> Target {
        let rules = if self.service.external_local {
            if !chains.any {
                return Target::Reject;
            }
            self.local_entry_rules(chains)
        } else {
            let Some(cluster) = &chains.cluster else { return Target::Reject };
            vec![Rule::MarkMasquerade, Rule::Goto(cluster.clone())]
        };
        let chain = self.name("ext");
        fragment.chains.insert(chain.clone(), self.chain(rules));
        Target::Goto(chain)
    }

    /// The cluster's own pods and the node itself are not held to the node's endpoints: the policy
    /// exists to keep outside clients' addresses, and these keep theirs anyway.
    fn local_entry_rules(&self, chains: &Chains) -> Vec<Rule> {
        let mut rules = Vec::new();
        if let Some(chain) = chains.cluster.as_ref().or(chains.local.as_ref()) {
            let pods =
                self.config.pod_cidrs.iter().filter(|range| range.addr().is_ipv6() == self.v6);
            rules.extend(pods.map(|range| Rule::GotoFrom(*range, chain.clone())));
            rules.push(Rule::MarkMasqueradeFromSelf);
            rules.push(Rule::GotoFromSelf(chain.clone()));
        }
        rules.push(chains.local.clone().map_or(Rule::Drop, Rule::Goto));
        rules
    }

    /// Puts the load balancer's source ranges before `target`.
    fn guarded(&self, target: Target, fragment: &mut Fragment) -> Target {
        let Target::Goto(next) = &target else { return target };
        if self.service.source_ranges.is_empty() {
            return target;
        }
        let ranges = self.service.source_ranges.iter().filter(|r| r.addr().is_ipv6() == self.v6);
        let mut rules: Vec<_> = ranges.map(|range| Rule::GotoFrom(*range, next.clone())).collect();
        rules.push(Rule::Drop);
        let chain = self.name("fw");
        fragment.chains.insert(chain.clone(), self.chain(rules));
        Target::Goto(chain)
    }

    /// A pod that gets its own connection back must see another source than itself.
    fn hairpins(&self, selection: &Selection<'_>, fragment: &mut Fragment) {
        let here = |endpoint: &&&Endpoint| {
            endpoint.node.as_ref().is_none_or(|node| *node == self.config.node_name)
        };
        let all = selection.cluster.iter().chain(&selection.local);
        let own =
            all.filter(here).map(|endpoint| (Entry::Hairpin(endpoint.address), Target::Member));
        fragment.entries.extend(own);
    }

    fn udp_flows(&self, endpoints: &BTreeMap<SocketAddr, &Endpoint>) -> UdpFlows {
        let service = self.service;
        let lists = [&service.cluster_ips, &service.external_ips, &service.load_balancer_ips];
        let addresses = lists.into_iter().flat_map(|list| self.of_family(list));
        let serving = endpoints.iter().filter(|(_, endpoint)| endpoint.serving);
        UdpFlows {
            addresses: addresses.map(|ip| SocketAddr::new(ip, self.port.port)).collect(),
            node_port: self.port.node_port,
            serving: serving.map(|(target, _)| *target).collect(),
        }
    }

    fn add(&self, entry: Entry, target: &Target, fragment: &mut Fragment) {
        fragment.entries.insert(entry, target.clone());
    }

    fn of_family(&self, list: &[IpAddr]) -> Vec<IpAddr> {
        list.iter().copied().filter(|ip| ip.is_ipv6() == self.v6).collect()
    }

    fn chain(&self, rules: Vec<Rule>) -> Chain {
        Chain { v6: self.v6, protocol: self.port.protocol, rules }
    }

    fn name(&self, kind: &str) -> String {
        self.name_of(kind, "")
    }

    /// The name of something that the port has several of.
    fn name_of(&self, kind: &str, part: &str) -> String {
        let ServiceKey { namespace, name: service } = self.key;
        let protocol = self.port.protocol.name();
        name(kind, self.v6, &[namespace, service, protocol, &self.port.name, part])
    }
}

impl Chains {
    /// No endpoints anywhere: refuse at once. Some, but none here: drop, so that a client tries
    /// again rather than give up.
    fn target(&self, chain: Option<&String>) -> Target {
        match chain {
            Some(chain) => Target::Goto(chain.clone()),
            None if self.any => Target::Drop,
            None => Target::Reject,
        }
    }
}

/// The port's endpoints in one family, each address once, in a stable order.
fn endpoints_of<'s>(
    port: &Port,
    slices: &[&'s Slice],
    v6: bool,
) -> BTreeMap<SocketAddr, &'s Endpoint> {
    let mut found = BTreeMap::new();
    for slice in slices {
        let numbers = slice
            .ports
            .iter()
            .filter(|(name, protocol, _)| *name == port.name && *protocol == port.protocol);
        for (_, _, number) in numbers {
            let endpoints = slice.endpoints.iter().filter(|e| e.address.is_ipv6() == v6);
            for endpoint in endpoints {
                // An endpoint may be in two slices while it moves between them: ready wins.
                let at = SocketAddr::new(endpoint.address, *number);
                let slot = found.entry(at).or_insert(endpoint);
                if endpoint.ready && !slot.ready {
                    *slot = endpoint;
                }
            }
        }
    }
    found
}

fn targets(endpoints: &BTreeMap<SocketAddr, &Endpoint>, chosen: &[&Endpoint]) -> Vec<SocketAddr> {
    // By identity: two endpoints may say the same and still be two.
    let chosen: BTreeSet<*const Endpoint> = chosen.iter().map(|e| std::ptr::from_ref(*e)).collect();
    let is_chosen = |endpoint: &Endpoint| chosen.contains(&std::ptr::from_ref(endpoint));
    endpoints.iter().filter(|(_, endpoint)| is_chosen(endpoint)).map(|(at, _)| *at).collect()
}

fn count_local_ready(config: &PlanConfig, slices: &[&Slice]) -> usize {
    let all = slices.iter().flat_map(|slice| &slice.endpoints);
    let here = all.filter(|e| e.ready && e.node.as_ref() == Some(&config.node_name));
    here.map(|endpoint| endpoint.address).collect::<BTreeSet<_>>().len()
}

fn loopback_range(v6: bool) -> Option<IpNet> {
    // IPv6 packets from ::1 never leave the loopback link.
    (!v6).then(|| IpNet::V4(ipnet::Ipv4Net::new_assert([127, 0, 0, 0].into(), 8)))
}

/// A readable, unique name: a long one is cut and ends in a hash of the whole.
fn name(kind: &str, v6: bool, parts: &[&str]) -> String {
    let family = if v6 { '6' } else { '4' };
    let whole = format!("{kind}{family}/{}", parts.join("/"));
    let whole: String = whole.chars().map(|c| if is_name_char(c) { c } else { '_' }).collect();
    let trimmed = whole.trim_end_matches('/');
    if trimmed.len() <= MAX_NAME_BYTES {
        return trimmed.to_owned();
    }
    let hash = trimmed.bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("{}-{hash:016x}", &trimmed[..MAX_NAME_BYTES - 17])
}

fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '_' | '.')
}

#[cfg(test)]
mod tests;
