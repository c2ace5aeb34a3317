//! Cells of the network's kinds: services, endpoints, ingresses, policies, addresses.

use api::registry::Resource;
use serde_json::Value;

use super::selectors::{labels, selector};
use super::{Cells, age, few, joined, name, number, or_text, text};
use validation::items;

/// Endpoints and hosts shown; the rest is counted.
const SHOWN: usize = 3;

pub(super) fn cells(row: &Resource) -> Option<Cells> {
    Some(match (row.group, row.name) {
        ("", "services") => service,
        ("", "endpoints") => |o| vec![name(o), endpoints(o).into(), age(o)],
        ("discovery.k8s.io", "endpointslices") => slice,
        ("networking.k8s.io", "ingresses") => ingress,
        ("networking.k8s.io", "ingressclasses") => ingress_class,
        ("networking.k8s.io", "networkpolicies") => {
            |o| vec![name(o), selector(&o["spec"]["podSelector"]).into(), age(o)]
        }
        ("networking.k8s.io", "servicecidrs") => {
            |o| vec![name(o), texts(&o["spec"], "cidrs").join(",").into(), age(o)]
        }
        ("networking.k8s.io", "ipaddresses") => {
            |o| vec![name(o), parent(&o["spec"]["parentRef"]).into(), age(o)]
        }
        _ => return None,
    })
}

fn texts<'a>(value: &'a Value, key: &str) -> Vec<&'a str> {
    items(value, key).map(text).collect()
}

fn service(o: &Value) -> Vec<Value> {
    let spec = &o["spec"];
    vec![
        name(o),
        text(&spec["type"]).into(),
        or_text(&spec["clusterIPs"][0], "<none>").into(),
        external(o).into(),
        ports(spec).into(),
        age(o),
        labels(&spec["selector"]).into(),
    ]
}

fn external(service: &Value) -> String {
    let spec = &service["spec"];
    let listed = texts(spec, "externalIPs");
    match text(&spec["type"]) {
        "LoadBalancer" => {
            let mut all = load_balancer(service);
            all.extend(listed);
            if all.is_empty() { "<pending>".into() } else { all.join(",") }
        }
        "ExternalName" => text(&spec["externalName"]).into(),
        "ClusterIP" | "NodePort" => joined(listed.into_iter()),
        _ => "<unknown>".into(),
    }
}

/// Addresses or names of a load balancer, each once and sorted.
fn load_balancer(object: &Value) -> Vec<&str> {
    let points = items(&object["status"]["loadBalancer"], "ingress");
    let mut all: Vec<&str> = points.map(|p| or_text(&p["ip"], text(&p["hostname"]))).collect();
    all.sort_unstable();
    all.dedup();
    all.retain(|point| !point.is_empty());
    all
}

fn ports(spec: &Value) -> String {
    let one = |p: &Value| match number(&p["nodePort"]) {
        ..=0 => format!("{}/{}", number(&p["port"]), text(&p["protocol"])),
        node => format!("{}:{node}/{}", number(&p["port"]), text(&p["protocol"])),
    };
    let all: Vec<String> = items(spec, "ports").map(one).collect();
    joined(all.iter().map(String::as_str))
}

/// All addresses of a subset's first port, then those of its next.
fn endpoints(o: &Value) -> String {
    if items(o, "subsets").next().is_none() {
        return "<none>".into();
    }
    let mut all = Vec::new();
    for subset in items(o, "subsets") {
        let addresses: Vec<&str> = items(subset, "addresses").map(|a| text(&a["ip"])).collect();
        let ports: Vec<i64> = items(subset, "ports").map(|p| number(&p["port"])).collect();
        for port in &ports {
            all.extend(addresses.iter().map(|ip| host_port(ip, *port)));
        }
        if ports.is_empty() {
            all.extend(addresses.iter().map(|ip| (*ip).to_owned()));
        }
    }
    few(&all, all.len(), SHOWN)
}

fn host_port(ip: &str, port: i64) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

fn slice(o: &Value) -> Vec<Value> {
    let port = |p: &Value| match (p["port"].as_i64(), p["name"].as_str()) {
        (Some(port), _) => port.to_string(),
        (None, Some(name)) => name.to_owned(),
        (None, None) => "*".into(),
    };
    let ports: Vec<String> = items(o, "ports").map(port).collect();
    let points: Vec<String> = items(o, "endpoints")
        .flat_map(|e| items(e, "addresses"))
        .map(|a| text(a).to_owned())
        .collect();
    let shown = |list: &[String]| match few(list, list.len(), SHOWN) {
        none if none.is_empty() => "<unset>".into(),
        some => some,
    };
    vec![
        name(o),
        text(&o["addressType"]).into(),
        shown(&ports).into(),
        shown(&points).into(),
        age(o),
    ]
}

fn ingress(o: &Value) -> Vec<Value> {
    let spec = &o["spec"];
    let ports = if items(spec, "tls").next().is_some() { "80, 443" } else { "80" };
    vec![
        name(o),
        spec["ingressClassName"].as_str().unwrap_or("<none>").into(),
        hosts(spec).into(),
        load_balancer(o).join(",").into(),
        ports.into(),
        age(o),
    ]
}

/// Hosts of the rules up to the fourth that has one; rules without a host count among the rest.
fn hosts(spec: &Value) -> String {
    let rules: Vec<&str> = items(spec, "rules").map(|r| text(&r["host"])).collect();
    let mut shown: Vec<&str> = Vec::new();
    let mut more = false;
    for host in &rules {
        more |= shown.len() == SHOWN;
        if !more && !host.is_empty() {
            shown.push(host);
        }
    }
    match shown.join(",") {
        none if none.is_empty() => "*".into(),
        some if more => format!("{some} + {} more...", rules.len() - SHOWN),
        some => some,
    }
}

fn ingress_class(class: &Value) -> Vec<Value> {
    let (spec, parameters) = (&class["spec"], &class["spec"]["parameters"]);
    let shown = match (parameters.is_object(), &parameters["apiGroup"]) {
        (false, _) => "<none>".into(),
        (true, Value::String(group)) => {
            format!("{}.{group}/{}", text(&parameters["kind"]), text(&parameters["name"]))
        }
        (true, _) => format!("{}/{}", text(&parameters["kind"]), text(&parameters["name"])),
    };
    let named = match class["metadata"]["annotations"]["ingressclass.kubernetes.io/is-default-class"]
        == "true"
    {
        true => format!("{} (default)", text(&class["metadata"]["name"])).into(),
        false => name(class),
    };
    vec![named, text(&spec["controller"]).into(), shown.into(), age(class)]
}

fn parent(reference: &Value) -> String {
    if !reference.is_object() {
        return "<none>".into();
    }
    let mut shown = text(&reference["resource"]).to_lowercase();
    for (key, mark) in [("group", '.'), ("namespace", '/')] {
        let part = text(&reference[key]);
        if !part.is_empty() {
            shown.push(mark);
            shown.push_str(part);
        }
    }
    format!("{shown}/{}", text(&reference["name"]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn hosts_beyond_the_third_are_counted() {
        let rules = |hosts: &[&str]| {
            let rules: Vec<Value> = hosts.iter().map(|h| json!({"host": h})).collect();
            super::hosts(&json!({"rules": rules}))
        };
        assert_eq!(rules(&["a", "b", "c"]), "a,b,c");
        assert_eq!(rules(&["a", "", "b", "c", "d", "e"]), "a,b,c + 3 more...");
        assert_eq!(rules(&[""]), "*");
    }

    #[test]
    fn endpoints_go_by_port() {
        let subset = json!({"addresses": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}],
            "ports": [{"port": 1}, {"port": 2}]});
        let shown = endpoints(&json!({"subsets": [subset]}));
        assert_eq!(shown, "10.0.0.1:1,[fd00::1]:1,10.0.0.1:2 + 1 more...");
        assert_eq!(endpoints(&json!({})), "<none>");
        assert_eq!(endpoints(&json!({"subsets": [{"ports": [{"port": 1}]}]})), "");
    }

    #[test]
    fn slices_name_ports_that_have_no_number() {
        let ports = json!([{"port": null, "name": "web"}, {}, {"port": 9}]);
        let cells = slice(&json!({"ports": ports}));
        assert_eq!((&cells[2], &cells[3]), (&json!("web,*,9"), &json!("<unset>")));
    }

    #[test]
    fn load_balancers_are_sorted_and_shown_once() {
        let service = json!({"spec": {"type": "LoadBalancer", "externalIPs": ["9.9.9.9"]},
            "status": {"loadBalancer": {"ingress": [{"ip": "2.2.2.2"}, {"hostname": "a"}, {"ip": "2.2.2.2"}]}}});
        assert_eq!(external(&service), "2.2.2.2,a,9.9.9.9");
        assert_eq!(external(&json!({"spec": {"type": "LoadBalancer"}})), "<pending>");
        assert_eq!(external(&json!({"spec": {"type": "Odd"}})), "<unknown>");
    }
}
