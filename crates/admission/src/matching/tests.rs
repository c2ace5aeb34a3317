//! Each part of a rule and each selector, with what it lets through and what it does not.

use api::registry::{Registry, Resource};
use auth::{RequestInfo, User};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::attributes::{BoxFuture, Operation};
use crate::fakes::Fake;
use crate::versions::Versions;

/// A resource that is also served as other rows.
struct Also(Vec<&'static Resource>);

impl Versions for Also {
    fn equivalents(&self) -> Vec<&'static Resource> {
        self.0.clone()
    }

    fn convert<'a>(
        &'a self,
        object: Value,
        _: &'a Resource,
        _: &'a Resource,
    ) -> BoxFuture<'a, Result<Value, Status>> {
        Box::pin(std::future::ready(Ok(object)))
    }

    fn patched(&self, _: &Resource, tree: Value, _: bool) -> Result<Value, Status> {
        Ok(tree)
    }

    fn merge(&self, _: &Resource, live: &Value, _: &Value) -> Result<Value, String> {
        Ok(live.clone())
    }

    fn pruned(&self, object: Value) -> Result<Value, Status> {
        Ok(object)
    }
}

fn row(group: &str, version: &str, path: &str) -> &'static Resource {
    let (name, subresource) = path.split_once('/').unwrap_or((path, ""));
    Registry::built_in().find(group, version, name, subresource).expect("a resource")
}

struct Asked {
    operation: Operation,
    row: &'static Resource,
    namespace: &'static str,
    name: &'static str,
    object: Value,
    old: Option<Value>,
}

fn asked(row: &'static Resource) -> Asked {
    let namespace = if row.namespaced { "n" } else { "" };
    Asked { operation: Operation::Create, row, namespace, name: "x", object: json!({}), old: None }
}

impl Asked {
    fn try_by(&self, constraints: &Constraints) -> Result<Option<&'static str>, Status> {
        let labels = json!({"env": "test"});
        let cluster =
            Fake::with(&[("namespaces", json!({"metadata": {"name": "n", "labels": labels}}))]);
        let info = RequestInfo { namespace: self.namespace.into(), ..RequestInfo::default() };
        let others = vec![row("autoscaling", "v2", "horizontalpodautoscalers")];
        let is_scaler = self.row.name == "horizontalpodautoscalers";
        let request = Attributes {
            operation: self.operation,
            user: &User::default(),
            info: &info,
            row: self.row,
            name: self.name,
            old: self.old.as_ref(),
            dry_run: false,
            options: &|| Value::Null,
            now: Timestamp::UNIX_EPOCH,
            deadline: None,
            cluster: &cluster,
            reinvocation: &crate::Reinvocation::default(),
            versions: &Also(if is_scaler { others } else { Vec::new() }),
            warn: &|_| {},
            annotate: &|_, _| {},
        };
        constraints.matches(&request, &self.object).map(|row| row.map(|row| row.version))
    }

    fn is_matched(&self, rule: &Value) -> bool {
        let constraints = Constraints::of_webhook(&json!({"rules": [rule]}));
        self.try_by(&constraints).expect("decided").is_some()
    }
}

fn rule(resources: &[&str]) -> Value {
    json!({"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"],
        "resources": resources})
}

fn with(mut rule: Value, key: &str, value: Value) -> Value {
    rule[key] = value;
    rule
}

#[test]
fn every_part_of_a_rule_must_match() {
    let pod = asked(row("", "v1", "pods"));
    assert!(pod.is_matched(&rule(&["pods"])));
    for (key, no, yes) in [
        ("operations", json!(["UPDATE", "DELETE"]), json!(["UPDATE", "*"])),
        ("apiGroups", json!(["apps"]), json!(["*"])),
        ("apiVersions", json!(["v2"]), json!(["v2", "*"])),
        ("resources", json!(["services", "pods/exec", "*/exec"]), json!(["*"])),
        ("scope", json!("Cluster"), json!("Namespaced")),
        ("scope", json!("Elsewhere"), json!("*")),
        ("resourceNames", json!(["y"]), json!(["y", "x"])),
    ] {
        assert!(!pod.is_matched(&with(rule(&["pods"]), key, no)), "{key}");
        assert!(pod.is_matched(&with(rule(&["pods"]), key, yes)), "{key}");
    }
}

#[test]
fn subresources_match_only_where_a_rule_names_them() {
    let exec = asked(row("", "v1", "pods/exec"));
    for (resources, expected) in [
        (["pods"], false),
        (["*"], false),
        (["pods/exec"], true),
        (["pods/*"], true),
        (["*/exec"], true),
        (["*/*"], true),
        (["services/*"], false),
    ] {
        assert_eq!(exec.is_matched(&rule(&resources)), expected, "{resources:?}");
    }
}

#[test]
fn namespaces_are_cluster_scoped() {
    let mut namespace = asked(row("", "v1", "namespaces"));
    for path_has_namespace in [false, true] {
        namespace.namespace = if path_has_namespace { "x" } else { "" };
        let scoped = |scope: &str| with(rule(&["namespaces"]), "scope", scope.into());
        assert!(namespace.is_matched(&scoped("Cluster")));
        assert!(!namespace.is_matched(&scoped("Namespaced")));
    }
    let node = asked(row("", "v1", "nodes"));
    assert!(node.is_matched(&with(rule(&["nodes"]), "scope", "Cluster".into())));
    assert!(!node.is_matched(&with(rule(&["nodes"]), "scope", "Namespaced".into())));
}

#[test]
fn equivalent_versions_match_unless_the_policy_is_exact() {
    let scaler = asked(row("autoscaling", "v1", "horizontalpodautoscalers"));
    let of = |version: &str, policy: &str| {
        let rule = json!({"operations": ["*"], "apiGroups": ["autoscaling"],
            "apiVersions": [version], "resources": ["horizontalpodautoscalers"]});
        let webhook = json!({"rules": [rule], "matchPolicy": policy});
        scaler.try_by(&Constraints::of_webhook(&webhook)).expect("decided")
    };
    assert_eq!(of("v1", "Exact"), Some("v1"));
    assert_eq!(of("v2", "Exact"), None);
    assert_eq!(of("v2", "Equivalent"), Some("v2"));
    assert_eq!(of("*", "Equivalent"), Some("v1"), "the version of the request comes first");
    assert_eq!(of("v3", "Equivalent"), None);
}

fn selecting(key: &str, resources: &[&str]) -> Constraints {
    let rule = with(rule(resources), "operations", json!(["*"]));
    Constraints::of_webhook(&json!({"rules": [rule], key: {"matchLabels": {"env": "test"}}}))
}

#[test]
fn namespaces_are_selected_by_their_labels() {
    let selector = selecting("namespaceSelector", &["pods", "nodes", "namespaces"]);
    let mut pod = asked(row("", "v1", "pods"));
    assert!(pod.try_by(&selector).expect("decided").is_some());
    pod.namespace = "absent";
    assert_eq!(pod.try_by(&selector).expect_err("no namespace").code, 404);
    let elsewhere = selecting("namespaceSelector", &["services"]);
    assert!(pod.try_by(&elsewhere).expect("the rule decides first").is_none());
    let node = asked(row("", "v1", "nodes"));
    assert!(node.try_by(&selector).expect("decided").is_some(), "cluster-scoped: always");
    // A namespace is selected by the labels that it gets, and when it goes by those that it has.
    let mut namespace = asked(row("", "v1", "namespaces"));
    assert!(namespace.try_by(&selector).expect("decided").is_none());
    namespace.object = json!({"metadata": {"labels": {"env": "test"}}});
    assert!(namespace.try_by(&selector).expect("decided").is_some());
    namespace = Asked { operation: Operation::Delete, name: "n", ..namespace };
    namespace.object = Value::Null;
    assert!(namespace.try_by(&selector).expect("decided").is_some());
}

#[test]
fn objects_are_selected_by_their_labels_before_or_after() {
    let selector = selecting("objectSelector", &["pods", "pods/exec"]);
    let labelled = json!({"metadata": {"labels": {"env": "test"}}});
    let mut pod = asked(row("", "v1", "pods"));
    assert!(pod.try_by(&selector).expect("decided").is_none());
    pod.old = Some(labelled.clone());
    assert!(pod.try_by(&selector).expect("decided").is_some());
    (pod.old, pod.object) = (None, labelled.clone());
    assert!(pod.try_by(&selector).expect("decided").is_some());
    let mut exec = asked(row("", "v1", "pods/exec"));
    (exec.operation, exec.object) = (Operation::Connect, labelled);
    assert!(exec.try_by(&selector).expect("decided").is_none(), "options have no labels");
}

#[test]
fn policies_exclude_and_may_have_no_rules() {
    let pod = asked(row("", "v1", "pods"));
    assert!(pod.try_by(&Constraints::of_policy(&json!({}))).expect("decided").is_some());
    let excluding = json!({"excludeResourceRules": [rule(&["pods"])]});
    assert!(pod.try_by(&Constraints::of_policy(&excluding)).expect("decided").is_none());
    let none = Constraints::of_webhook(&json!({}));
    assert!(pod.try_by(&none).expect("decided").is_none(), "a webhook without rules");
}

#[test]
fn configurations_are_exempt() {
    let group = "admissionregistration.k8s.io";
    for row in Registry::built_in().rows() {
        assert_eq!(is_exempt(row), row.group == group, "{}/{}", row.group, row.name);
    }
}
