//! Services: families, cluster IPs and node ports are given here and taken back when unused.

mod families;
mod ports;
mod refused;

use std::collections::HashSet;
use std::net::IpAddr;

use api::Status;
use serde_json::{Value, json};

use validation::{items, items_mut, set_default};

use self::families::families;
use self::ports::{health_port, ports};
use self::refused::{internal, refused_address, refused_port};
use crate::allocate::{AllocationError, Claim, Unbooked, What, held};
use crate::meta;
use crate::write_failure::write_failure;
use crate::{Booking, DEFAULT, Hooks, Step};

pub(crate) const HOOKS: Hooks = Hooks {
    prepare_create: |step, object| allocate(step, None, object),
    prepare_update: |step, old, object| {
        if step.row.subresource.is_empty() { allocate(step, Some(old), object) } else { Ok(()) }
    },
    book: Some(book),
    releases: true,
    returns_deleted: true,
    ..DEFAULT
};

/// Gives what is missing. A state carried over from before keeps its own.
fn allocate(step: &Step<'_>, old: Option<&Value>, object: &mut Value) -> Result<(), Status> {
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
    let spec = &mut object["spec"];
    let configured: Vec<bool> =
        step.transaction.allocators().network().ranges.iter().map(|(ip, _)| ip.is_ipv6()).collect();
    let faults = families(&configured, spec, old.map(|old| &old["spec"]));
    if !faults.is_empty() {
        return Err(Status::invalid("", "Service", &name, faults));
    }
    addresses(step, spec, &keeps.0).map_err(|(ip, error)| refused_address(&name, &ip, &error))?;
    ports(step, spec, old).map_err(|(which, error)| refused_port(&name, which, &error))?;
    health_port(step, spec, old).map_err(|(port, error)| {
        let what = port.map_or("a HealthCheck NodePort 0".to_owned(), |port| {
            format!("requested HealthCheck NodePort {port}")
        });
        internal(format!("failed to allocate {what}: {error}"))
    })
}

/// Makes what the Service was given its own in the store that servers share.
fn book<'a>(step: &'a Step<'_>, object: &'a mut Value) -> Booking<'a> {
    Box::pin(async move {
        let name = meta::text(object, "name").to_owned();
        match step.transaction.book(object).await {
            Ok(()) => Ok(()),
            Err(Unbooked::Write(error)) => Err(write_failure(error, step.row, &name)),
            Err(Unbooked::Taken(What::Address(ip), error)) => {
                Err(refused_address(&name, &ip.to_string(), &error))
            }
            Err(Unbooked::Taken(What::Port(port), error)) => {
                let mut ports = items(&object["spec"], "ports");
                let at = ports.position(|p| p["nodePort"] == port);
                Err(refused_port(&name, at.map(|at| (at, port)), &error))
            }
        }
    })
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

/// Does a service of this spec have it?
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

fn addresses(
    step: &Step<'_>,
    spec: &mut Value,
    keeps: &HashSet<IpAddr>,
) -> Result<(), (String, AllocationError)> {
    if spec["clusterIP"] == "None" {
        spec["clusterIPs"] = json!(["None"]);
        return Ok(());
    }
    let allocators = &step.transaction.allocators();
    let mut ips: Vec<String> =
        items(spec, "clusterIPs").filter_map(Value::as_str).map(str::to_owned).collect();
    if let (true, Some(first)) =
        (ips.is_empty(), spec["clusterIP"].as_str().filter(|ip| !ip.is_empty()))
    {
        ips.push(first.to_owned());
    }
    for text in &ips {
        // Validation says what is wrong with one that is none.
        let Ok(ip) = text.parse::<IpAddr>() else { continue };
        let own = keeps.contains(&ip) || is_api_service(step, ip);
        if !own {
            allocators.this_ip(ip).map_err(|e| (text.clone(), e))?;
            step.transaction.claim(Claim { what: What::Address(ip), chosen: false });
        }
    }
    let families: Vec<String> =
        items(spec, "ipFamilies").filter_map(Value::as_str).map(str::to_owned).collect();
    for family in families.iter().skip(ips.len()) {
        let ip = allocators.any_ip(family == "IPv6").map_err(|e| (String::new(), e))?;
        step.transaction.claim(Claim { what: What::Address(ip), chosen: true });
        ips.push(ip.to_string());
    }
    spec["clusterIP"] = ips.first().cloned().unwrap_or_default().into();
    spec["clusterIPs"] = json!(ips);
    Ok(())
}

/// The first address is set aside for `default/kubernetes`.
fn is_api_service(step: &Step<'_>, ip: IpAddr) -> bool {
    ip == step.transaction.allocators().network().api_server_ip()
        && step.context.user.in_group("system:masters")
}
