//! Columns of pods and of what makes pods.

use api::registry::Resource;
use serde_json::Value;

use super::{Cells, age, containers, human, name, number, selector, since, text};
use validation::items;

pub(super) fn cells(row: &Resource) -> Option<Cells> {
    Some(match (row.group, row.name) {
        ("", "pods") => PODS,
        ("apps", "deployments") => DEPLOYMENTS,
        ("apps", "replicasets") | ("", "replicationcontrollers") => REPLICA_SETS,
        ("apps", "daemonsets") => DAEMON_SETS,
        ("apps", "statefulsets") => STATEFUL_SETS,
        ("batch", "jobs") => JOBS,
        ("batch", "cronjobs") => CRON_JOBS,
        _ => return None,
    })
}

const PODS: Cells = pod_cells;

fn pod_cells(pod: &Value) -> Vec<Value> {
    let status = &pod["status"];
    let statuses: Vec<&Value> = items(status, "containerStatuses").collect();
    let ready = statuses.iter().filter(|c| c["ready"] == true).count();
    let total = items(&pod["spec"], "containers").count();
    let restarts: i64 = statuses.iter().map(|c| number(&c["restartCount"])).sum();
    let last =
        statuses.iter().filter_map(|c| c["lastState"]["terminated"]["finishedAt"].as_str()).max();
    let restarts = match last.filter(|_| restarts > 0) {
        Some(at) => format!("{restarts} ({} ago)", since(&at.into())),
        None => restarts.to_string(),
    };
    let or_none = |v: &Value| if text(v).is_empty() { "<none>".into() } else { v.clone() };
    vec![
        name(pod),
        format!("{ready}/{total}").into(),
        pod_status(pod).into(),
        restarts.into(),
        age(pod),
        or_none(&status["podIP"]),
        or_none(&pod["spec"]["nodeName"]),
        or_none(&status["nominatedNodeName"]),
        readiness_gates(pod).into(),
    ]
}

fn readiness_gates(pod: &Value) -> String {
    let gates: Vec<&Value> = items(&pod["spec"], "readinessGates").collect();
    if gates.is_empty() {
        return "<none>".into();
    }
    let met = |gate: &&&Value| {
        items(&pod["status"], "conditions")
            .any(|c| c["type"] == gate["conditionType"] && c["status"] == "True")
    };
    format!("{}/{}", gates.iter().filter(met).count(), gates.len())
}

/// The word in the Status column: the most telling state of any container.
fn pod_status(pod: &Value) -> String {
    let status = &pod["status"];
    let mut word = match text(&status["reason"]) {
        "" => text(&status["phase"]).to_owned(),
        reason => reason.to_owned(),
    };
    if let Some(init) = init_status(pod) {
        word = init;
    } else {
        let mut running = false;
        for container in items(status, "containerStatuses").collect::<Vec<_>>().into_iter().rev() {
            let state = &container["state"];
            if let Some(reason) = telling(state) {
                word = reason;
            } else if container["ready"] == true && state["running"].is_object() {
                running = true;
            }
        }
        if word == "Completed" && running {
            let ready =
                items(status, "conditions").any(|c| c["type"] == "Ready" && c["status"] == "True");
            word = if ready { "Running" } else { "NotReady" }.into();
        }
    }
    if pod["metadata"]["deletionTimestamp"].is_string() {
        let finished = matches!(text(&status["phase"]), "Succeeded" | "Failed");
        word = match text(&status["reason"]) {
            "NodeLost" => "Unknown".into(),
            _ if finished => word,
            _ => "Terminating".into(),
        };
    }
    word
}

/// Why a container waits or ended.
fn telling(state: &Value) -> Option<String> {
    let waiting = text(&state["waiting"]["reason"]);
    if !waiting.is_empty() {
        return Some(waiting.into());
    }
    let ended = &state["terminated"];
    if !ended.is_object() {
        return None;
    }
    Some(match (text(&ended["reason"]), number(&ended["signal"])) {
        ("", 0) => format!("ExitCode:{}", number(&ended["exitCode"])),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.into(),
    })
}

/// `Init:1/2` and such, while init containers are not through.
fn init_status(pod: &Value) -> Option<String> {
    let total = items(&pod["spec"], "initContainers").count();
    for (at, container) in items(&pod["status"], "initContainerStatuses").enumerate() {
        let state = &container["state"];
        let sidecar = pod["spec"]["initContainers"][at]["restartPolicy"] == "Always";
        if state["terminated"].is_object() && number(&state["terminated"]["exitCode"]) == 0 {
            continue;
        }
        if sidecar && container["started"] == true {
            continue;
        }
        return Some(match telling(state) {
            Some(reason) if reason != "PodInitializing" => format!("Init:{reason}"),
            _ => format!("Init:{at}/{total}"),
        });
    }
    None
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
        selector(&spec["selector"]).into(),
    ]
};

const REPLICA_SETS: Cells = |o| {
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
        selector(&spec["selector"]).into(),
    ]
};

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
        selector(&spec["template"]["spec"]["nodeSelector"]).into(),
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
    let wanted = spec["completions"].as_i64().unwrap_or(1);
    vec![
        name(o),
        job_status(o).into(),
        format!("{}/{wanted}", number(&status["succeeded"])).into(),
        job_duration(status).into(),
        age(o),
        names.into(),
        images.into(),
        selector(&spec["selector"]).into(),
    ]
};

fn job_status(job: &Value) -> &'static str {
    let holds = |kind: &str| {
        items(&job["status"], "conditions").any(|c| c["type"] == kind && c["status"] == "True")
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
    let zone = match text(&spec["timeZone"]) {
        "" => "<none>",
        zone => zone,
    };
    let last = match o["status"]["lastScheduleTime"].as_str() {
        Some(_) => since(&o["status"]["lastScheduleTime"]),
        None => "<none>".into(),
    };
    vec![
        name(o),
        spec["schedule"].clone(),
        zone.into(),
        (spec["suspend"] == true).into(),
        items(&o["status"], "active").count().into(),
        last.into(),
        age(o),
        names.into(),
        images.into(),
        "<none>".into(),
    ]
};
