//! Amounts of resources: which names there are, and what an amount may be.

use api::names;
use api::quantity::Quantity;
use serde_json::Value;

use crate::check::At;

/// The amount at a place; none when it is absent (malformed ones are refused on decoding).
pub(crate) fn parse(value: &Value) -> Option<Quantity> {
    match value {
        Value::String(text) => Quantity::parse(text).ok(),
        Value::Number(number) => Quantity::parse(&number.to_string()).ok(),
        _ => None,
    }
}

const COMPUTE: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
const COUNTS: [&str; 9] = [
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];
const QUOTA: [&str; 7] = [
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
];

pub(crate) fn is_huge_page(name: &str) -> bool {
    name.starts_with("hugepages-")
}

pub(crate) fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

pub(crate) fn is_overcommit_allowed(name: &str) -> bool {
    is_native(name) && !is_huge_page(name)
}

/// A resource that is neither Kubernetes' own nor a quota's name for one (`IsExtendedResourceName`).
pub fn is_extended(name: &str) -> bool {
    !is_native(name)
        && !name.starts_with("requests.")
        && names::qualified_name(&format!("requests.{name}")).is_empty()
}

fn is_integer(name: &str) -> bool {
    COUNTS.contains(&name) || is_extended(name)
}

/// Names a quota may limit without a prefix.
pub(crate) fn is_quota_name(name: &str) -> bool {
    COMPUTE.contains(&name)
        || QUOTA.contains(&name)
        || COUNTS.contains(&name)
        || is_huge_page(name)
        || name.starts_with("requests.hugepages-")
}

/// A name of any resource.
pub(crate) fn resource_name(at: &At<'_>, name: &str) {
    let shown = Value::from(name);
    let faults = names::qualified_name(name);
    for fault in &faults {
        at.invalid_as(&shown, fault);
    }
    let standard = is_quota_name(name) || name == "storage";
    if faults.is_empty() && !name.contains('/') && !standard {
        at.invalid_as(&shown, "must be a standard resource type or fully qualified");
    }
}

/// A name of a resource that containers use.
pub(crate) fn container_resource_name(at: &At<'_>, name: &str) {
    resource_name(at, name);
    let shown = Value::from(name);
    if name.split('/').count() == 1 {
        if !COMPUTE.contains(&name) && !is_huge_page(name) {
            at.invalid_as(&shown, "must be a standard resource for containers");
        }
    } else if !is_native(name) && !is_extended(name) {
        at.invalid_as(&shown, "doesn't follow extended resource name standard");
    }
}

/// A name that pods may have resources of as a whole.
pub(crate) fn pod_resource_name(at: &At<'_>, name: &str) {
    let named = at.sound(|| resource_name(at, name));
    if named && !matches!(name, "cpu" | "memory") && !is_huge_page(name) {
        at.not_supported_as(&name.into(), &["cpu", "hugepages-", "memory"]);
    }
}

pub(crate) fn quota_resource_name(at: &At<'_>, name: &str) {
    resource_name(at, name);
    if name.split('/').count() == 1 && !is_quota_name(name) {
        at.invalid_as(&name.into(), "must be a standard resource for quota");
    }
}

/// Zero or more, and whole when the resource is counted.
pub(crate) fn amount(at: &At<'_>, name: &str) {
    let Some(quantity) = parse(at.value()) else { return };
    if quantity.is_negative() {
        at.invalid_as(&quantity.to_string().into(), "must be greater than or equal to 0");
    }
    if is_integer(name) && quantity.milli_value() % 1000 != 0 {
        at.invalid_as(&quantity.to_string().into(), "must be an integer");
    }
}

/// More than zero.
pub(crate) fn positive(at: &At<'_>) {
    let quantity = parse(at.value()).unwrap_or(Quantity::ZERO);
    if quantity.is_negative() || quantity.is_zero() {
        at.invalid_as(&quantity.to_string().into(), "must be greater than zero");
    }
}

/// Not negative, told as a plain number.
pub(crate) fn basic(at: &At<'_>) {
    if let Some(quantity) = parse(at.value())
        && quantity.value() < 0
    {
        at.invalid_as(&quantity.value().into(), "must be a valid resource quantity");
    }
}

/// Whole pages of the size that the name tells.
pub(crate) fn huge_pages(at: &At<'_>, name: &str) {
    let Some(quantity) = parse(at.value()).filter(|_| is_huge_page(name)) else { return };
    let size = name.strip_prefix("hugepages-").and_then(|size| Quantity::parse(size).ok());
    let whole = size.is_some_and(|size| {
        !size.is_negative()
            && !size.is_zero()
            && size.milli_value() % 1000 == 0
            && quantity.value() % size.value() == 0
    });
    if !whole {
        let detail = format!("{quantity} is not positive integer multiple of {name}");
        at.invalid_as(&quantity.to_string().into(), &detail);
    }
}
