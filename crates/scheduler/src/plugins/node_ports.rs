//! NodePorts: host ports are used once.

use k8s_openapi::api::core::v1::Pod;

use super::names;
use crate::event::{Action, ClusterEvent, Interest, Resource};
use crate::framework::{Code, Cycle, Gap, Plugin, Points, PreFilter, Preparing, Verdict, reject};
use crate::node::NodeInfo;
use crate::pod::{HostPort, PodInfo, host_ports, node_of};

#[derive(Debug)]
pub(crate) struct NodePorts;

const ANY: &str = "0.0.0.0";

fn clash(wanted: &HostPort, used: &HostPort) -> bool {
    let same_ip = wanted.0 == used.0 || wanted.0 == ANY || used.0 == ANY;
    same_ip && wanted.1 == used.1 && wanted.2 == used.2
}

fn first_clash<'a>(wanted: &'a [HostPort], used: &[HostPort]) -> Option<&'a HostPort> {
    wanted.iter().find(|w| used.iter().any(|u| clash(w, u)))
}

fn scheduled(pod: &Pod) -> bool {
    let nominated = pod.status.as_ref().and_then(|s| s.nominated_node_name.as_deref());
    node_of(pod).is_some() || nominated.is_some_and(|n| !n.is_empty())
}

impl Plugin for NodePorts {
    fn name(&self) -> &'static str {
        names::NODE_PORTS
    }

    fn points(&self) -> Points {
        Points::PRE_FILTER.and(Points::FILTER)
    }

    fn is_node_local(&self) -> bool {
        true
    }

    fn events(&self) -> &'static [Interest] {
        &[(Resource::Pod, Action::DELETE), (Resource::Node, Action::ADD)]
    }

    fn queueing_hint(&self, pod: &PodInfo, event: &ClusterEvent) -> bool {
        match event.pod() {
            Some((Some(old), None)) => {
                let used = old.spec.as_ref().map(host_ports).unwrap_or_default();
                scheduled(old) && first_clash(&pod.ports, &used).is_some()
            }
            _ => true,
        }
    }

    fn pre_filter(&self, cycle: &mut Preparing<'_>) -> PreFilter {
        if cycle.pod.ports.is_empty() { PreFilter::Skip } else { PreFilter::Continue }
    }

    fn filter(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> Verdict {
        if first_clash(&cycle.pod.ports, &node.ports).is_none() {
            return Ok(());
        }
        let why = "node(s) didn't have free ports for the requested pod ports";
        Err(reject(Code::Unschedulable, self.name(), why))
    }

    fn gap(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> Option<Gap> {
        let (_, protocol, port) = first_clash(&cycle.pod.ports, &node.ports)?;
        Some(Gap { distance: 1.0, remedy: format!("free host port {port}/{protocol}") })
    }
}
