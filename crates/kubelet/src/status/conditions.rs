//! The pod conditions that the node owns.

use k8s_openapi::api::core::v1::{ContainerStatus, PodCondition, PodSpec, PodStatus};

use super::seconds;
use crate::pod::plan::View;
use crate::pod::{may_run, reset, resize, terminating};
use crate::spec::is_sidecar;

/// Conditions that others own are kept as they are.
const OWNED: &[&str] = &[
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
    reset::CONDITION,
    resize::PENDING,
    resize::IN_PROGRESS,
];

/// Status, reason, message.
type Verdict = (bool, &'static str, String);

pub(super) fn conditions(
    view: &View<'_>,
    spec: &PodSpec,
    new: &PodStatus,
    old: &PodStatus,
) -> Vec<PodCondition> {
    let before = old.conditions.as_deref().unwrap_or_default();
    let mut all: Vec<PodCondition> =
        before.iter().filter(|c| !OWNED.contains(&c.type_.as_str())).cloned().collect();
    let sandbox = view.observed.sandbox().is_some_and(|s| s.ready);
    let containers = containers_ready(spec, new);
    let ready = match containers.0 {
        true => gates(spec, &all),
        false => containers.clone(),
    };
    let mut verdicts: Vec<(&str, Verdict)> = vec![
        ("PodReadyToStartContainers", (sandbox, "", String::new())),
        ("Initialized", initialized(view, spec, new, old)),
        ("Ready", ready),
        ("ContainersReady", containers),
        ("PodScheduled", (true, "", String::new())),
    ];
    if reset::is_possible(spec) {
        verdicts.push((reset::CONDITION, restarting(view, new)));
    }
    for (name, (holds, reason, message)) in verdicts {
        let last = before.iter().find(|c| c.type_ == name);
        let status = if holds { "True" } else { "False" };
        let text = |t: &str| Some(t.to_owned()).filter(|t| !t.is_empty());
        let kept = last.filter(|c| c.status == status).and_then(|c| c.last_transition_time.clone());
        all.push(PodCondition {
            type_: name.into(),
            status: status.into(),
            reason: text(reason),
            message: text(&message),
            last_probe_time: None,
            last_transition_time: kept.or_else(|| Some(seconds(view.now))),
            observed_generation: view.pod.metadata.generation,
        });
    }
    resizes(view, before, &mut all);
    disruption(view, before, &mut all);
    all
}

/// Changes of resources: one that there is no room for, and one that is not everywhere yet.
fn resizes(view: &View<'_>, before: &[PodCondition], all: &mut Vec<PodCondition>) {
    if terminating(view) {
        return;
    }
    let mut add = |name: &str, reason: Option<&str>, message: Option<&str>, generation| {
        let last = before.iter().find(|c| c.type_ == name && c.status == "True");
        let since = last.and_then(|c| c.last_transition_time.clone());
        all.push(PodCondition {
            type_: name.into(),
            status: "True".into(),
            reason: reason.map(str::to_owned),
            message: message.map(str::to_owned),
            last_probe_time: None,
            last_transition_time: since.or_else(|| Some(seconds(view.now))),
            observed_generation: generation,
        });
    };
    let memory = &view.memory.resize;
    if let Some(pending) = &memory.pending {
        let reason = Some(pending.verdict.reason());
        add(resize::PENDING, reason, Some(&pending.message), pending.generation);
    }
    if resize::is_in_progress(view) || memory.generation.is_some() {
        let last = before.iter().find(|c| c.type_ == resize::IN_PROGRESS);
        let known = memory.generation.or_else(|| last.and_then(|c| c.observed_generation));
        let generation = known.or(view.pod.metadata.generation);
        let reason = memory.error.as_ref().map(|_| "Error");
        add(resize::IN_PROGRESS, reason, memory.error.as_deref(), generation);
    }
}

/// A pod that the node ended for others' sake says so.
fn disruption(view: &View<'_>, before: &[PodCondition], all: &mut Vec<PodCondition>) {
    const TARGET: &str = "DisruptionTarget";
    // As late as the phase, which says why.
    let ending = view.memory.ending.as_ref().filter(|_| !may_run(view));
    let Some(message) = ending.and_then(|ending| ending.disruption.clone()) else { return };
    let last = before.iter().find(|c| c.type_ == TARGET && c.status == "True");
    all.retain(|c| c.type_ != TARGET);
    all.push(PodCondition {
        type_: TARGET.into(),
        status: "True".into(),
        reason: Some("TerminationByKubelet".into()),
        message: Some(message),
        last_probe_time: None,
        last_transition_time: last
            .and_then(|c| c.last_transition_time.clone())
            .or_else(|| Some(seconds(view.now))),
        observed_generation: view.pod.metadata.generation,
    });
}

fn listed(label: &str, names: &[&str]) -> Option<String> {
    (!names.is_empty()).then(|| format!("containers with {label} status: [{}]", names.join(" ")))
}

fn find<'a>(list: &'a Option<Vec<ContainerStatus>>, name: &str) -> Option<&'a ContainerStatus> {
    list.iter().flatten().find(|s| s.name == name)
}

fn containers_ready(spec: &PodSpec, new: &PodStatus) -> Verdict {
    match new.phase.as_deref() {
        Some("Succeeded") => return (false, "PodCompleted", String::new()),
        Some("Failed") => return (false, "PodFailed", String::new()),
        _ => {}
    }
    let sidecars = spec.init_containers.iter().flatten().filter(|c| is_sidecar(c));
    let statuses = sidecars
        .map(|c| (c, find(&new.init_container_statuses, &c.name)))
        .chain(spec.containers.iter().map(|c| (c, find(&new.container_statuses, &c.name))));
    let unready: Vec<&str> = statuses
        .filter(|(_, s)| s.is_none_or(|s| !s.ready))
        .map(|(c, _)| c.name.as_str())
        .collect();
    match listed("unready", &unready) {
        Some(message) => (false, "ContainersNotReady", message),
        None => (true, "", String::new()),
    }
}

fn gates(spec: &PodSpec, conditions: &[PodCondition]) -> Verdict {
    let unmet: Vec<String> = spec
        .readiness_gates
        .iter()
        .flatten()
        .filter_map(|gate| {
            let name = &gate.condition_type;
            match conditions.iter().find(|c| c.type_ == *name) {
                None => Some(format!(
                    "corresponding condition of pod readiness gate \"{name}\" does not exist."
                )),
                Some(c) if c.status != "True" => Some(format!(
                    "the status of pod readiness gate \"{name}\" is not \"True\", but {}",
                    c.status
                )),
                Some(_) => None,
            }
        })
        .collect();
    match unmet.is_empty() {
        true => (true, "", String::new()),
        false => (false, "ReadinessGatesNotReady", unmet.join(", ")),
    }
}

fn restarting(view: &View<'_>, new: &PodStatus) -> Verdict {
    match new.phase.as_deref() {
        Some("Succeeded") => (false, "PodCompleted", String::new()),
        Some("Failed") => (false, "PodFailed", String::new()),
        _ if view.memory.restarting => {
            let message = "container exited with restart policy rule".to_owned();
            (true, "RestartAllContainersStarted", message)
        }
        _ => (false, "", String::new()),
    }
}

fn initialized(view: &View<'_>, spec: &PodSpec, new: &PodStatus, old: &PodStatus) -> Verdict {
    if new.phase.as_deref() == Some("Succeeded") {
        return (true, "PodCompleted", String::new());
    }
    if spec
        .containers
        .iter()
        .any(|c| view.observed.latest(&c.name).is_some_and(|i| i.started_at > 0))
    {
        return (true, "", String::new());
    }
    let open: Vec<&str> = spec
        .init_containers
        .iter()
        .flatten()
        .filter(|c| {
            find(&new.init_container_statuses, &c.name).is_none_or(|s| match is_sidecar(c) {
                true => s.started != Some(true),
                false => !s.ready,
            })
        })
        .map(|c| c.name.as_str())
        .collect();
    // A pod that begins anew stays initialized.
    let was = old.conditions.iter().flatten();
    if was.into_iter().any(|c| c.type_ == "Initialized" && c.status == "True") {
        return (true, "", String::new());
    }
    match listed("incomplete", &open) {
        Some(message) => (false, "ContainersNotInitialized", message),
        None => (true, "", String::new()),
    }
}
