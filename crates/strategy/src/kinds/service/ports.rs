//! Node ports of a Service, and the port for its health checks.

use std::collections::HashSet;

use serde_json::Value;
use validation::{items, items_mut};

use super::{has_health_port, has_node_ports};
use crate::Step;
use crate::allocate::{AllocationError, Claim, What, held};

/// A number from a field that may hold a node port.
fn node_port(port: &Value) -> Option<u16> {
    u16::try_from(port.as_u64()?).ok().filter(|number| *number != 0)
}

/// Claims one port, unless the Service has it already.
fn this_port(step: &Step<'_>, number: u16, own: &HashSet<u16>) -> Result<u16, AllocationError> {
    if !own.contains(&number) {
        step.transaction.allocators().this_port(number)?;
        step.transaction.claim(Claim { what: What::Port(number), chosen: false });
    }
    Ok(number)
}

fn any_port(step: &Step<'_>) -> Result<u16, AllocationError> {
    let number = step.transaction.allocators().any_port()?;
    step.transaction.claim(Claim { what: What::Port(number), chosen: true });
    Ok(number)
}

/// Why a port could not be had, and which: a position in the list and the number, or none for those
/// that the server chooses.
pub(super) type Refused = (Option<(usize, u16)>, AllocationError);

pub(super) fn ports(step: &Step<'_>, spec: &mut Value, old: Option<&Value>) -> Result<(), Refused> {
    if !matches!(spec["type"].as_str(), Some("NodePort" | "LoadBalancer")) {
        return Ok(());
    }
    let gives = has_node_ports(spec);
    match old {
        None => new_ports(step, spec, gives),
        Some(old) => {
            if has_node_ports(&old["spec"]) && gives {
                carry_ports(spec, &old["spec"]);
            }
            changed_ports(step, spec, gives, held(old).1)
        }
    }
}

/// Ports of a new Service that differ in nothing but their protocol share one node port
/// (`service/storage/alloc.go`).
fn new_ports(step: &Step<'_>, spec: &mut Value, gives: bool) -> Result<(), Refused> {
    let none = HashSet::new();
    let asked: Vec<(Value, u16)> = items(spec, "ports")
        .filter_map(|port| Some((port["port"].clone(), node_port(&port["nodePort"])?)))
        .collect();
    let mut given: Vec<(Value, u16)> = Vec::new();
    for (at, port) in items_mut(spec, "ports").enumerate() {
        let own = node_port(&port["nodePort"]);
        if own.is_none() && !gives {
            continue;
        }
        let same = |all: &[(Value, u16)]| {
            all.iter().find(|(number, _)| *number == port["port"]).map(|(_, node)| *node)
        };
        let claim = |number| this_port(step, number, &none).map_err(|e| (Some((at, number)), e));
        let number = match (same(&given), own) {
            (Some(shared), None) => shared,
            (Some(shared), Some(own)) if shared == own => shared,
            (Some(_), Some(own)) => claim(own)?,
            (None, _) => match same(&asked) {
                Some(wanted) => claim(wanted)?,
                None => any_port(step).map_err(|e| (None, e))?,
            },
        };
        given.push((port["port"].clone(), number));
        port["nodePort"] = number.into();
    }
    Ok(())
}

/// A port that says no node port keeps that of the old port of its name, unless another has it now.
fn carry_ports(spec: &mut Value, old: &Value) {
    let used = |spec: &Value| -> HashSet<u16> {
        items(spec, "ports").filter_map(|p| node_port(&p["nodePort"])).collect()
    };
    let used = &used(old) & &used(spec);
    for port in items_mut(spec, "ports").filter(|p| node_port(&p["nodePort"]).is_none()) {
        let name = validation::text(&port["name"]);
        let before = items(old, "ports").filter(|p| validation::text(&p["name"]) == name).last();
        let before = before.and_then(|p| node_port(&p["nodePort"]));
        if let Some(number) = before.filter(|number| !used.contains(number)) {
            port["nodePort"] = number.into();
        }
    }
}

fn changed_ports(
    step: &Step<'_>,
    spec: &mut Value,
    gives: bool,
    mut own: HashSet<u16>,
) -> Result<(), Refused> {
    for (at, port) in items_mut(spec, "ports").enumerate() {
        let number = match node_port(&port["nodePort"]) {
            None if !gives => continue,
            None => any_port(step).map_err(|e| (None, e))?,
            Some(number) => this_port(step, number, &own).map_err(|e| (Some((at, number)), e))?,
        };
        own.insert(number);
        port["nodePort"] = number.into();
    }
    Ok(())
}

/// The port that load balancers ask for local endpoints.
pub(super) fn health_port(
    step: &Step<'_>,
    spec: &mut Value,
    old: Option<&Value>,
) -> Result<(), (Option<u16>, AllocationError)> {
    if !has_health_port(spec) {
        return Ok(());
    }
    let old = old.map(|old| &old["spec"]).filter(|old| has_health_port(old));
    let asked = node_port(&spec["healthCheckNodePort"]);
    let number = match (asked, old.and_then(|old| node_port(&old["healthCheckNodePort"]))) {
        // Another one than before is refused by validation.
        (asked, Some(before)) => asked.unwrap_or(before),
        (Some(number), None) => this_port(step, number, &HashSet::new()).map_err(|e| (asked, e))?,
        (None, None) => any_port(step).map_err(|e| (None, e))?,
    };
    spec["healthCheckNodePort"] = number.into();
    Ok(())
}
