//! Rules: operations, groups, versions, resources, scope, and names (apiserver
//! `plugin/webhook/predicates/rules`).

use api::registry::Resource;
use serde_json::Value;
use validation::items;

use crate::attributes::{Attributes, Operation};

/// One `RuleWithOperations`, or `NamedRuleWithOperations` of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    operations: Vec<Box<str>>,
    groups: Vec<Box<str>>,
    versions: Vec<Box<str>>,
    /// Resource and subresource, each of which may be `*`.
    resources: Vec<(Box<str>, Box<str>)>,
    scope: Scope,
    /// Empty: any name.
    names: Vec<Box<str>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    All,
    Namespaced,
    Cluster,
    /// A value that is not defined matches nothing.
    Unknown,
}

impl Scope {
    fn read(value: &Value) -> Scope {
        match value.as_str() {
            None | Some("*") => Scope::All,
            Some("Namespaced") => Scope::Namespaced,
            Some("Cluster") => Scope::Cluster,
            Some(_) => Scope::Unknown,
        }
    }
}

fn texts(rule: &Value, key: &str) -> Vec<Box<str>> {
    items(rule, key).filter_map(|item| item.as_str().map(Box::from)).collect()
}

fn lists(list: &[Box<str>], wanted: &str) -> bool {
    list.iter().any(|item| **item == *"*" || **item == *wanted)
}

impl Rule {
    pub fn read(rule: &Value) -> Rule {
        let resources = items(rule, "resources").filter_map(Value::as_str).map(|text| {
            let (resource, subresource) = text.split_once('/').unwrap_or((text, ""));
            (resource.into(), subresource.into())
        });
        Rule {
            operations: texts(rule, "operations"),
            groups: texts(rule, "apiGroups"),
            versions: texts(rule, "apiVersions"),
            resources: resources.collect(),
            scope: Scope::read(&rule["scope"]),
            names: texts(rule, "resourceNames"),
        }
    }

    /// Whether the rule covers a request, if the request were for `row`.
    pub fn matches(&self, request: &Attributes<'_>, row: &Resource) -> bool {
        self.covers(row)
            && lists(&self.operations, request.operation.name())
            && self.is_in_scope(row, namespace(request))
            && (self.names.is_empty() || self.names.iter().any(|name| **name == *request.name))
    }

    /// Whether the rule names the resource in this version, whatever the operation.
    pub fn covers(&self, row: &Resource) -> bool {
        lists(&self.groups, row.group) && lists(&self.versions, row.version) && self.has(row)
    }

    /// Whether the rule covers an operation.
    pub fn covers_operation(&self, operation: Operation) -> bool {
        lists(&self.operations, operation.name())
    }

    fn has(&self, row: &Resource) -> bool {
        let is = |pattern: &str, name: &str| pattern == "*" || pattern == name;
        self.resources.iter().any(|(resource, subresource)| {
            is(resource, row.name) && is(subresource, row.subresource)
        })
    }

    /// Namespaces are cluster-scoped, although requests for them have a namespace.
    fn is_in_scope(&self, row: &Resource, namespace: &str) -> bool {
        let is_namespace = (row.group, row.version, row.name) == ("", "v1", "namespaces");
        let is_cluster = is_namespace || namespace.is_empty();
        match self.scope {
            Scope::All => true,
            Scope::Namespaced => !is_cluster,
            Scope::Cluster => is_cluster,
            Scope::Unknown => false,
        }
    }
}

/// The namespace of a request; that of a request for a namespace is its name.
pub fn namespace<'a>(request: &Attributes<'a>) -> &'a str {
    match request.info.namespace.as_str() {
        "" if request.row.name == "namespaces" => request.name,
        namespace => namespace,
    }
}
