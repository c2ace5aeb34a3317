//! Writes to a job's status: what it says of itself must be possible.

use serde_json::Value;

use super::indexes;
use crate::check::At;

fn holds(status: &Value, kind: &str) -> bool {
    let mut list = status["conditions"].as_array().into_iter().flatten();
    list.any(|c| c["type"] == kind && c["status"] == "True")
}

fn finished(status: &Value) -> bool {
    holds(status, "Complete") || holds(status, "Failed")
}

pub(super) fn status(job: &At<'_>) {
    let (spec, status) = (job.get("spec"), job.get("status"));
    for field in ["active", "succeeded", "failed", "ready", "terminating"] {
        status.get(field).non_negative();
    }
    uncounted(&status.get("uncountedTerminatedPods"));
    let old = status.old().unwrap_or(&Value::Null);
    conditions(&status, old);
    counts(&status, old);
    index_lists(&spec, &status);
    busy(&status, old);
    success(&spec, &status);
    transitions(&spec, &status, old);
}

fn uncounted(pods: &At<'_>) {
    for field in ["succeeded", "failed"] {
        let list = pods.get(field);
        let all = list.value().as_array().map_or(&[][..], Vec::as_slice);
        for (at, uid) in list.items().enumerate() {
            if uid.is_empty() {
                uid.invalid_text("must not be empty");
            } else if all[..at].contains(uid.value()) {
                uid.duplicate();
            }
        }
    }
}

/// The rules are for what changes: older jobs may stay as they are.
fn changed(status: &At<'_>, old: &Value, kinds: &[&str]) -> bool {
    kinds.iter().any(|kind| holds(status.value(), kind) != holds(old, kind))
}

fn conditions(status: &At<'_>, old: &Value) {
    let now = status.value();
    let list = status.get("conditions");
    let complete = holds(now, "Complete");
    let both =
        |other: &str| changed(status, old, &["Complete", other]) && complete && holds(now, other);
    if both("Failed") {
        list.invalid_omitted("cannot set Complete=True and Failed=true conditions");
    }
    if both("FailureTarget") {
        list.invalid_omitted("cannot set Complete=True and FailureTarget=true conditions");
    }
    let (start, end) = (status.get("startTime"), status.get("completionTime"));
    let ended = changed(status, old, &["Complete"]) || !end.unchanged();
    if ended && !end.is_absent() && !complete {
        end.invalid("cannot set completionTime when there is no Complete=True condition");
    }
    if ended && end.is_absent() && complete {
        end.required("completionTime is required for Complete jobs");
    }
    if (!start.unchanged() || !end.unchanged())
        && !start.is_absent()
        && !end.is_absent()
        && end.text() < start.text()
    {
        end.invalid("must be equal to or after `startTime`");
    }
    if changed(status, old, &["Failed", "FailureTarget"])
        && holds(now, "Failed")
        && !holds(now, "FailureTarget")
    {
        list.invalid_omitted(
            "cannot set Failed=True condition without the FailureTarget=true condition",
        );
    }
    if changed(status, old, &["Complete", "SuccessCriteriaMet"])
        && complete
        && !holds(now, "SuccessCriteriaMet")
    {
        list.invalid_omitted(
            "cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
        );
    }
}

fn counts(status: &At<'_>, old: &Value) {
    let is_finished = finished(status.value());
    let ended = is_finished != finished(old);
    let (active, start) = (status.get("active"), status.get("startTime"));
    if (ended || !active.unchanged()) && active.number() > 0 && is_finished {
        active.invalid("active>0 is invalid for finished job");
    }
    if (ended || !start.unchanged()) && start.is_absent() && is_finished {
        start.required("startTime is required for finished job");
    }
    let pods = status.get("uncountedTerminatedPods");
    let some = pods.get("succeeded").len() + pods.get("failed").len() > 0;
    if (ended || !pods.unchanged()) && is_finished && some {
        pods.invalid_struct("batch.UncountedTerminatedPods", "must be empty for finished job");
    }
}

fn index_lists(spec: &At<'_>, status: &At<'_>) {
    let (completed, failed) = (status.get("completedIndexes"), status.get("failedIndexes"));
    let completions = spec.get("completions").int();
    let per_index = !spec.get("backoffLimitPerIndex").is_absent();
    let parse = |at: &At<'_>, name: &str| {
        if let Some(Err(fault)) = completions.map(|most| indexes::count(at.text(), most)) {
            at.invalid(&format!("error parsing {name}: {fault}"));
        }
    };
    if !completed.unchanged() {
        parse(&completed, "completedIndexes");
    }
    if !failed.unchanged() && per_index && !failed.is_absent() {
        parse(&failed, "failedIndexes");
    }
    let indexed = spec.get("completionMode").text() == "Indexed";
    if !completed.unchanged() && !completed.is_empty() && !indexed {
        completed.invalid("cannot set non-empty completedIndexes when non-indexed completion mode");
    }
    if !failed.unchanged() && !per_index && !failed.is_absent() {
        failed.invalid("cannot set non-null failedIndexes when backoffLimitPerIndex is null");
    }
    if let (false, Some(most)) = (completed.unchanged() && failed.unchanged(), completions)
        && let Some(at) = indexes::overlap(completed.text(), failed.text(), most)
    {
        failed.invalid(&format!("failedIndexes and completedIndexes overlap at index: {at}"));
    }
}

fn busy(status: &At<'_>, old: &Value) {
    let is_finished = finished(status.value());
    let ended = is_finished != finished(old);
    let (terminating, ready) = (status.get("terminating"), status.get("ready"));
    if (ended || !terminating.unchanged()) && terminating.number() > 0 && is_finished {
        terminating.invalid("terminating>0 is invalid for finished job");
    }
    let active = status.get("active");
    if (!ready.unchanged() || !active.unchanged()) && ready.number() > active.number() {
        ready.invalid("cannot set more ready pods than active");
    }
}

fn success(spec: &At<'_>, status: &At<'_>) {
    let (now, list) = (status.value(), status.get("conditions"));
    let met = holds(now, "SuccessCriteriaMet");
    if met && holds(now, "Failed") {
        list.invalid_omitted("cannot set SuccessCriteriaMet=True and Failed=true conditions");
    }
    if met && holds(now, "FailureTarget") {
        list.invalid_omitted(
            "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions",
        );
    }
    if !spec.get("successPolicy").is_absent() && !met && holds(now, "Complete") {
        list.invalid_omitted(
            "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True",
        );
    }
}

fn transitions(spec: &At<'_>, status: &At<'_>, old: &Value) {
    let (now, list) = (status.value(), status.get("conditions"));
    for kind in ["Failed", "Complete", "FailureTarget"] {
        if holds(old, kind) && !holds(now, kind) {
            list.invalid_omitted(&format!("cannot disable the terminal {kind}=True condition"));
        }
    }
    for field in ["failed", "succeeded"] {
        let at = status.get(field);
        if at.number() < old[field].as_i64().unwrap_or(0) {
            at.invalid_number(&format!("cannot decrease the {field} counter"));
        }
    }
    let (start, end) = (status.get("startTime"), status.get("completionTime"));
    let set = |v: &Value| v.is_string();
    if set(end.value()) && set(&old["completionTime"]) && !end.unchanged() {
        end.invalid("field is immutable");
    }
    if set(&old["startTime"]) && !start.unchanged() && !spec.get("suspend").is_true() {
        start.invalid("field is immutable for unsuspended job once set");
    }
    let met = |s: &Value| holds(s, "SuccessCriteriaMet");
    if met(old) && !met(now) {
        list.invalid_omitted("cannot disable the SuccessCriteriaMet=True condition");
    }
    if holds(old, "Complete") && !met(old) && met(now) {
        list.invalid_omitted(
            "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions",
        );
    }
}
