//! Warnings about objects that are accepted (upstream's `WarningsOnCreate` and `WarningsOnUpdate`): what
//! is deprecated, ignored or surprising. Clients print them; nothing depends on them.

mod access;
mod addresses;
mod definition;
mod nodes;
mod pair;
mod paths;
mod pod;
mod ports;
mod storage;
mod workloads;

use std::cell::{Cell, RefCell};
use std::fmt::Display;

use api::registry::Resource;
use serde_json::Value;

use crate::check::{At, Check};
use crate::{convert, legacy};

/// Bytes of an object's warnings after which no more are looked for. Responses carry 4 KiB of them.
const BYTES_MAX: usize = 64 * 1024;

/// The warnings about one object.
#[derive(Default)]
pub(crate) struct Warnings {
    all: RefCell<Vec<String>>,
    bytes: Cell<usize>,
}

impl Warnings {
    pub(crate) fn add(&self, text: impl Into<String>) {
        if !self.is_full() {
            let text = text.into();
            self.bytes.set(self.bytes.get() + text.len());
            self.all.borrow_mut().push(text);
        }
    }

    /// A warning about a field.
    pub(crate) fn at(&self, field: &At<'_>, text: impl Display) {
        if !self.is_full() {
            self.add(format!("{field}: {text}"));
        }
    }

    /// Long lists may warn in every item.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes.get() >= BYTES_MAX
    }
}

type Rule = fn(&Warnings, &At<'_>);

/// Warnings of a kind. [`At::old`] tells updates from creations.
fn rule(row: &Resource) -> Option<Rule> {
    Some(match (row.group, row.name, row.subresource) {
        ("", "pods", "") => pod::pod,
        ("", "pods", "status") => addresses::pod_status,
        ("", "podtemplates", "") => workloads::pod_template,
        ("", "replicationcontrollers", "") => workloads::controller,
        ("apps", "replicasets" | "deployments", "") => workloads::named,
        ("apps", "daemonsets", "") => workloads::daemon_set,
        ("apps", "statefulsets", "") => workloads::stateful_set,
        ("batch", "jobs", "") => workloads::job,
        ("batch", "cronjobs", "") => workloads::cron_job,
        ("", "services", "") => addresses::service,
        ("", "services", "status") | ("networking.k8s.io", "ingresses", "status") => {
            addresses::load_balancer
        }
        ("", "endpoints", "") => addresses::endpoints,
        ("discovery.k8s.io", "endpointslices", "") => addresses::endpoint_slice,
        ("networking.k8s.io", "networkpolicies", "") => addresses::network_policy,
        ("networking.k8s.io", "ingresses", "") => access::ingress,
        ("", "nodes", "") => nodes::node,
        ("node.k8s.io", "runtimeclasses", "") => nodes::runtime_class,
        ("storage.k8s.io", "storageclasses", "") => storage::class,
        ("storage.k8s.io", "csistoragecapacities", "") => storage::capacity,
        ("storage.k8s.io", "csidrivers", "") => storage::driver,
        ("", "persistentvolumes", "") => storage::volume,
        ("", "persistentvolumeclaims", "") => storage::claim,
        ("", "resourcequotas", "") => access::quota,
        ("", "serviceaccounts", "") => access::service_account,
        ("", "secrets", "") => access::secret,
        ("resource.k8s.io", "resourceslices", "") => access::resource_slice,
        ("admissionregistration.k8s.io", _, "") => access::static_name,
        ("apiextensions.k8s.io", "customresourcedefinitions", "") => definition::definition,
        _ => return None,
    })
}

/// Warnings about a valid object that is created, or stored in place of `old`.
pub fn warnings(row: &Resource, object: &Value, old: Option<&Value>) -> Vec<String> {
    let Some(rule) = rule(row.current()) else { return Vec::new() };
    let (check, warnings) = (Check::of(row.current()), Warnings::default());
    if row.legacy.is_none() {
        rule(&warnings, &check.root(object, old));
        return warnings.all.into_inner();
    }
    let old = old.map(|old| convert::checked(row, old));
    rule(&warnings, &check.root(&convert::checked(row, object), old.as_deref()));
    warnings.all.into_inner()
}

/// Warnings about new finalizers of a custom resource: names without a domain may clash.
pub fn custom_warnings(object: &Value, old: Option<&Value>) -> Vec<String> {
    let (check, warnings) = (Check::default(), Warnings::default());
    let root = check.root(object, old);
    access::finalizers(&warnings, &root.get("metadata").get("finalizers"));
    warnings.all.into_inner()
}

/// The warning of every request for a version of a kind that is deprecated.
pub fn deprecation(row: &Resource) -> Option<String> {
    let own = match (row.group, row.name, row.subresource) {
        ("", "endpoints", "") => {
            Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice")
        }
        ("", "componentstatuses", "") => Some("v1 ComponentStatus is deprecated in v1.19+"),
        _ => None,
    };
    own.map(str::to_owned).or_else(|| legacy::deprecation(row))
}

/// Go's `%v` of a list of texts.
fn listed(texts: &[String]) -> String {
    format!("[{}]", texts.join(" "))
}

#[cfg(test)]
mod tests;
