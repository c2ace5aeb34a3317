//! Pod failure policy and success policy.

use k8s_openapi::api::batch::v1::{
    Job, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern,
    PodFailurePolicyRule, SuccessPolicyRule,
};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use super::indexes::Indexes;
use crate::meta::{name, namespace};
use crate::pods::phase;

/// What the policy says of a failed pod.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// The pod fails the Job, for this reason.
    pub(crate) fails_job: Option<String>,
    /// The pod fails its index, whatever back-off the index has left.
    pub(crate) fails_index: bool,
    /// The failure does not count.
    pub(crate) ignored: bool,
    /// What the rule that fits asks for.
    pub(crate) action: Option<&'static str>,
}

/// Whether the pod counts as failed. With `podReplacementPolicy: Failed` or a failure policy a pod that
/// is deleted has not failed before it ends.
pub(crate) fn is_failed(job: &Job, pod: &Pod) -> bool {
    match phase(pod) {
        "Failed" => true,
        "Succeeded" => false,
        _ => pod.metadata.deletion_timestamp.is_some() && !only_replaces_failed(job),
    }
}

pub(crate) fn only_replaces_failed(job: &Job) -> bool {
    let Some(spec) = &job.spec else { return false };
    spec.pod_replacement_policy.as_deref() == Some("Failed") || spec.pod_failure_policy.is_some()
}

/// The first rule that fits decides.
pub(crate) fn judge(job: &Job, pod: &Pod) -> Verdict {
    let policy = job.spec.as_ref().and_then(|s| s.pod_failure_policy.as_ref());
    for (at, rule) in policy.iter().flat_map(|p| p.rules.iter().enumerate()) {
        let Some(subject) = subject(rule, pod) else { continue };
        let of = |action| Verdict { action: Some(action), ..Verdict::default() };
        match rule.action.as_str() {
            "Ignore" => return Verdict { ignored: true, ..of("Ignore") },
            "FailIndex" => return Verdict { fails_index: true, ..of("FailIndex") },
            "Count" => return of("Count"),
            "FailJob" => {
                let message = format!("{subject} matching FailJob rule at index {at}");
                return Verdict { fails_job: Some(message), ..of("FailJob") };
            }
            // An action of a later version.
            _ => {}
        }
    }
    Verdict::default()
}

/// What the rule found, as the beginning of a message; `None` if the rule does not fit.
fn subject(rule: &PodFailurePolicyRule, pod: &Pod) -> Option<String> {
    let (space, own) = (namespace(&pod.metadata), name(&pod.metadata));
    if let Some(wanted) = &rule.on_exit_codes {
        let (container, code) = with_exit_code(pod, wanted)?;
        let container = &container.name;
        return Some(format!(
            "Container {container} for pod {space}/{own} failed with exit code {code}"
        ));
    }
    let kind = with_condition(pod, rule.on_pod_conditions.as_deref()?)?;
    Some(format!("Pod {space}/{own} has condition {kind}"))
}

fn with_exit_code<'a>(
    pod: &'a Pod,
    wanted: &PodFailurePolicyOnExitCodesRequirement,
) -> Option<(&'a ContainerStatus, i32)> {
    let status = pod.status.as_ref()?;
    let main = status.container_statuses.iter().flatten();
    let mut all = main.chain(status.init_container_statuses.iter().flatten());
    all.find_map(|container| {
        let code = container.state.as_ref()?.terminated.as_ref()?.exit_code;
        let named = wanted.container_name.as_ref().is_none_or(|n| *n == container.name);
        let fits = match wanted.operator.as_str() {
            "In" => wanted.values.contains(&code),
            "NotIn" => !wanted.values.contains(&code),
            _ => false,
        };
        (code != 0 && named && fits).then_some((container, code))
    })
}

fn with_condition<'a>(
    pod: &'a Pod,
    patterns: &[PodFailurePolicyOnPodConditionsPattern],
) -> Option<&'a str> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let fits = |kind: &str, status: &str| {
        patterns.iter().any(|p| p.type_ == kind && p.status.as_deref().unwrap_or("True") == status)
    };
    conditions.iter().find(|c| fits(&c.type_, &c.status)).map(|c| c.type_.as_str())
}

/// Why the success policy is met, if it is.
pub(crate) fn success(job: &Job, succeeded: &Indexes) -> Option<String> {
    let spec = job.spec.as_ref()?;
    let policy = spec.success_policy.as_ref().filter(|_| !succeeded.is_empty())?;
    let completions = spec.completions.unwrap_or(0);
    let met = |rule: &SuccessPolicyRule| match &rule.succeeded_indexes {
        Some(text) => {
            let wanted = Indexes::parse(text, completions);
            let common = wanted.common(succeeded);
            !wanted.is_empty()
                && (common == wanted.total() || rule.succeeded_count.is_some_and(|n| common >= n))
        }
        None => rule.succeeded_count.is_some_and(|n| succeeded.total() >= n),
    };
    let at = policy.rules.iter().position(met)?;
    Some(format!("Matched rules at index {at}"))
}
