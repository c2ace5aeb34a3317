//! Cells of pods (upstream `printPod`): one word for the state of all containers, and how many of those
//! that keep running are ready.

use serde_json::{Value, json};

use super::{age, name, number, or_text, since, text};
use validation::items;

/// Containers that were looked at, whose pod has not yet found its word.
#[derive(Default)]
struct Tally<'a> {
    word: String,
    ready: usize,
    restarts: i64,
    last_restart: &'a str,
    /// Restarts of restartable init containers, which count once the pod has initialized.
    sidecar_restarts: i64,
    last_sidecar_restart: &'a str,
    initializing: bool,
}

pub(super) fn cells(pod: &Value) -> Vec<Value> {
    let (spec, status) = (&pod["spec"], &pod["status"]);
    let mut tally = Tally { word: first_word(status), ..Tally::default() };
    init_containers(pod, &mut tally);
    if !tally.initializing || condition(status, "Initialized") == Some("True") {
        containers(status, &mut tally);
    }
    let total = items(spec, "containers").count()
        + items(spec, "initContainers").filter(|c| c["restartPolicy"] == "Always").count();
    let restarts = match tally.restarts {
        n if n != 0 && !tally.last_restart.is_empty() => {
            format!("{n} ({} ago)", since(&tally.last_restart.into()))
        }
        n => n.to_string(),
    };
    vec![
        name(pod),
        format!("{}/{total}", tally.ready).into(),
        last_word(pod, tally.word).into(),
        restarts.into(),
        age(pod),
        pod_ip(status).into(),
        or_text(&spec["nodeName"], "<none>").into(),
        or_text(&status["nominatedNodeName"], "<none>").into(),
        readiness_gates(pod).into(),
    ]
}

/// Conditions of the table's row: clients hide pods that have completed.
pub(super) fn row_conditions(pod: &Value) -> Option<Value> {
    let (reason, message) = match text(&pod["status"]["phase"]) {
        "Succeeded" => ("Succeeded", "The pod has completed successfully."),
        "Failed" => ("Failed", "The pod failed."),
        _ => return None,
    };
    Some(json!([{"type": "Completed", "status": "True", "reason": reason, "message": message}]))
}

fn condition<'a>(status: &'a Value, kind: &str) -> Option<&'a str> {
    items(status, "conditions").find(|c| c["type"] == kind).map(|c| text(&c["status"]))
}

fn first_word(status: &Value) -> String {
    let gated = items(status, "conditions")
        .any(|c| c["type"] == "PodScheduled" && c["reason"] == "SchedulingGated");
    match text(&status["reason"]) {
        _ if gated => "SchedulingGated".into(),
        "" => text(&status["phase"]).into(),
        reason => reason.into(),
    }
}

fn last_word(pod: &Value, word: String) -> String {
    let status = &pod["status"];
    let terminal = matches!(text(&status["phase"]), "Succeeded" | "Failed");
    match pod["metadata"]["deletionTimestamp"].is_string() {
        true if status["reason"] == "NodeLost" => "Unknown".into(),
        true if !terminal => "Terminating".into(),
        _ => word,
    }
}

/// Counts init containers up to the first that is not through.
fn init_containers<'a>(pod: &'a Value, tally: &mut Tally<'a>) {
    let spec = &pod["spec"];
    let total = items(spec, "initContainers").count();
    for (at, container) in items(&pod["status"], "initContainerStatuses").enumerate() {
        let restarted = text(&container["lastState"]["terminated"]["finishedAt"]);
        tally.restarts += number(&container["restartCount"]);
        tally.last_restart = tally.last_restart.max(restarted);
        let restartable = items(spec, "initContainers")
            .any(|c| c["name"] == container["name"] && c["restartPolicy"] == "Always");
        if restartable {
            tally.sidecar_restarts += number(&container["restartCount"]);
            tally.last_sidecar_restart = tally.last_sidecar_restart.max(restarted);
        }
        let (terminated, waiting) =
            (&container["state"]["terminated"], text(&container["state"]["waiting"]["reason"]));
        if terminated.is_object() && number(&terminated["exitCode"]) == 0 {
            continue;
        }
        if restartable && container["started"] == true {
            tally.ready += usize::from(container["ready"] == true);
            continue;
        }
        tally.initializing = true;
        tally.word = match waiting {
            _ if terminated.is_object() => format!("Init:{}", ending(terminated)),
            "" | "PodInitializing" => format!("Init:{at}/{total}"),
            reason => format!("Init:{reason}"),
        };
        return;
    }
}

/// Counts the containers; the state of the first one that waits or has terminated names the pod's.
fn containers<'a>(status: &'a Value, tally: &mut Tally<'a>) {
    tally.restarts = tally.sidecar_restarts;
    tally.last_restart = tally.last_sidecar_restart;
    let (mut running, mut failure) = (false, String::new());
    let statuses: Vec<&Value> = items(status, "containerStatuses").collect();
    for container in statuses.into_iter().rev() {
        let restarted = text(&container["lastState"]["terminated"]["finishedAt"]);
        tally.restarts += number(&container["restartCount"]);
        tally.last_restart = tally.last_restart.max(restarted);
        let state = &container["state"];
        let waiting = text(&state["waiting"]["reason"]);
        if !waiting.is_empty() {
            tally.word = waiting.into();
        } else if state["terminated"].is_object() {
            tally.word = ending(&state["terminated"]);
            if number(&state["terminated"]["exitCode"]) != 0 {
                failure.clone_from(&tally.word);
            }
        } else if container["ready"] == true && state["running"].is_object() {
            running = true;
            tally.ready += 1;
        }
    }
    if tally.word != "Completed" {
        return;
    }
    let ready = items(status, "conditions").any(|c| c["type"] == "Ready" && c["status"] == "True");
    if running && ready {
        tally.word = "Running".into();
    } else if !failure.is_empty() {
        tally.word = failure;
    } else if running {
        tally.word = "NotReady".into();
    }
}

/// The reason of a terminated container, or its signal or exit code.
fn ending(terminated: &Value) -> String {
    match (text(&terminated["reason"]), number(&terminated["signal"])) {
        ("", 0) => format!("ExitCode:{}", number(&terminated["exitCode"])),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.into(),
    }
}

fn pod_ip(status: &Value) -> &str {
    match text(&status["podIPs"][0]["ip"]) {
        "" => or_text(&status["podIP"], "<none>"),
        ip => ip,
    }
}

fn readiness_gates(pod: &Value) -> String {
    let gates: Vec<&Value> = items(&pod["spec"], "readinessGates").collect();
    if gates.is_empty() {
        return "<none>".into();
    }
    let met =
        |gate: &&&Value| condition(&pod["status"], text(&gate["conditionType"])) == Some("True");
    format!("{}/{}", gates.iter().filter(met).count(), gates.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// READY, STATUS and RESTARTS without the age.
    fn shown(spec: Value, status: Value) -> [String; 3] {
        let pod = json!({"metadata": {"name": "a"}, "spec": spec, "status": status});
        let cells = cells(&pod);
        [1, 2, 3].map(|at| {
            let cell = text(&cells[at]);
            cell.split(" (").next().unwrap_or(cell).to_owned()
        })
    }

    fn spec(sidecar: bool) -> Value {
        let policy = if sidecar { json!("Always") } else { Value::Null };
        json!({"containers": [{"name": "c"}],
            "initContainers": [{"name": "s", "restartPolicy": policy}, {"name": "i"}]})
    }

    #[test]
    fn restartable_init_containers_count_as_containers() {
        let at = "2026-01-01T00:00:00Z";
        let sidecar = json!({"name": "s", "ready": true, "started": true, "restartCount": 2,
            "state": {"running": {}}, "lastState": {"terminated": {"finishedAt": at}}});
        let done =
            json!({"name": "i", "restartCount": 5, "state": {"terminated": {"exitCode": 0}}});
        let main = json!({"name": "c", "ready": true, "restartCount": 1, "state": {"running": {}}});
        let status = json!({"phase": "Running", "initContainerStatuses": [sidecar, done],
            "containerStatuses": [main]});
        assert_eq!(shown(spec(true), status), ["2/2", "Running", "3"]);
        let waits = json!({"name": "i", "restartCount": 5,
            "state": {"waiting": {"reason": "CrashLoopBackOff"}}});
        let status = json!({"phase": "Pending", "initContainerStatuses": [sidecar, waits]});
        assert_eq!(shown(spec(true), status), ["1/2", "Init:CrashLoopBackOff", "7"]);
        let status = json!({"phase": "Pending", "initContainerStatuses": [{"name": "s",
            "state": {"waiting": {"reason": "PodInitializing"}}}]});
        assert_eq!(shown(spec(false), status), ["0/1", "Init:0/2", "0"]);
    }

    #[test]
    fn mixed_endings_are_told_by_the_failure() {
        let ended = |code: i64, reason: &str| json!({"name": "c", "state": {"terminated": {"exitCode": code, "reason": reason}}});
        let one = json!({"containers": [{"name": "c"}, {"name": "d"}]});
        let status = json!({"phase": "Running", "containerStatuses": [ended(0, "Completed"), ended(1, "Error")]});
        assert_eq!(shown(one.clone(), status)[1], "Error");
        let runs = json!({"name": "d", "ready": true, "state": {"running": {}}});
        let status =
            json!({"phase": "Running", "containerStatuses": [ended(0, "Completed"), runs]});
        assert_eq!(shown(one.clone(), status)[1], "NotReady");
        let status = json!({"phase": "Running", "containerStatuses": [ended(9, ""), runs]});
        assert_eq!(shown(one, status)[1], "ExitCode:9");
    }

    #[test]
    fn gated_lost_and_leaving_pods_have_their_words() {
        let gated = json!({"phase": "Pending",
            "conditions": [{"type": "PodScheduled", "reason": "SchedulingGated"}]});
        assert_eq!(shown(spec(false), gated)[1], "SchedulingGated");
        let mut pod = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"},
            "status": {"phase": "Running"}});
        assert_eq!(cells(&pod)[2], "Terminating");
        pod["status"]["reason"] = "NodeLost".into();
        assert_eq!(cells(&pod)[2], "Unknown");
        pod["status"] = json!({"phase": "Failed", "reason": "Evicted"});
        assert_eq!(cells(&pod)[2], "Evicted");
        assert_eq!(row_conditions(&pod).expect("a condition")[0]["reason"], "Failed");
    }
}
