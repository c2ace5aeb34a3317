//! A pod's status as the API shows it, from what is observed and remembered. Pure.

mod conditions;
mod containers;
mod patch;
mod phase;

use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{HostIP, PodIP, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::pod::may_run;
use crate::pod::plan::View;
use crate::spec::{as_container, is_host_network, resources, spec_of};

pub(crate) use patch::patch;

/// Whole seconds, as `Time` fields are.
pub(crate) fn seconds(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

pub(crate) fn build(view: &View<'_>, node_ips: &[IpAddr]) -> PodStatus {
    let pod = view.pod;
    let spec = spec_of(pod);
    let old = pod.status.clone().unwrap_or_default();
    if let Some(rejected) = rejected(view, &old) {
        return rejected;
    }
    let init: Vec<_> = spec.init_containers.iter().flatten().cloned().collect();
    let ephemeral: Vec<_> = spec.ephemeral_containers.iter().flatten().map(as_container).collect();
    let initializing = !init.is_empty();
    let list = |of: &[_], old: &Option<Vec<_>>, is_init| {
        let old = old.as_deref().unwrap_or_default();
        Some(containers::statuses(view, of, old, initializing, is_init)).filter(|l| !l.is_empty())
    };
    let mut new = PodStatus {
        container_statuses: list(&spec.containers, &old.container_statuses, false),
        init_container_statuses: list(&init, &old.init_container_statuses, true),
        ephemeral_container_statuses: list(&ephemeral, &old.ephemeral_container_statuses, false),
        qos_class: Some(resources::qos(pod).as_str().into()),
        observed_generation: pod.metadata.generation,
        start_time: old.start_time.clone().or_else(|| Some(seconds(view.now))),
        ..PodStatus::default()
    };
    containers::share_messages(&mut new);
    new.phase = Some(phase::phase(view, &spec, &new, &old).to_owned());
    if new.phase == old.phase {
        new.reason = old.reason.clone();
        new.message = old.message.clone();
    }
    if let Some(ending) = &view.memory.ending {
        new.phase = Some("Failed".into());
        new.reason = Some(ending.reason.clone());
        new.message = Some(ending.message.clone());
    }
    if delays_terminal_phase(view, &old, &new) {
        new.phase = old.phase.clone().or_else(|| Some("Pending".into()));
        (new.reason, new.message) = (old.reason.clone(), old.message.clone());
    }
    addresses(view, &old, node_ips, &mut new);
    new.conditions = Some(conditions::conditions(view, &spec, &new, &old));
    new
}

fn is_terminal(status: &PodStatus) -> bool {
    matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"))
}

/// A pod is shown as ended once nothing of it runs: what it holds may then be given to others.
fn delays_terminal_phase(view: &View<'_>, old: &PodStatus, new: &PodStatus) -> bool {
    is_terminal(new) && !is_terminal(old) && may_run(view)
}

const REJECTED: &str = "Pod was rejected: ";

/// A pod that the node has not taken has failed, and there is nothing more to say of it.
fn rejected(view: &View<'_>, old: &PodStatus) -> Option<PodStatus> {
    let (reason, message) = match &view.memory.rejected {
        Some(refusal) => {
            (Some(refusal.reason.clone()), Some(format!("{REJECTED}{}", refusal.message)))
        }
        // By an earlier run of the agent.
        None => {
            let before = old.message.as_deref().is_some_and(|m| m.starts_with(REJECTED));
            let failed = old.phase.as_deref() == Some("Failed");
            if !(before && failed && view.observed.containers.is_empty()) {
                return None;
            }
            (old.reason.clone(), old.message.clone())
        }
    };
    Some(PodStatus {
        phase: Some("Failed".into()),
        reason,
        message,
        qos_class: Some(resources::qos(view.pod).as_str().into()),
        start_time: old.start_time.clone().or_else(|| Some(seconds(view.now))),
        observed_generation: view.pod.metadata.generation,
        ..PodStatus::default()
    })
}

fn addresses(view: &View<'_>, old: &PodStatus, node_ips: &[IpAddr], new: &mut PodStatus) {
    let host: Vec<String> = node_ips.iter().map(ToString::to_string).collect();
    let own = match is_host_network(view.pod) {
        true => host.clone(),
        false => view.memory.ips.clone(),
    };
    new.host_ip = host.first().cloned();
    new.host_ips = Some(host.into_iter().map(|ip| HostIP { ip }).collect());
    new.pod_ip = own.first().cloned().or_else(|| old.pod_ip.clone());
    new.pod_ips = match own.is_empty() {
        true => old.pod_ips.clone(),
        false => Some(own.into_iter().map(|ip| PodIP { ip }).collect()),
    };
}
