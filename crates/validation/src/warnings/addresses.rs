//! Addresses and networks that are not written canonically, and kinds that hold them.

use std::net::IpAddr;

use super::Warnings;
use crate::check::At;
use crate::formats::{is_mapped, masked, sloppy_cidr, sloppy_ip};
use crate::value::text;

pub(super) fn ip(warnings: &Warnings, at: &At<'_>) {
    let value = at.text();
    let Some(parsed) = sloppy_ip(value) else { return };
    if value.parse::<IpAddr>().is_err() || is_mapped(parsed) {
        let shown = parsed.to_canonical();
        warnings.at(at, format!("non-standard IP address {value:?} is invalid: use \"{shown}\""));
    } else if parsed.is_ipv6() && parsed.to_string() != value {
        let rule = "should be in RFC 5952 canonical format";
        warnings.at(at, format!("IPv6 address {value:?} {rule} (\"{parsed}\")"));
    }
}

pub(super) fn cidr(warnings: &Warnings, at: &At<'_>) {
    let value = at.text();
    let Some((address, bits)) = sloppy_cidr(value) else { return };
    // Go's networks of IPv4-mapped addresses are IPv4 networks.
    let (shown, length) = match address.to_canonical() {
        IpAddr::V4(v4) if is_mapped(address) => (IpAddr::V4(v4), bits.saturating_sub(96)),
        _ => (address, bits),
    };
    let network = format!("{}/{length}", masked(shown, length));
    let mut sound = true;
    if masked(shown, length) != shown {
        let all = if address.is_ipv4() { 32 } else { 128 };
        warnings.at(at, format!("CIDR value {value:?} is ambiguous in this context (should be \"{network}\" or \"{shown}/{all}\"?)"));
        sound = false;
    }
    let (written, prefix) = value.split_once('/').unwrap_or((value, ""));
    let padded = prefix.starts_with('0') && prefix != "0";
    if written.parse::<IpAddr>().is_err() || padded || is_mapped(address) {
        warnings.at(at, format!("non-standard CIDR value {value:?} is invalid: use \"{network}\""));
        sound = false;
    }
    let canonical = format!("{address}/{bits}");
    if sound && address.is_ipv6() && canonical != value {
        let rule = "should be in RFC 5952 canonical format";
        warnings.at(at, format!("IPv6 CIDR value {value:?} {rule} (\"{canonical}\")"));
    }
}

pub(super) fn pod_status(warnings: &Warnings, pod: &At<'_>) {
    let status = pod.get("status");
    for list in ["podIPs", "hostIPs"] {
        status.get(list).items().for_each(|item| ip(warnings, &item.get("ip")));
    }
}

/// Upstream names the item, not its address.
pub(super) fn load_balancer(warnings: &Warnings, object: &At<'_>) {
    let (status, key) = (object.get("status"), "loadBalancer");
    for item in status.get(key).get("ingress").items() {
        let address = &item.value()["ip"];
        if !text(address).is_empty() {
            ip(warnings, &item.with(address));
        }
    }
}

pub(super) fn endpoints(warnings: &Warnings, endpoints: &At<'_>) {
    let managed = &endpoints.value()["metadata"]["labels"]["endpoints.kubernetes.io/managed-by"];
    if text(managed) == "endpoint-controller" {
        return;
    }
    for subset in endpoints.get("subsets").items() {
        for list in ["addresses", "notReadyAddresses"] {
            subset.get(list).items().for_each(|item| ip(warnings, &item.get("ip")));
        }
    }
}

pub(super) fn endpoint_slice(warnings: &Warnings, slice: &At<'_>) {
    if slice.old().is_none() && slice.get("addressType").text() == "FQDN" {
        warnings.add("spec.addressType: FQDN endpoints are deprecated");
    }
    let managed = &slice.value()["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"];
    let controllers =
        ["endpointslice-controller.k8s.io", "endpointslicemirroring-controller.k8s.io"];
    if controllers.contains(&text(managed)) {
        return;
    }
    for endpoint in slice.get("endpoints").items() {
        endpoint.get("addresses").items().for_each(|address| ip(warnings, &address));
    }
}

pub(super) fn network_policy(warnings: &Warnings, policy: &At<'_>) {
    let spec = policy.get("spec");
    for (rules, peers) in [("ingress", "from"), ("egress", "to")] {
        for rule in spec.get(rules).items() {
            for peer in rule.get(peers).items() {
                let block = peer.get("ipBlock");
                cidr(warnings, &block.get("cidr"));
                block.get("except").items().for_each(|except| cidr(warnings, &except));
            }
        }
    }
}

pub(super) fn service(warnings: &Warnings, service: &At<'_>) {
    let (meta, spec) = (service.get("metadata"), service.get("spec"));
    let kind = spec.get("type").text();
    let headless = kind == "ClusterIP" && spec.get("clusterIP").text() == "None";
    let hints = "service.kubernetes.io/topology-aware-hints";
    if meta.value()["annotations"].get(hints).is_some() {
        warnings.add(format!("annotation {hints} is deprecated, please use service.kubernetes.io/topology-mode instead"));
    }
    if !matches!(spec.get("clusterIP").text(), "" | "None") {
        spec.get("clusterIPs").items().for_each(|address| ip(warnings, &address));
    }
    let (balancer, external) = (spec.get("loadBalancerIP"), spec.get("externalIPs"));
    if headless {
        let affinity = spec.get("sessionAffinity").text() != "None";
        for (is_set, field) in [
            (!balancer.is_empty(), "loadBalancerIP"),
            (!external.is_empty(), "externalIPs"),
            (affinity, "SessionAffinity"),
        ] {
            if is_set {
                warnings.add(format!("spec.{field} is ignored for headless services"));
            }
        }
    }
    external.items().for_each(|address| ip(warnings, &address));
    if !external.is_empty() && !headless && kind != "ExternalName" {
        warnings.add(
            "spec.externalIPs is deprecated and may no longer be implemented in some clusters",
        );
    }
    ip(warnings, &balancer);
    spec.get("loadBalancerSourceRanges").items().for_each(|range| cidr(warnings, &range));
    if kind == "ExternalName" && !external.is_empty() {
        warnings.add("spec.externalIPs is ignored when spec.type is \"ExternalName\"");
    }
    if kind != "ExternalName" && !spec.get("externalName").is_empty() {
        warnings.add("spec.externalName is ignored when spec.type is not \"ExternalName\"");
    }
    if spec.get("trafficDistribution").text() == "PreferClose" {
        warnings
            .add("spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"");
    }
}
