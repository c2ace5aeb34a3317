//! Services: families, cluster IPs and node ports are given here and taken back when unused.

use std::net::IpAddr;

use api::Status;
use serde_json::{Value, json};

use kinds::{items, items_mut, set_default};

use super::{DEFAULT, Hooks};
use crate::allocate::{AllocationError, Claim, held};
use crate::call::Call;
use crate::meta;

pub(super) static HOOKS: Hooks = Hooks {
    prepare_create: |call, object| allocate(call, None, object),
    prepare_update: |call, old, object| {
        if call.row.subresource.is_empty() { allocate(call, Some(old), object) } else { Ok(()) }
    },
    released: |call, old, kept| call.server.allocators.release(old, kept),
    returns_deleted: true,
    ..DEFAULT
};

/// Gives what is missing. A state carried over from before keeps its own.
fn allocate(call: &Call<'_>, old: Option<&Value>, object: &mut Value) -> Result<(), Status> {
    let spec = &mut object["spec"];
    set_default(spec, "type", "ClusterIP");
    if let Some(old) = old {
        drop_outgrown(spec, &old["spec"]);
    }
    if spec["type"] == "ExternalName" {
        for key in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            spec.as_object_mut().map(|s| s.remove(key));
        }
        return Ok(());
    }
    if let Some(old) = old.filter(|old| old["spec"]["type"] != "ExternalName") {
        for key in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            if spec[key].is_null() && !old["spec"][key].is_null() {
                spec[key] = old["spec"][key].clone();
            } else if spec[key].is_null() {
                spec.as_object_mut().map(|s| s.remove(key));
            }
        }
    }
    let keeps = old.map(held).unwrap_or_default();
    let name = meta::text(object, "name").to_owned();
    let failed = |field: &str, value: Value, error: AllocationError| {
        Status::invalid(
            "",
            "Service",
            &name,
            vec![meta::invalid(field, &value, &error.to_string())],
        )
    };
    let spec = &mut object["spec"];
    families(call, spec);
    addresses(call, spec, &keeps.0).map_err(|(ip, e)| failed("spec.clusterIPs", json!([ip]), e))?;
    ports(call, spec, old).map_err(|(port, e)| failed("spec.ports[0].nodePort", port.into(), e))
}

fn has_node_ports(spec: &Value) -> bool {
    spec["type"] == "NodePort"
        || (spec["type"] == "LoadBalancer" && spec["allocateLoadBalancerNodePorts"] != false)
}

fn is_external(spec: &Value) -> bool {
    spec["type"] == "NodePort"
        || spec["type"] == "LoadBalancer"
        || (spec["type"] == "ClusterIP" && items(spec, "externalIPs").next().is_some())
}

fn has_health_port(spec: &Value) -> bool {
    spec["type"] == "LoadBalancer" && spec["externalTrafficPolicy"] == "Local"
}

type Has = fn(&Value) -> bool;

/// What only the former type has goes with it, unless the request changes it: then it is meant, and
/// validation says what is wrong.
fn drop_outgrown(spec: &mut Value, old: &Value) {
    let node_ports = |spec: &Value| -> Vec<Value> {
        items(spec, "ports").map(|p| p["nodePort"].clone()).collect()
    };
    let outgrown = |has: Has, spec: &Value| has(old) && !has(spec);
    if outgrown(has_node_ports, spec) && node_ports(spec) == node_ports(old) {
        for port in items_mut(spec, "ports") {
            port.as_object_mut().map(|p| p.remove("nodePort"));
        }
    }
    let is_balanced: Has = |spec| spec["type"] == "LoadBalancer";
    let fields: [(&str, Has); 4] = [
        ("healthCheckNodePort", has_health_port),
        ("allocateLoadBalancerNodePorts", is_balanced),
        ("loadBalancerClass", is_balanced),
        ("externalTrafficPolicy", is_external),
    ];
    let gone = fields.map(|(key, has)| (key, outgrown(has, spec) && spec[key] == old[key]));
    for (key, _) in gone.into_iter().filter(|(_, gone)| *gone) {
        spec.as_object_mut().map(|s| s.remove(key));
    }
}

fn families(call: &Call<'_>, spec: &mut Value) {
    set_default(spec, "ipFamilyPolicy", "SingleStack");
    if items(spec, "ipFamilies").next().is_some() {
        return;
    }
    let ranges = &call.server.allocators.network().ranges;
    let family = |v6: bool| if v6 { "IPv6" } else { "IPv4" };
    let asked: Option<IpAddr> = spec["clusterIP"].as_str().and_then(|ip| ip.parse().ok());
    let first = asked.map_or(ranges[0].0.is_ipv6(), |ip| ip.is_ipv6());
    let mut families = vec![family(first)];
    if spec["ipFamilyPolicy"] != "SingleStack" && ranges.len() > 1 {
        families.push(family(!first));
    }
    spec["ipFamilies"] = json!(families);
}

type Refused = (String, AllocationError);

fn addresses(
    call: &Call<'_>,
    spec: &mut Value,
    keeps: &std::collections::HashSet<IpAddr>,
) -> Result<(), Refused> {
    if spec["clusterIP"] == "None" {
        spec["clusterIPs"] = json!(["None"]);
        return Ok(());
    }
    let allocators = &call.server.allocators;
    let mut ips: Vec<String> =
        items(spec, "clusterIPs").filter_map(Value::as_str).map(str::to_owned).collect();
    if let (true, Some(first)) =
        (ips.is_empty(), spec["clusterIP"].as_str().filter(|ip| !ip.is_empty()))
    {
        ips.push(first.to_owned());
    }
    for text in &ips {
        let refused = |e| (text.clone(), e);
        let ip: IpAddr = text.parse().map_err(|_| refused(AllocationError::NoFamily))?;
        let own = keeps.contains(&ip) || is_api_service(call, ip);
        if !own {
            allocators.this_ip(ip).map_err(refused)?;
            call.claim(Claim::Address(ip));
        }
    }
    let families: Vec<String> =
        items(spec, "ipFamilies").filter_map(Value::as_str).map(str::to_owned).collect();
    for family in families.iter().skip(ips.len()) {
        let ip = allocators.any_ip(family == "IPv6").map_err(|e| (String::new(), e))?;
        call.claim(Claim::Address(ip));
        ips.push(ip.to_string());
    }
    spec["clusterIP"] = ips.first().cloned().unwrap_or_default().into();
    spec["clusterIPs"] = json!(ips);
    Ok(())
}

/// The first address is set aside for `default/kubernetes`.
fn is_api_service(call: &Call<'_>, ip: IpAddr) -> bool {
    ip == call.server.allocators.network().api_server_ip() && call.user.in_group("system:masters")
}

fn ports(
    call: &Call<'_>,
    spec: &mut Value,
    old: Option<&Value>,
) -> Result<(), (u64, AllocationError)> {
    let kind = spec["type"].as_str().unwrap_or("").to_owned();
    let wanted = has_node_ports(spec);
    let kept = old.map(held).unwrap_or_default().1;
    let allocators = &call.server.allocators;
    let old_ports = old.map(|o| o["spec"]["ports"].clone()).unwrap_or(Value::Null);
    for port in items_mut(spec, "ports") {
        let protocol = port["protocol"].as_str().unwrap_or("TCP").to_owned();
        let asked = port["nodePort"].as_u64().unwrap_or(0);
        if !wanted {
            port.as_object_mut().map(|p| p.remove("nodePort"));
            continue;
        }
        let same = |p: &&Value| p["port"] == port["port"] && p["protocol"] == protocol.as_str();
        let before = old_ports.as_array().into_iter().flatten().find(same);
        let carried = before.and_then(|p| p["nodePort"].as_u64()).filter(|_| asked == 0);
        let number = match carried.or(Some(asked)).filter(|n| *n != 0) {
            Some(number) if kept.contains(&(number as u16, protocol.clone())) => number,
            Some(number) => {
                allocators.this_port(number as u16, &protocol).map_err(|e| (number, e))?;
                call.claim(Claim::Port((number as u16, protocol.clone())));
                number
            }
            None => {
                let number = allocators.any_port(&protocol).map_err(|e| (0, e))?;
                call.claim(Claim::Port((number, protocol.clone())));
                number.into()
            }
        };
        port["nodePort"] = number.into();
    }
    let needs_health = kind == "LoadBalancer" && spec["externalTrafficPolicy"] == "Local";
    if needs_health && spec["healthCheckNodePort"].as_u64().unwrap_or(0) == 0 {
        let number = allocators.any_port("TCP").map_err(|e| (0, e))?;
        call.claim(Claim::Port((number, "TCP".into())));
        spec["healthCheckNodePort"] = number.into();
    }
    Ok(())
}
