//! Columns of the core group and its neighbours.

use api::registry::Resource;
use serde_json::Value;

use super::{Cells, age, joined, name, number, selector, since, text};
use validation::items;

pub(super) fn cells(row: &Resource) -> Option<Cells> {
    Some(match (row.group, row.name) {
        ("", "namespaces") => NAMESPACES,
        ("", "services") => SERVICES,
        ("", "nodes") => NODES,
        ("", "configmaps") => CONFIG_MAPS,
        ("", "secrets") => SECRETS,
        ("", "events") | ("events.k8s.io", "events") => EVENTS,
        ("", "endpoints") => ENDPOINTS,
        ("discovery.k8s.io", "endpointslices") => SLICES,
        ("coordination.k8s.io", "leases") => LEASES,
        ("scheduling.k8s.io", "priorityclasses") => PRIORITIES,
        ("rbac.authorization.k8s.io", "rolebindings" | "clusterrolebindings") => BINDINGS,
        ("networking.k8s.io", "ingresses") => INGRESSES,
        _ => return None,
    })
}

const NAMESPACES: Cells = |o| vec![name(o), o["status"]["phase"].clone(), age(o)];

const SERVICES: Cells = |o| {
    let spec = &o["spec"];
    let ip = if text(&spec["clusterIP"]).is_empty() { "<none>" } else { text(&spec["clusterIP"]) };
    vec![
        name(o),
        spec["type"].clone(),
        ip.into(),
        external(o).into(),
        ports(spec).into(),
        age(o),
        selector(&spec["selector"]).into(),
    ]
};

fn external(service: &Value) -> String {
    let spec = &service["spec"];
    let listed = || items(spec, "externalIPs").filter_map(Value::as_str);
    match text(&spec["type"]) {
        "LoadBalancer" => {
            let points = items(&service["status"]["loadBalancer"], "ingress");
            let given = points
                .map(|p| if p["ip"].is_string() { text(&p["ip"]) } else { text(&p["hostname"]) });
            let all: Vec<&str> = given.chain(listed()).collect();
            if all.is_empty() { "<pending>".into() } else { all.join(",") }
        }
        "ExternalName" => text(&spec["externalName"]).into(),
        _ => joined(listed()),
    }
}

fn ports(spec: &Value) -> String {
    let one = |p: &Value| match number(&p["nodePort"]) {
        0 => format!("{}/{}", number(&p["port"]), text(&p["protocol"])),
        node => format!("{}:{node}/{}", number(&p["port"]), text(&p["protocol"])),
    };
    let all: Vec<String> = items(spec, "ports").map(one).collect();
    joined(all.iter().map(String::as_str))
}

const NODES: Cells = |o| {
    let info = &o["status"]["nodeInfo"];
    let unknown = |v: &Value| if text(v).is_empty() { "<unknown>".into() } else { v.clone() };
    vec![
        name(o),
        node_status(o).into(),
        roles(o).into(),
        age(o),
        info["kubeletVersion"].clone(),
        address(o, "InternalIP"),
        address(o, "ExternalIP"),
        unknown(&info["osImage"]),
        unknown(&info["kernelVersion"]),
        unknown(&info["containerRuntimeVersion"]),
    ]
};

fn node_status(node: &Value) -> String {
    let ready = items(&node["status"], "conditions").find(|c| c["type"] == "Ready");
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
    let labels = node["metadata"]["labels"].as_object();
    let keys = labels.into_iter().flatten().map(|(k, _)| k.as_str());
    joined(
        keys.filter_map(|k| k.strip_prefix("node-role.kubernetes.io/")).filter(|r| !r.is_empty()),
    )
}

fn address(node: &Value, kind: &str) -> Value {
    let found = items(&node["status"], "addresses").find(|a| a["type"] == kind);
    found.map_or("<none>".into(), |a| a["address"].clone())
}

const CONFIG_MAPS: Cells = |o| vec![name(o), entries(o, &["data", "binaryData"]), age(o)];

const SECRETS: Cells = |o| vec![name(o), o["type"].clone(), entries(o, &["data"]), age(o)];

fn entries(object: &Value, keys: &[&str]) -> Value {
    let count = |key: &&str| object[*key].as_object().map_or(0, |m| m.len());
    keys.iter().map(count).sum::<usize>().into()
}

const EVENTS: Cells = |o| {
    let o = &*validation::convert::core_event(o);
    let about = &o["involvedObject"];
    let target = format!("{}/{}", text(&about["kind"]).to_lowercase(), text(&about["name"]));
    let source = match text(&o["source"]["host"]) {
        "" => text(&o["source"]["component"]).to_owned(),
        host => format!("{}, {host}", text(&o["source"]["component"])),
    };
    let message = text(&o["message"]).trim().to_owned();
    let first =
        if o["firstTimestamp"].is_string() { &o["firstTimestamp"] } else { &o["eventTime"] };
    let last = if o["lastTimestamp"].is_string() { &o["lastTimestamp"] } else { first };
    vec![
        since(last).into(),
        o["type"].clone(),
        o["reason"].clone(),
        target.into(),
        text(&about["fieldPath"]).into(),
        source.into(),
        message.into(),
        since(first).into(),
        number(&o["count"]).max(1).into(),
        name(o),
    ]
};

const ENDPOINTS: Cells = |o| {
    let mut all = Vec::new();
    for subset in items(o, "subsets") {
        for address in items(subset, "addresses") {
            let ports: Vec<i64> = items(subset, "ports").map(|p| number(&p["port"])).collect();
            let ip = text(&address["ip"]);
            all.extend(ports.iter().map(|p| format!("{ip}:{p}")));
            if ports.is_empty() {
                all.push(ip.to_owned());
            }
        }
    }
    vec![name(o), few(&all, 3).into(), age(o)]
};

/// The first few, and how many more.
fn few(all: &[String], most: usize) -> String {
    match all.len() {
        0 => "<none>".into(),
        n if n > most => format!("{} + {} more...", all[..most].join(","), n - most),
        _ => all.join(","),
    }
}

const SLICES: Cells = |o| {
    let ports: Vec<String> = items(o, "ports").map(|p| number(&p["port"]).to_string()).collect();
    let points: Vec<String> = items(o, "endpoints")
        .flat_map(|e| items(e, "addresses"))
        .filter_map(|a| a.as_str().map(str::to_owned))
        .collect();
    let shown = |list: &[String], none: &str| {
        if list.is_empty() { none.to_owned() } else { few(list, 3) }
    };
    vec![
        name(o),
        o["addressType"].clone(),
        shown(&ports, "<unset>").into(),
        shown(&points, "<unset>").into(),
        age(o),
    ]
};

const LEASES: Cells = |o| vec![name(o), text(&o["spec"]["holderIdentity"]).into(), age(o)];

const PRIORITIES: Cells = |o| {
    let global = o["globalDefault"].as_bool().unwrap_or(false);
    vec![name(o), number(&o["value"]).into(), global.into(), age(o), o["preemptionPolicy"].clone()]
};

const BINDINGS: Cells = |o| {
    let role = format!("{}/{}", text(&o["roleRef"]["kind"]), text(&o["roleRef"]["name"]));
    let of = |kind: &str| {
        let all = items(o, "subjects").filter(|s| s["kind"] == kind);
        let all: Vec<String> = all
            .map(|s| match text(&s["namespace"]) {
                "" => text(&s["name"]).to_owned(),
                ns => format!("{ns}/{}", text(&s["name"])),
            })
            .collect();
        Value::from(all.join(", "))
    };
    vec![name(o), role.into(), age(o), of("User"), of("Group"), of("ServiceAccount")]
};

const INGRESSES: Cells = |o| {
    let spec = &o["spec"];
    let hosts: Vec<&str> =
        items(spec, "rules").map(|r| text(&r["host"])).filter(|h| !h.is_empty()).collect();
    let hosts = if hosts.is_empty() { "*".into() } else { hosts.join(",") };
    let points = items(&o["status"]["loadBalancer"], "ingress");
    let points: Vec<&str> = points
        .map(|p| if p["ip"].is_string() { text(&p["ip"]) } else { text(&p["hostname"]) })
        .collect();
    let ports = if items(spec, "tls").next().is_some() { "80, 443" } else { "80" };
    let class = match text(&spec["ingressClassName"]) {
        "" => "<none>",
        class => class,
    };
    vec![name(o), class.into(), hosts.into(), points.join(",").into(), ports.into(), age(o)]
};
