//! What an eviction takes from a disruption budget, and the refusals when there is nothing to take.
//!
//! Rule: `registry/core/pod/storage/eviction.go`. Pure.

use api::Status;
use serde_json::{Value, json};
use validation::{items, items_mut, set_default};

use strategy::meta;

/// More evictions than this wait for the controller: something is wrong with it.
const DISRUPTED_MAX: usize = 2000;
/// Seconds until another try may help.
const RETRY_SECONDS: u16 = 10;
const VIOLATED: &str = "Cannot evict pod as it would violate the pod's disruption budget.";
const CONDITION: &str = "DisruptionAllowed";

/// Whether the pod goes without a question to any budget: it has ended, not begun, or goes already.
pub(super) fn is_free(pod: &Value) -> bool {
    pod["status"]["phase"] == "Pending" || has_ended(pod)
}

/// Whether the pod can no longer become healthy behind our back.
pub(super) fn has_ended(pod: &Value) -> bool {
    matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
        || pod["metadata"]["deletionTimestamp"].is_string()
}

/// Whether a pod that is not healthy may go although nothing is spent for it.
pub(super) fn lets_unhealthy_go(budget: &Value, pod: &Value) -> bool {
    let ready =
        items(&pod["status"], "conditions").any(|c| c["type"] == "Ready" && c["status"] == "True");
    let number = |key: &str| budget["status"][key].as_i64().unwrap_or(0);
    let desired = number("desiredHealthy");
    !ready
        && (budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
            || desired > 0 && number("currentHealthy") >= desired)
}

/// The budget with one disruption less, which the pod is.
pub(super) fn spend(budget: &Value, pod: &str, now: &str) -> Result<Value, Status> {
    let status = &budget["status"];
    let name = meta::text(budget, "name");
    let generation = budget["metadata"]["generation"].as_i64().unwrap_or(0);
    if status["observedGeneration"].as_i64().unwrap_or(0) < generation {
        return Err(still_processed(name));
    }
    let allowed = status["disruptionsAllowed"].as_i64().unwrap_or(0);
    let forbid = |why: &str| Err(Status::forbidden("policy", "poddisruptionbudget", name, why));
    if allowed < 0 {
        return forbid("pdb disruptions allowed is negative");
    }
    if status["disruptedPods"].as_object().is_some_and(|pods| pods.len() > DISRUPTED_MAX) {
        return forbid(
            "DisruptedPods map too big - too many evictions not confirmed by PDB controller",
        );
    }
    if allowed == 0 {
        return Err(too_many(why_not(name, status)));
    }
    let mut spent = budget.clone();
    spent["status"]["disruptionsAllowed"] = (allowed - 1).into();
    if allowed == 1 {
        set_exhausted(&mut spent["status"], now);
    }
    set_default(&mut spent["status"], "disruptedPods", json!({}));
    spent["status"]["disruptedPods"][pod] = now.into();
    meta::of(&mut spent).remove("resourceVersion");
    Ok(spent)
}

/// The budget does not show yet what it allows.
pub(super) fn still_processed(name: &str) -> Status {
    let why = format!("The disruption budget {name} is still being processed by the server.");
    too_many(why).with_retry_after(RETRY_SECONDS)
}

fn too_many(why: String) -> Status {
    let cause = meta::cause("DisruptionBudget", "", why);
    Status::failure(429, "TooManyRequests", VIOLATED).with_causes(vec![cause])
}

fn why_not(name: &str, status: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
    let condition = items(status, "conditions").find(|c| c["type"] == CONDITION);
    let refused = condition.filter(|c| c["status"] == "False" && !text(&c["message"]).is_empty());
    let number = |key: &str| status[key].as_i64().unwrap_or(0);
    let (current, desired) = (number("currentHealthy"), number("desiredHealthy"));
    let not_now = format!("The disruption budget {name} does not allow evicting pods currently");
    match refused {
        // Then the numbers say nothing.
        Some(failed) if failed["reason"] == "SyncFailed" => {
            format!("{not_now} because it failed sync: {}", text(&failed["message"]))
        }
        _ if current <= desired => format!(
            "The disruption budget {name} needs {desired} healthy pods and has {current} currently"
        ),
        Some(refused) => {
            format!("{not_now} ({}): {}", text(&refused["reason"]), text(&refused["message"]))
        }
        None => not_now,
    }
}

/// The last disruption is taken.
fn set_exhausted(status: &mut Value, now: &str) {
    let observed = status["observedGeneration"].clone();
    set_default(status, "conditions", json!([]));
    let known = items(status, "conditions").any(|c| c["type"] == CONDITION);
    if !known && let Some(list) = status["conditions"].as_array_mut() {
        list.push(json!({"type": CONDITION, "message": ""}));
    }
    for condition in items_mut(status, "conditions").filter(|c| c["type"] == CONDITION) {
        if condition["status"] != "False" {
            condition["lastTransitionTime"] = now.into();
        }
        condition["status"] = "False".into();
        condition["reason"] = "InsufficientPods".into();
        condition["message"] = "".into();
        condition["observedGeneration"] = observed.clone();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(status: Value) -> Value {
        json!({"metadata": {"name": "b", "generation": 2}, "spec": {}, "status": status})
    }

    fn refused(status: Value) -> (u16, String) {
        let told = spend(&budget(status), "p", "now").expect_err("refused");
        let cause = told.details.and_then(|d| d.causes.into_iter().next());
        (told.code, cause.map_or(told.message, |cause| cause.message))
    }

    #[test]
    fn a_disruption_is_spent_and_the_last_one_told() {
        let spent =
            spend(&budget(json!({"observedGeneration": 2, "disruptionsAllowed": 1})), "p", "now");
        let status = spent.expect("allowed")["status"].clone();
        assert_eq!(status["disruptionsAllowed"], 0);
        assert_eq!(status["disruptedPods"], json!({"p": "now"}));
        assert_eq!(status["conditions"][0]["reason"], "InsufficientPods");
    }

    #[test]
    fn each_refusal_says_why() {
        let processed = "The disruption budget b is still being processed by the server.";
        assert_eq!(refused(json!({"observedGeneration": 1})), (429, processed.into()));
        let needs = "The disruption budget b needs 3 healthy pods and has 2 currently";
        let status = json!({"observedGeneration": 2, "desiredHealthy": 3, "currentHealthy": 2});
        assert_eq!(refused(status), (429, needs.into()));
        let failed = json!({"observedGeneration": 2, "conditions": [{"type": CONDITION,
            "status": "False", "reason": "SyncFailed", "message": "no"}]});
        let told = "The disruption budget b does not allow evicting pods currently because it failed sync: no";
        assert_eq!(refused(failed), (429, told.into()));
        let negative = json!({"observedGeneration": 2, "disruptionsAllowed": -1});
        let told =
            "poddisruptionbudget.policy \"b\" is forbidden: pdb disruptions allowed is negative";
        assert_eq!(refused(negative), (403, told.into()));
    }

    #[test]
    fn unhealthy_pods_go_when_enough_are_healthy_or_the_policy_says_so() {
        let pod =
            |ready: &str| json!({"status": {"conditions": [{"type": "Ready", "status": ready}]}});
        let enough = budget(json!({"currentHealthy": 2, "desiredHealthy": 2}));
        assert!(lets_unhealthy_go(&enough, &pod("False")));
        assert!(!lets_unhealthy_go(&enough, &pod("True")));
        let short = budget(json!({"currentHealthy": 1, "desiredHealthy": 2}));
        assert!(!lets_unhealthy_go(&short, &pod("False")));
        let none = budget(json!({"currentHealthy": 0, "desiredHealthy": 0}));
        assert!(!lets_unhealthy_go(&none, &pod("False")));
        let mut always = short;
        always["spec"]["unhealthyPodEvictionPolicy"] = "AlwaysAllow".into();
        assert!(lets_unhealthy_go(&always, &pod("False")));
    }
}
