//! The rules that an aggregating role is to have.

use std::sync::Arc;

use client::Change;
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};

use crate::meta::{matches, name, selector};

/// Whether `role` takes its rules from what changed, or is it itself.
pub(crate) fn is_concerned(role: &ClusterRole, change: &Change<ClusterRole>) -> bool {
    if role.aggregation_rule.is_none() {
        return false;
    }
    let changed = [Some(change.object()), change.old()];
    name(&role.metadata) == name(&change.object().metadata)
        || changed.into_iter().flatten().any(|other| takes(role, other))
}

fn takes(role: &ClusterRole, other: &ClusterRole) -> bool {
    let selectors =
        role.aggregation_rule.iter().flat_map(|a| a.cluster_role_selectors.iter().flatten());
    selectors.into_iter().any(|s| matches(&selector(s), other.metadata.labels.as_ref()))
}

/// The rules of all roles that are selected, each once, by selector and name; `None` if the role does not
/// aggregate or has them.
pub(crate) fn rules(role: &ClusterRole, all: &[Arc<ClusterRole>]) -> Option<Vec<PolicyRule>> {
    let aggregation = role.aggregation_rule.as_ref()?;
    let mut rules: Vec<PolicyRule> = Vec::new();
    for wanted in aggregation.cluster_role_selectors.iter().flatten() {
        let wanted = selector(wanted);
        let fits = |r: &&Arc<ClusterRole>| {
            r.metadata.name != role.metadata.name && matches(&wanted, r.metadata.labels.as_ref())
        };
        let mut found: Vec<&Arc<ClusterRole>> = all.iter().filter(fits).collect();
        found.sort_by_key(|r| name(&r.metadata).to_owned());
        for rule in found.into_iter().flat_map(|r| r.rules.iter().flatten()) {
            if !rules.contains(rule) {
                rules.push(rule.clone());
            }
        }
    }
    (role.rules.as_deref().unwrap_or_default() != rules).then_some(rules)
}
