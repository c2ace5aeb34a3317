//! The built-in plugins. One table gives their order, which is upstream's (`AllOrderedPlugins`).

mod certificates;
mod limit_ranger;
mod namespace_lifecycle;
mod node_restriction;
mod nodes;
mod pod_security;
mod pods;
mod rbac_escalation;
mod resource_quota;
mod runtime_class;
mod secret_references;
mod service_account;
mod storage;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde_json::Value;

use crate::plugin::Plugin;
use crate::policies::{Mutating, Policies, Validating};

/// All plugins that are on by default, with the plugins of the policies where there are such.
pub(crate) fn in_order(policies: Option<Arc<Policies>>) -> Vec<Box<dyn Plugin>> {
    let mut plugins = built_in();
    let (mutating, validating) = match policies {
        Some(policies) => (Some(Mutating(policies.clone())), Some(Validating(policies))),
        None => (None, None),
    };
    plugins.extend(mutating.map(|plugin| Box::new(plugin) as Box<dyn Plugin>));
    plugins.extend(validating.map(|plugin| Box::new(plugin) as Box<dyn Plugin>));
    plugins.push(Box::new(resource_quota::ResourceQuota::default()));
    plugins
}

/// The plugins before webhooks and policies.
fn built_in() -> Vec<Box<dyn Plugin>> {
    vec![
        Box::new(namespace_lifecycle::NamespaceLifecycle),
        Box::new(limit_ranger::LimitRanger),
        Box::new(service_account::ServiceAccount),
        Box::new(node_restriction::NodeRestriction),
        Box::new(nodes::TaintNodesByCondition),
        Box::new(pod_security::PodSecurity),
        Box::new(pods::Priority),
        Box::new(pods::DefaultTolerationSeconds),
        Box::new(storage::DefaultStorageClass),
        Box::new(storage::StorageObjectInUseProtection),
        Box::new(storage::PersistentVolumeClaimResize),
        Box::new(runtime_class::RuntimeClass),
        Box::new(certificates::CertificateApproval),
        Box::new(certificates::CertificateSigning),
        Box::new(certificates::CertificateSubjectRestriction),
        Box::new(storage::DefaultIngressClass),
        Box::new(nodes::PodTopologyLabels),
        Box::new(nodes::NodeDeclaredFeatureValidator),
        Box::new(rbac_escalation::RbacEscalation),
    ]
}

/// Without everything that says no more than its absence.
fn bare(value: &Value) -> Option<Value> {
    match value {
        Value::Null => None,
        Value::String(text) => (!text.is_empty()).then(|| value.clone()),
        Value::Array(list) => {
            let list: Vec<Value> =
                list.iter().map(|item| bare(item).unwrap_or(Value::Null)).collect();
            (!list.is_empty()).then_some(Value::Array(list))
        }
        Value::Object(map) => {
            let set = map.iter().filter_map(|(key, value)| Some((key.clone(), bare(value)?)));
            let map: serde_json::Map<String, Value> = set.collect();
            (!map.is_empty()).then_some(Value::Object(map))
        }
        other => Some(other.clone()),
    }
}
