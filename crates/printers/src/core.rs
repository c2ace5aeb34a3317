//! Cells of nodes, namespaces, events and other kinds of the core group and beside it.

use api::registry::Resource;
use serde_json::Value;

use super::{Cells, age, joined, name, number, or_text, since, text};
use validation::items;

pub(super) fn cells(row: &Resource) -> Option<Cells> {
    Some(match (row.group, row.name) {
        ("", "namespaces") => NAMESPACES,
        ("", "nodes") => NODES,
        ("", "configmaps") => CONFIG_MAPS,
        ("", "secrets") => SECRETS,
        ("", "events") | ("events.k8s.io", "events") => EVENTS,
        ("", "componentstatuses") => COMPONENTS,
        ("coordination.k8s.io", "leases") => LEASES,
        ("scheduling.k8s.io", "priorityclasses") => PRIORITIES,
        ("rbac.authorization.k8s.io", "rolebindings" | "clusterrolebindings") => BINDINGS,
        _ => return None,
    })
}

const NAMESPACES: Cells = |o| vec![name(o), text(&o["status"]["phase"]).into(), age(o)];

const NODES: Cells = |o| {
    let info = &o["status"]["nodeInfo"];
    let unknown = |v: &Value| Value::from(or_text(v, "<unknown>"));
    let kernel = match (or_text(&info["kernelVersion"], "<unknown>"), text(&info["architecture"])) {
        (kernel, "") => kernel.to_owned(),
        (kernel, architecture) => format!("{kernel} ({architecture})"),
    };
    vec![
        name(o),
        node_status(o).into(),
        roles(o).into(),
        age(o),
        text(&info["kubeletVersion"]).into(),
        address(o, "InternalIP"),
        address(o, "ExternalIP"),
        unknown(&info["osImage"]),
        kernel.into(),
        unknown(&info["containerRuntimeVersion"]),
    ]
};

fn node_status(node: &Value) -> String {
    let ready = items(&node["status"], "conditions").filter(|c| c["type"] == "Ready").last();
    let mut status = match ready.map(|c| text(&c["status"])) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if node["spec"]["unschedulable"] == true {
        status += ",SchedulingDisabled";
    }
    status
}

fn roles(node: &Value) -> String {
    let labels = node["metadata"]["labels"].as_object().into_iter().flatten();
    let mut all: Vec<&str> = labels
        .filter_map(|(key, value)| match key.as_str() {
            "kubernetes.io/role" => Some(text(value)),
            key => key.strip_prefix("node-role.kubernetes.io/"),
        })
        .filter(|role| !role.is_empty())
        .collect();
    all.sort_unstable();
    all.dedup();
    joined(all.into_iter())
}

fn address(node: &Value, kind: &str) -> Value {
    let found = items(&node["status"], "addresses").find(|a| a["type"] == kind);
    found.map_or("<none>", |a| text(&a["address"])).into()
}

const CONFIG_MAPS: Cells = |o| vec![name(o), entries(o, &["data", "binaryData"]), age(o)];

const SECRETS: Cells = |o| vec![name(o), text(&o["type"]).into(), entries(o, &["data"]), age(o)];

fn entries(object: &Value, keys: &[&str]) -> Value {
    let count = |key: &&str| object[*key].as_object().map_or(0, |m| m.len());
    keys.iter().map(count).sum::<usize>().into()
}

const EVENTS: Cells = |o| {
    let o = &*validation::convert::core_event(o);
    let (about, source, series) = (&o["involvedObject"], &o["source"], &o["series"]);
    let target = match (text(&about["kind"]).to_lowercase(), text(&about["name"])) {
        (kind, "") => kind,
        (kind, name) => format!("{kind}/{name}"),
    };
    let component = or_text(&source["component"], text(&o["reportingComponent"]));
    let source = match or_text(&source["host"], text(&o["reportingInstance"])) {
        "" => component.to_owned(),
        host => format!("{component}, {host}"),
    };
    let either = |first: &'_ Value, other: &'_ Value| match first.is_string() {
        true => since(first),
        false => since(other),
    };
    let first = either(&o["firstTimestamp"], &o["eventTime"]);
    let (last, count) = match (series.is_object(), o["lastTimestamp"].is_string()) {
        (true, _) => (since(&series["lastObservedTime"]), number(&series["count"])),
        (false, true) => (since(&o["lastTimestamp"]), number(&o["count"])),
        (false, false) => (first.clone(), number(&o["count"])),
    };
    let count = if series.is_object() || count != 0 { count } else { 1 };
    vec![
        last.into(),
        text(&o["type"]).into(),
        text(&o["reason"]).into(),
        target.into(),
        text(&about["fieldPath"]).into(),
        source.into(),
        text(&o["message"]).trim().into(),
        first.into(),
        count.into(),
        name(o),
    ]
};

const LEASES: Cells = |o| vec![name(o), text(&o["spec"]["holderIdentity"]).into(), age(o)];

const PRIORITIES: Cells = |o| {
    let global = o["globalDefault"].as_bool().unwrap_or(false);
    let preemption = text(&o["preemptionPolicy"]).into();
    vec![name(o), number(&o["value"]).into(), global.into(), age(o), preemption]
};

const BINDINGS: Cells = |o| {
    let role = format!("{}/{}", text(&o["roleRef"]["kind"]), text(&o["roleRef"]["name"]));
    let of = |kind: &str| {
        let all = items(o, "subjects").filter(|s| s["kind"] == kind);
        let all: Vec<String> = all
            .map(|s| match kind {
                "ServiceAccount" => format!("{}/{}", text(&s["namespace"]), text(&s["name"])),
                _ => text(&s["name"]).to_owned(),
            })
            .collect();
        Value::from(all.join(", "))
    };
    vec![name(o), role.into(), age(o), of("User"), of("Group"), of("ServiceAccount")]
};

const COMPONENTS: Cells = |o| {
    let healthy = items(o, "conditions").find(|c| c["type"] == "Healthy");
    let status = match healthy {
        None => "Unknown",
        Some(condition) if condition["status"] == "True" => "Healthy",
        Some(_) => "Unhealthy",
    };
    let [message, error] = ["message", "error"].map(|key| healthy.map_or("", |c| text(&c[key])));
    vec![name(o), status.into(), message.into(), error.into()]
};

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nodes_show_roles_and_architecture() {
        let node = json!({"metadata": {"name": "n", "labels": {"kubernetes.io/role": "b",
            "node-role.kubernetes.io/c": "", "node-role.kubernetes.io/a": "", "node-role.kubernetes.io/": ""}},
            "spec": {"unschedulable": true},
            "status": {"nodeInfo": {"kernelVersion": "6.1", "architecture": "arm64"},
                "conditions": [{"type": "Ready", "status": "False"}, {"type": "Ready", "status": "True"}]}});
        let cells = NODES(&node);
        assert_eq!(cells[1], "Ready,SchedulingDisabled");
        assert_eq!(cells[2], "a,b,c");
        assert_eq!((&cells[7], &cells[8]), (&json!("<unknown>"), &json!("6.1 (arm64)")));
    }

    #[test]
    fn events_show_their_series_and_reporter() {
        let event = json!({"apiVersion": "v1", "involvedObject": {"kind": "Pod"}, "source": {},
            "reportingComponent": "r", "reportingInstance": "i", "series": {"count": 7}, "count": 2});
        let cells = EVENTS(&event);
        assert_eq!((&cells[3], &cells[5], &cells[8]), (&json!("pod"), &json!("r, i"), &json!(7)));
    }

    #[test]
    fn subjects_are_named_by_their_kind() {
        let binding = json!({"subjects": [{"kind": "ServiceAccount", "name": "a", "namespace": "n"},
            {"kind": "User", "name": "u", "namespace": "odd"}]});
        let cells = BINDINGS(&binding);
        assert_eq!((&cells[3], &cells[5]), (&json!("u"), &json!("n/a")));
    }
}
