//! The downward API: fields and resources of a pod as text.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::quantity::{millis, units};
use super::resources::{NodeResources, limits, requests};
use super::{ConfigError, find_container, name_of, namespace_of, spec_of, uid_of};

/// Addresses that are known only on the node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Addresses {
    pub(crate) pod: Vec<String>,
    pub(crate) host: Vec<String>,
}

/// The value of `metadata.name`, `metadata.labels['x']`, `status.podIP` and such.
pub(crate) fn field(pod: &Pod, path: &str, at: &Addresses) -> Result<String, ConfigError> {
    let spec = spec_of(pod);
    if let Some((map, key)) = subscript(path) {
        let found = match map {
            "metadata.labels" => pod.metadata.labels.as_ref().and_then(|m| m.get(key)),
            "metadata.annotations" => pod.metadata.annotations.as_ref().and_then(|m| m.get(key)),
            _ => return Err(unsupported(path)),
        };
        return Ok(found.cloned().unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => name_of(pod).to_owned(),
        "metadata.namespace" => namespace_of(pod).to_owned(),
        "metadata.uid" => uid_of(pod).to_owned(),
        "metadata.labels" => format_map(pod.metadata.labels.as_ref()),
        "metadata.annotations" => format_map(pod.metadata.annotations.as_ref()),
        "spec.nodeName" => spec.node_name.clone().unwrap_or_default(),
        "spec.serviceAccountName" => spec.service_account_name.clone().unwrap_or_default(),
        "status.podIP" => at.pod.first().cloned().unwrap_or_default(),
        "status.podIPs" => at.pod.join(","),
        "status.hostIP" => at.host.first().cloned().unwrap_or_default(),
        "status.hostIPs" => at.host.join(","),
        _ => return Err(unsupported(path)),
    })
}

fn unsupported(path: &str) -> ConfigError {
    ConfigError(format!("unsupported fieldPath: {path}"))
}

/// `map['key']`.
fn subscript(path: &str) -> Option<(&str, &str)> {
    path.strip_suffix("']")?.split_once("['")
}

/// One `key="value"` a line, sorted, the value quoted as Go's `%q` does.
fn format_map(map: Option<&BTreeMap<String, String>>) -> String {
    let lines = map.into_iter().flatten().map(|(k, v)| {
        let quoted = serde_json::to_string(v).expect("a string always encodes");
        format!("{k}={quoted}")
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The value of `limits.cpu` and such, in units of the divisor.
pub(crate) fn resource(
    pod: &Pod,
    own: &Container,
    selector: &ResourceFieldSelector,
    node: &NodeResources,
) -> Result<String, ConfigError> {
    let other = match selector.container_name.as_deref() {
        Some(name) if !name.is_empty() && name != own.name => {
            let missing = || ConfigError(format!("container {name} not found"));
            Some(find_container(pod, name).ok_or_else(missing)?)
        }
        _ => None,
    };
    let container = other.as_ref().unwrap_or(own);
    let bad = || ConfigError(format!("unsupported container resource : {}", selector.resource));
    let (side, name) = selector.resource.split_once('.').ok_or_else(bad)?;
    let divisor = selector.divisor.as_ref().filter(|d| !matches!(d.0.as_str(), "" | "0"));
    let read = if name == "cpu" { millis } else { units };
    // CPU counts in thousandths, so that divisors below one work.
    let one = if name == "cpu" { 1000 } else { 1 };
    let divisor = divisor.and_then(read).unwrap_or(one).max(1);
    let asked = value(container, side, name, read);
    let value = match (asked, side, name) {
        (Some(v), ..) => v,
        (None, "limits", "cpu") => i128::from(node.allocatable_cpu_millis),
        (None, "limits", "memory") => i128::from(node.allocatable_memory_bytes),
        (None, "limits", "ephemeral-storage") => i128::from(node.allocatable_storage_bytes),
        (None, "limits" | "requests", _) => 0,
        _ => return Err(bad()),
    };
    Ok(((value + divisor - 1) / divisor).to_string())
}

fn value(
    container: &Container,
    side: &str,
    name: &str,
    read: fn(&Quantity) -> Option<i128>,
) -> Option<i128> {
    let list = match side {
        "limits" => limits(container),
        _ => requests(container).filter(|r| r.contains_key(name)).or_else(|| limits(container)),
    };
    list.and_then(|l| l.get(name)).and_then(read).filter(|v| *v > 0)
}
