//! When a job has failed, and when it has done enough.

use api::names;
use serde_json::Value;

use super::indexes;
use crate::check::At;

const RULES_MAX: usize = 20;

pub(super) fn failure(spec: &At<'_>, policy: &At<'_>) {
    let rules = policy.get("rules");
    if rules.len() > RULES_MAX {
        rules.too_many(RULES_MAX);
    }
    let pod = &spec.value()["template"]["spec"];
    let lists = ["containers", "initContainers"].into_iter();
    let containers: Vec<&str> = lists
        .flat_map(|kind| pod[kind].as_array().into_iter().flatten())
        .filter_map(|c| c["name"].as_str())
        .collect();
    for rule in rules.items() {
        failure_rule(&rule, spec.get("backoffLimitPerIndex").is_absent(), &containers);
    }
}

fn failure_rule(rule: &At<'_>, no_per_index: bool, containers: &[&str]) {
    const ACTIONS: [&str; 4] = ["Count", "FailIndex", "FailJob", "Ignore"];
    let action = rule.get("action");
    match action.text() {
        "" => action.required(&format!("valid values: {}", listed(&ACTIONS))),
        "FailIndex" if no_per_index => {
            action.invalid("requires the backoffLimitPerIndex to be set");
        }
        "FailIndex" => {}
        _ => drop(action.one_of(&ACTIONS)),
    }
    let (codes, conditions) = (rule.get("onExitCodes"), rule.get("onPodConditions"));
    if !codes.is_absent() {
        exit_codes(&codes, containers);
    }
    pod_conditions(&conditions);
    match (codes.is_absent(), conditions.is_empty()) {
        (false, false) => {
            rule.invalid_omitted("specifying both OnExitCodes and OnPodConditions is not supported")
        }
        (true, true) => {
            rule.invalid_omitted("specifying one of OnExitCodes and OnPodConditions is required");
        }
        _ => {}
    }
}

/// A list as Go's `%q` shows it.
fn listed(values: &[&str]) -> String {
    let quoted: Vec<String> = values.iter().map(|v| format!("{v:?}")).collect();
    format!("[{}]", quoted.join(" "))
}

fn exit_codes(codes: &At<'_>, containers: &[&str]) {
    const OPERATORS: [&str; 2] = ["In", "NotIn"];
    let (operator, container, values) =
        (codes.get("operator"), codes.get("containerName"), codes.get("values"));
    if operator.is_empty() {
        operator.required(&format!("valid values: {}", listed(&OPERATORS)));
    } else {
        operator.one_of(&OPERATORS);
    }
    if !container.is_absent() && !containers.contains(&container.text()) {
        container
            .invalid("must be one of the container or initContainer names in the pod template");
    }
    if values.is_empty() {
        values.invalid("at least one value is required");
    } else if values.len() > 255 {
        values.too_many(255);
    }
    let numbers: Vec<i64> = values.items().map(|v| v.number()).collect();
    for (at, value) in values.items().enumerate() {
        if operator.text() == "In" && numbers[at] == 0 {
            value.invalid("must not be 0 for the In operator");
        }
        if numbers[..at].contains(&numbers[at]) {
            value.duplicate();
        }
    }
    if !numbers.is_sorted() {
        values.invalid("must be ordered");
    }
}

fn pod_conditions(list: &At<'_>) {
    const STATUSES: [&str; 3] = ["False", "True", "Unknown"];
    if list.len() > RULES_MAX {
        list.too_many(RULES_MAX);
    }
    for pattern in list.items() {
        pattern.get("type").named(names::qualified_name);
        let status = pattern.get("status");
        if status.is_empty() {
            status.required(&format!("valid values: {}", listed(&STATUSES)));
        } else {
            status.one_of(&STATUSES);
        }
    }
}

pub(super) fn success(spec: &At<'_>, policy: &At<'_>) {
    let rules = policy.get("rules");
    if rules.is_empty() {
        rules.required("at least one rules must be specified when the successPolicy is specified");
    }
    if rules.len() > RULES_MAX {
        rules.too_many(RULES_MAX);
    }
    let completions = spec.get("completions").number();
    rules.items().for_each(|rule| success_rule(&rule, completions));
}

fn success_rule(rule: &At<'_>, completions: i64) {
    let (count, which) = (rule.get("succeededCount"), rule.get("succeededIndexes"));
    if count.is_absent() && which.is_absent() {
        rule.required("at least one of succeededCount or succeededIndexes must be specified");
    }
    let mut total = 0;
    if let Value::String(text) = which.value() {
        if text.len() > 64 * 1024 {
            which.too_long(64 * 1024);
        }
        match indexes::count(text, completions) {
            Ok(found) => total = found,
            Err(fault) => which.invalid(&format!("error parsing succeededIndexes: {fault}")),
        }
    }
    let Some(wanted) = count.int() else { return };
    count.non_negative();
    if wanted > completions {
        count.invalid(&format!(
            "must be less than or equal to {completions} (the number of specified completions)"
        ));
    }
    if !which.is_absent() && wanted > total {
        count.invalid(&format!("must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)"));
    }
}
