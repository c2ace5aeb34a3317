//! Ports of the node that containers ask for.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use crate::spec::{is_sidecar, spec_of};

pub(super) const NAME: &str = "NodePorts";
pub(super) const WHY: &str = "node(s) didn't have free ports for the requested pod ports";

/// On any address of the node.
const ANY: &str = "0.0.0.0";

type Port = (String, String, i32);

fn ports(pod: &Pod) -> Vec<Port> {
    let spec = spec_of(pod);
    let sidecars = spec.init_containers.iter().flatten().filter(|c| is_sidecar(c));
    let all = sidecars.chain(&spec.containers).flat_map(|c| c.ports.iter().flatten());
    let ports = all.filter_map(|p| {
        let number = p.host_port.filter(|n| *n > 0)?;
        let address = p.host_ip.clone().filter(|ip| !ip.is_empty()).unwrap_or_else(|| ANY.into());
        Some((p.protocol.clone().unwrap_or_else(|| "TCP".into()), address, number))
    });
    ports.collect()
}

pub(super) fn are_free(pod: &Pod, others: &[Arc<Pod>]) -> bool {
    let wanted = ports(pod);
    if wanted.is_empty() {
        return true;
    }
    let clash =
        |a: &Port, b: &Port| a.0 == b.0 && a.2 == b.2 && (a.1 == b.1 || a.1 == ANY || b.1 == ANY);
    let mut taken = others.iter().flat_map(|other| ports(other));
    !taken.any(|other| wanted.iter().any(|own| clash(own, &other)))
}
