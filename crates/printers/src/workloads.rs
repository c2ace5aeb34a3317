//! Cells of the kinds that make pods.

use api::registry::Resource;
use serde_json::Value;

use super::selectors::{labels, plain_selector, selector};
use super::{Cells, age, containers, human, name, number, since, text};
use validation::items;

pub(super) fn cells(row: &Resource) -> Option<Cells> {
    Some(match (row.group, row.name) {
        ("", "pods") => super::pods::cells,
        ("apps", "deployments") => DEPLOYMENTS,
        ("apps", "replicasets") => |o| replicas(o, selector(&o["spec"]["selector"])),
        ("", "replicationcontrollers") => |o| replicas(o, labels(&o["spec"]["selector"])),
        ("apps", "daemonsets") => DAEMON_SETS,
        ("apps", "statefulsets") => STATEFUL_SETS,
        ("batch", "jobs") => JOBS,
        ("batch", "cronjobs") => CRON_JOBS,
        _ => return None,
    })
}

const DEPLOYMENTS: Cells = |o| {
    let (spec, status) = (&o["spec"], &o["status"]);
    let (names, images) = containers(&spec["template"]["spec"]);
    let ready = format!("{}/{}", number(&status["readyReplicas"]), number(&spec["replicas"]));
    vec![
        name(o),
        ready.into(),
        number(&status["updatedReplicas"]).into(),
        number(&status["availableReplicas"]).into(),
        age(o),
        names.into(),
        images.into(),
        plain_selector(&spec["selector"]).unwrap_or_else(|| "<invalid>".into()).into(),
    ]
};

fn replicas(o: &Value, selector: String) -> Vec<Value> {
    let (spec, status) = (&o["spec"], &o["status"]);
    let (names, images) = containers(&spec["template"]["spec"]);
    vec![
        name(o),
        number(&spec["replicas"]).into(),
        number(&status["replicas"]).into(),
        number(&status["readyReplicas"]).into(),
        age(o),
        names.into(),
        images.into(),
        selector.into(),
    ]
}

const DAEMON_SETS: Cells = |o| {
    let (spec, status) = (&o["spec"], &o["status"]);
    let (names, images) = containers(&spec["template"]["spec"]);
    vec![
        name(o),
        number(&status["desiredNumberScheduled"]).into(),
        number(&status["currentNumberScheduled"]).into(),
        number(&status["numberReady"]).into(),
        number(&status["updatedNumberScheduled"]).into(),
        number(&status["numberAvailable"]).into(),
        labels(&spec["template"]["spec"]["nodeSelector"]).into(),
        age(o),
        names.into(),
        images.into(),
        selector(&spec["selector"]).into(),
    ]
};

const STATEFUL_SETS: Cells = |o| {
    let (names, images) = containers(&o["spec"]["template"]["spec"]);
    let ready =
        format!("{}/{}", number(&o["status"]["readyReplicas"]), number(&o["spec"]["replicas"]));
    vec![name(o), ready.into(), age(o), names.into(), images.into()]
};

const JOBS: Cells = |o| {
    let (spec, status) = (&o["spec"], &o["status"]);
    let (names, images) = containers(&spec["template"]["spec"]);
    vec![
        name(o),
        job_status(o).into(),
        job_completions(spec, status).into(),
        job_duration(status).into(),
        age(o),
        names.into(),
        images.into(),
        selector(&spec["selector"]).into(),
    ]
};

fn job_completions(spec: &Value, status: &Value) -> String {
    let succeeded = number(&status["succeeded"]);
    match (spec["completions"].as_i64(), number(&spec["parallelism"])) {
        (Some(wanted), _) => format!("{succeeded}/{wanted}"),
        (None, parallelism) if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        (None, _) => format!("{succeeded}/1"),
    }
}

fn job_status(job: &Value) -> &'static str {
    let holds = |kind: &str| {
        let mut all = items(&job["status"], "conditions");
        all.find(|c| c["type"] == kind).is_some_and(|c| c["status"] == "True")
    };
    if holds("Complete") {
        "Complete"
    } else if holds("Failed") {
        "Failed"
    } else if job["metadata"]["deletionTimestamp"].is_string() {
        "Terminating"
    } else if holds("Suspended") {
        "Suspended"
    } else if holds("FailureTarget") {
        "FailureTarget"
    } else if holds("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    }
}

fn job_duration(status: &Value) -> String {
    let stamp = |key: &str| status[key].as_str().and_then(|t| t.parse::<jiff::Timestamp>().ok());
    match (stamp("startTime"), stamp("completionTime")) {
        (Some(start), Some(end)) => human(end.duration_since(start).as_secs()),
        (Some(_), None) => since(&status["startTime"]),
        _ => String::new(),
    }
}

const CRON_JOBS: Cells = |o| {
    let spec = &o["spec"];
    let (names, images) = containers(&spec["jobTemplate"]["spec"]["template"]["spec"]);
    let suspended = match spec["suspend"].as_bool() {
        Some(true) => "True",
        Some(false) => "False",
        None => "<unset>",
    };
    let last = match o["status"]["lastScheduleTime"].as_str() {
        Some(_) => since(&o["status"]["lastScheduleTime"]),
        None => "<none>".into(),
    };
    vec![
        name(o),
        text(&spec["schedule"]).into(),
        spec["timeZone"].as_str().unwrap_or("<none>").into(),
        suspended.into(),
        items(&o["status"], "active").count().into(),
        last.into(),
        age(o),
        names.into(),
        images.into(),
        selector(&spec["jobTemplate"]["spec"]["selector"]).into(),
    ]
};

/// Cells of a Scale.
pub(super) fn scale(o: &Value) -> Vec<Value> {
    let [desired, available] = ["spec", "status"].map(|part| number(&o[part]["replicas"]).into());
    vec![name(o), desired, available, age(o)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn jobs_without_completions_need_one() {
        let shown = |spec: Value| job_completions(&spec, &json!({"succeeded": 2}));
        assert_eq!(shown(json!({"completions": 5})), "2/5");
        assert_eq!(shown(json!({"parallelism": 3})), "2/1 of 3");
        assert_eq!(shown(json!({"parallelism": 1})), "2/1");
    }

    #[test]
    fn suspension_may_be_unset() {
        let cell = |suspend: Value| CRON_JOBS(&json!({"spec": {"suspend": suspend}}))[3].clone();
        assert_eq!((cell(true.into()), cell(Value::Null)), (json!("True"), json!("<unset>")));
    }

    #[test]
    fn deployments_show_malformed_selectors() {
        let cell =
            |selector: Value| DEPLOYMENTS(&json!({"spec": {"selector": selector}}))[7].clone();
        assert_eq!(cell(json!({})), "");
        assert_eq!(cell(json!({"matchExpressions": [{"key": "a", "operator": "?"}]})), "<invalid>");
    }
}
