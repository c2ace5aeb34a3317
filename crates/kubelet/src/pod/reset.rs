//! All containers of a pod start again because one of them ended with a code that asks for it
//! (`RestartAllContainers`): every one is killed and removed, and the pod begins with its first init
//! container, in the sandbox and with the volumes that it has. Pure.

use k8s_openapi::api::core::v1::{Container, ContainerRestartRule, Pod, PodSpec};

use super::observed::{Instance, State};
use super::plan::{Action, Plan, View, kill};
use super::terminate::cancel_starts;
use crate::spec::spec_of;

pub(crate) const CONDITION: &str = "AllContainersRestarting";
/// Why a container that was removed waits, and how its run ended.
pub(crate) const REASON: &str = "RestartingAllContainers";
pub(crate) const MESSAGE: &str = "The container is removed because RestartAllContainers in place";
const ACTION: &str = "RestartAllContainers";

/// The first rule that the exit code matches.
pub(crate) fn rule(container: &Container, exit_code: i32) -> Option<&ContainerRestartRule> {
    container.restart_policy_rules.iter().flatten().find(|rule| {
        let Some(codes) = &rule.exit_codes else { return false };
        let listed = codes.values.iter().flatten().any(|c| *c == exit_code);
        match codes.operator.as_str() {
            "In" => listed,
            "NotIn" => !listed,
            _ => false,
        }
    })
}

/// Whether the rule that matches has one of the actions that start the container again.
pub(crate) fn rule_restarts(container: &Container, exit_code: i32) -> bool {
    container.restart_policy.is_some()
        && rule(container, exit_code)
            .is_some_and(|r| matches!(r.action.as_str(), "Restart" | ACTION))
}

fn all(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.init_containers.iter().flatten().chain(&spec.containers)
}

/// Whether any container of the pod may ask for it.
pub(crate) fn is_possible(spec: &PodSpec) -> bool {
    all(spec).any(|c| c.restart_policy_rules.iter().flatten().any(|r| r.action == ACTION))
}

/// Whether the API's status says that it was under way.
pub(crate) fn was_under_way(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    conditions.into_iter().flatten().any(|c| c.type_ == CONDITION && c.status == "True")
}

fn asks(container: &Container, instance: &Instance) -> bool {
    instance.state == State::Exited
        && rule(container, instance.exit_code).is_some_and(|r| r.action == ACTION)
}

/// Whether it is under way: from the exit that asks for it until the last container is removed.
pub(crate) fn is_under_way(view: &View<'_>) -> bool {
    let spec = spec_of(view.pod);
    let left = all(&spec).any(|c| view.observed.latest(&c.name).is_some());
    let asked = || all(&spec).any(|c| view.observed.latest(&c.name).is_some_and(|i| asks(c, i)));
    left && (view.memory.restarting || asked())
}

/// Kills what runs, then removes all; what asked for it goes last, so that an agent that restarts in
/// between sees it.
pub(super) fn plan(view: &View<'_>, plan: &mut Plan) {
    let spec = spec_of(view.pod);
    let own = |i: &&Instance| all(&spec).any(|c| c.name == i.name);
    let mut any = false;
    for instance in view.observed.containers.iter().filter(own) {
        if matches!(instance.state, State::Running | State::Unknown) {
            any = true;
            kill(view, plan, instance, Some(0), "killing".into());
        }
    }
    if any || cancel_starts(view, plan) {
        return;
    }
    let (mut ids, mut sources) = (Vec::new(), Vec::new());
    for instance in view.observed.containers.iter().filter(own) {
        let source = all(&spec).any(|c| c.name == instance.name && asks(c, instance));
        let list = if source { &mut sources } else { &mut ids };
        list.push(instance.id.clone());
    }
    ids.append(&mut sources);
    plan.push(Action::Reset { ids });
}
