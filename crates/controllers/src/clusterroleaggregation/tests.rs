//! Which rules an aggregating role gets.

use std::sync::Arc;

use client::Change;
use k8s_openapi::api::rbac::v1::ClusterRole;
use serde_json::{Value, json};

use super::plan::{is_concerned, rules};

fn role(name: &str, label: &str, verbs: &[&str]) -> Arc<ClusterRole> {
    let rules: Vec<Value> = verbs.iter().map(|verb| json!({"verbs": [verb]})).collect();
    Arc::new(
        serde_json::from_value(json!({"metadata": {"name": name, "labels": {"to": label}},
            "rules": rules}))
        .unwrap(),
    )
}

fn aggregating(verbs: &[&str]) -> ClusterRole {
    let mut all = ClusterRole::clone(&role("all", "view", verbs));
    all.aggregation_rule = serde_json::from_value(json!({"clusterRoleSelectors":
        [{"matchLabels": {"to": "view"}}, {"matchLabels": {"to": "edit"}}]}))
    .unwrap();
    all
}

fn verbs(of: &ClusterRole, all: &[Arc<ClusterRole>]) -> Option<Vec<String>> {
    let rules = rules(of, all)?;
    Some(rules.into_iter().flat_map(|r| r.verbs).collect())
}

#[test]
fn rules_come_by_selector_and_name_each_once() {
    let all = [
        role("c", "view", &["get", "list"]),
        role("b", "view", &["watch", "get"]),
        role("a", "edit", &["create", "get"]),
        role("x", "other", &["delete"]),
    ];
    let wanted = ["watch", "get", "list", "create"].map(str::to_owned);
    assert_eq!(verbs(&aggregating(&[]), &all), Some(wanted.to_vec()));
    assert_eq!(verbs(&aggregating(&["watch", "get", "list", "create"]), &all), None);
    // A role whose sources are gone has no rules; its own count for nothing.
    assert_eq!(verbs(&aggregating(&["get"]), &[]), Some(vec![]));
    assert_eq!(verbs(&role("x", "view", &[]), &all), None);
}

#[test]
fn a_role_that_ceases_to_fit_concerns_as_well() {
    let of = aggregating(&[]);
    let (old, new) = (role("a", "view", &[]), role("a", "none", &[]));
    assert!(is_concerned(&of, &Change::Updated { old: old.clone(), new: new.clone() }));
    assert!(is_concerned(&of, &Change::Deleted(old.clone())));
    assert!(!is_concerned(&of, &Change::Added(new)));
    assert!(!is_concerned(&role("x", "view", &[]), &Change::Added(old)));
}
