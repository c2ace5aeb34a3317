//! From a question about the cluster to its records: the DNS specification for Kubernetes. Pure.
//!
//! "No such name" and "the name has no record of this type" are different answers: a resolver that
//! asks for AAAA and is told "no such name" gives up on A as well.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::index::Index;
use crate::model::{Endpoint, Port, Service, Slice};

/// What is known about a question.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// Not a cluster name: somebody else's.
    Elsewhere,
    /// The records, and others that spare the client a question.
    Records {
        answers: Vec<Record>,
        additionals: Vec<Record>,
    },
    /// The name stands for another one; the asker wants that one's records of its type too.
    Alias {
        record: Box<Record>,
        target: Name,
    },
    /// The name exists, but has no record of this type.
    NoData,
    NoName,
}

/// Seconds a cluster record may be remembered: as short as upstream's, since endpoints change.
pub const TTL_SECONDS: u32 = 5;

/// Version of the specification that is followed, as `dns-version.<zone>` tells.
const SPECIFICATION: &str = "1.1.0";

/// SOA timers in seconds: nobody copies the zone, but some resolvers insist on sane ones.
const REFRESH_SECONDS: i32 = 7200;
const RETRY_SECONDS: i32 = 1800;
const EXPIRE_SECONDS: i32 = 86_400;

/// SRV weight of one target, as upstream gives them: all equal, together 100.
const TOTAL_WEIGHT: usize = 100;

/// The answer to a question for `name` and `kind`, in the cluster's zone `zone` (lower case).
pub fn answer(index: &Index, zone: &Name, name: &Name, kind: RecordType) -> Answer {
    if !zone.zone_of(name) {
        return reverse(index, zone, name, kind);
    }
    let labels = labels_below(zone, name);
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    let asked = Asked { index, zone, name, kind };
    match labels.as_slice() {
        [] => asked.apex(),
        ["dns-version"] => {
            asked.records(vec![RData::TXT(TXT::new(vec![SPECIFICATION.into()]))], vec![])
        }
        ["ns", "dns"] | ["svc" | "pod" | "dns"] => Answer::NoData,
        [namespace, "svc" | "pod"] => exists(index.has_namespace(namespace)),
        [address, namespace, "pod"] => asked.pod(address, namespace),
        [service, namespace, "svc"] => asked.service(service, namespace),
        [below, service, namespace, "svc"] => asked.below_service(below, service, namespace),
        [port, protocol, service, namespace, "svc"] => {
            asked.port(port, protocol, service, namespace)
        }
        _ => Answer::NoName,
    }
}

/// The zone's SOA record, which goes with every negative answer.
pub fn soa(zone: &Name) -> Record {
    let server = below(zone, "ns.dns");
    let master = below(zone, "hostmaster");
    // The serial has no meaning: nobody transfers the zone.
    let data =
        SOA::new(server, master, 1, REFRESH_SECONDS, RETRY_SECONDS, EXPIRE_SECONDS, TTL_SECONDS);
    Record::from_rdata(zone.clone(), TTL_SECONDS, RData::SOA(data))
}

struct Asked<'a> {
    index: &'a Index,
    zone: &'a Name,
    name: &'a Name,
    kind: RecordType,
}

impl Asked<'_> {
    fn apex(&self) -> Answer {
        match self.kind {
            RecordType::SOA => {
                Answer::Records { answers: vec![soa(self.zone)], additionals: vec![] }
            }
            RecordType::NS => self.records(vec![RData::NS(NS(below(self.zone, "ns.dns")))], vec![]),
            _ => Answer::NoData,
        }
    }

    fn pod(&self, address: &str, namespace: &str) -> Answer {
        match undashed(address) {
            Some(ip) if self.index.has_pod_address(namespace, ip) => {
                self.records(vec![data(ip)], vec![])
            }
            _ => Answer::NoName,
        }
    }

    fn service(&self, service: &str, namespace: &str) -> Answer {
        let srv = self.kind == RecordType::SRV;
        match self.index.service(namespace, service) {
            None => Answer::NoName,
            Some(Service::External(target)) => self.alias(target),
            Some(Service::Addresses { ips, ports }) if srv => {
                self.service_ports(ips, ports, |_| true)
            }
            Some(Service::Addresses { ips, .. }) => {
                self.records(ips.iter().copied().map(data).collect(), vec![])
            }
            Some(Service::Headless) if srv => self.endpoint_ports(service, namespace, |_| true),
            Some(Service::Headless) => {
                let ips = self.endpoints(service, namespace).map(|endpoint| data(endpoint.ip));
                let mut ips: Vec<RData> = ips.collect();
                // A headless service with nobody in it is "no such name" in upstream too.
                if ips.is_empty() {
                    return Answer::NoName;
                }
                dedup(&mut ips);
                self.records(ips, vec![])
            }
        }
    }

    /// An endpoint's own name, or the empty name between a service and its ports.
    fn below_service(&self, label: &str, service: &str, namespace: &str) -> Answer {
        if let Some(protocol) = label.strip_prefix('_') {
            let known = self.has_port(service, namespace, |port| port.protocol == protocol);
            return exists(known);
        }
        if self.index.service(namespace, service) != Some(&Service::Headless) {
            return Answer::NoName;
        }
        let named = self.endpoints(service, namespace).filter(|endpoint| endpoint.host == label);
        let mut ips: Vec<RData> = named.map(|endpoint| data(endpoint.ip)).collect();
        if ips.is_empty() {
            return Answer::NoName;
        }
        dedup(&mut ips);
        self.records(ips, vec![])
    }

    fn port(&self, port: &str, protocol: &str, service: &str, namespace: &str) -> Answer {
        let (Some(port), Some(protocol)) = (port.strip_prefix('_'), protocol.strip_prefix('_'))
        else {
            return Answer::NoName;
        };
        let wanted = |other: &Port| other.name == port && other.protocol == protocol;
        match self.index.service(namespace, service) {
            Some(Service::Addresses { ips, ports }) if ports.iter().any(wanted) => {
                self.service_ports(ips, ports, wanted)
            }
            Some(Service::Headless) => self.endpoint_ports(service, namespace, wanted),
            _ => Answer::NoName,
        }
    }

    /// SRV records of a service with an address: they lead to the service's own name.
    fn service_ports(
        &self,
        ips: &[IpAddr],
        ports: &[Port],
        wanted: impl Fn(&Port) -> bool,
    ) -> Answer {
        let labels = labels_below(self.zone, self.name);
        let own = labels[labels.len().saturating_sub(3)..].join(".");
        let target = below(self.zone, &own);
        let ports: Vec<_> = ports.iter().filter(|port| wanted(port)).collect();
        let weight = weight(ports.len());
        let answers = ports
            .iter()
            .map(|port| RData::SRV(SRV::new(0, weight, port.number, target.clone())))
            .collect();
        let additionals = ips.iter().map(|ip| record(&target, data(*ip))).collect();
        self.records(answers, additionals)
    }

    /// SRV records of a headless service: one per endpoint and port.
    fn endpoint_ports(
        &self,
        service: &str,
        namespace: &str,
        wanted: impl Fn(&Port) -> bool,
    ) -> Answer {
        let mut found: Vec<(u16, &Endpoint)> = Vec::new();
        for slice in self.index.slices_of(namespace, service) {
            for port in slice.ports.iter().filter(|port| wanted(port)) {
                found.extend(slice.endpoints.iter().map(|endpoint| (port.number, endpoint)));
            }
        }
        if found.is_empty() {
            return Answer::NoName;
        }
        let weight = weight(found.len());
        let (mut answers, mut additionals) = (Vec::new(), Vec::new());
        for (port, endpoint) in found {
            let target = below(self.zone, &format!("{}.{service}.{namespace}.svc", endpoint.host));
            additionals.push(record(&target, data(endpoint.ip)));
            answers.push(RData::SRV(SRV::new(0, weight, port, target)));
        }
        // An endpoint with an address of each family is two endpoints with one name.
        dedup(&mut answers);
        self.records(answers, additionals)
    }

    fn alias(&self, target: &str) -> Answer {
        let Ok(target) = Name::from_ascii(format!("{target}.")) else { return Answer::NoData };
        let record = record(self.name, RData::CNAME(CNAME(target.clone())));
        if matches!(self.kind, RecordType::CNAME | RecordType::ANY) {
            return Answer::Records { answers: vec![record], additionals: vec![] };
        }
        Answer::Alias { record: Box::new(record), target }
    }

    fn endpoints(&self, service: &str, namespace: &str) -> impl Iterator<Item = &Endpoint> {
        self.index.slices_of(namespace, service).flat_map(|slice| &slice.endpoints)
    }

    fn has_port(&self, service: &str, namespace: &str, wanted: impl Fn(&Port) -> bool) -> bool {
        let some = |ports: &[Port]| ports.iter().any(&wanted);
        match self.index.service(namespace, service) {
            Some(Service::Addresses { ports, .. }) => some(ports),
            Some(Service::Headless) => {
                let in_slice = |slice: &Slice| some(&slice.ports);
                self.index.slices_of(namespace, service).any(in_slice)
            }
            Some(Service::External(_)) | None => false,
        }
    }

    /// Those of the records that were asked for; none of them is "no data".
    fn records(&self, all: Vec<RData>, additionals: Vec<Record>) -> Answer {
        let wanted = |data: &RData| self.kind == RecordType::ANY || data.record_type() == self.kind;
        let answers: Vec<_> =
            all.into_iter().filter(wanted).map(|data| record(self.name, data)).collect();
        if answers.is_empty() { Answer::NoData } else { Answer::Records { answers, additionals } }
    }
}

/// The name of an address, when it is the cluster's.
fn reverse(index: &Index, zone: &Name, name: &Name, kind: RecordType) -> Answer {
    let Ok(net) = name.parse_arpa_name() else { return Answer::Elsewhere };
    if net.prefix_len() != net.max_prefix_len() {
        return Answer::Elsewhere;
    }
    let names = index.names_of(net.addr()).map(|own| RData::PTR(PTR(below(zone, own))));
    let names: Vec<_> = names.map(|data| record(name, data)).collect();
    match (names.is_empty(), kind) {
        (true, _) => Answer::Elsewhere,
        (false, RecordType::PTR | RecordType::ANY) => {
            Answer::Records { answers: names, additionals: vec![] }
        }
        (false, _) => Answer::NoData,
    }
}

fn exists(known: bool) -> Answer {
    if known { Answer::NoData } else { Answer::NoName }
}

fn data(ip: IpAddr) -> RData {
    match ip {
        IpAddr::V4(ip) => RData::A(A(ip)),
        IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
    }
}

fn record(name: &Name, data: RData) -> Record {
    Record::from_rdata(name.clone(), TTL_SECONDS, data)
}

fn weight(count: usize) -> u16 {
    u16::try_from((TOTAL_WEIGHT / count.max(1)).max(1)).unwrap_or(1)
}

fn dedup(all: &mut Vec<RData>) {
    let mut seen = Vec::with_capacity(all.len());
    for data in all.drain(..) {
        if !seen.contains(&data) {
            seen.push(data);
        }
    }
    *all = seen;
}

/// `relative` (labels with dots) below the zone. Too long a name cannot come from valid objects; the
/// zone itself then stands in.
fn below(zone: &Name, relative: &str) -> Name {
    Name::from_ascii(relative)
        .and_then(|relative| relative.append_domain(zone))
        .unwrap_or_else(|_| zone.clone())
}

/// The labels of `name` before the zone, in lower case, leftmost first.
fn labels_below(zone: &Name, name: &Name) -> Vec<String> {
    let count = name.iter().len() - zone.iter().len();
    let label = |bytes: &[u8]| String::from_utf8_lossy(bytes).to_ascii_lowercase();
    name.iter().take(count).map(label).collect()
}

/// The address in a label like `10-1-2-3`.
fn undashed(label: &str) -> Option<IpAddr> {
    let v4 = label.replace('-', ".").parse::<Ipv4Addr>().map(IpAddr::V4);
    v4.or_else(|_| label.replace('-', ":").parse::<Ipv6Addr>().map(IpAddr::V6)).ok()
}

#[cfg(test)]
mod tests;
