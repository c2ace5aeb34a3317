//! RBAC over a compiled table that is rebuilt when a role or binding changes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;
use store::{Collection, Store};

use super::Attributes;
use crate::user::User;

/// A policy rule.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Rule {
    pub(crate) verbs: Vec<String>,
    pub(crate) api_groups: Vec<String>,
    pub(crate) resources: Vec<String>,
    pub(crate) resource_names: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    pub(crate) non_resource_urls: Vec<String>,
}

impl Rule {
    fn allows(&self, a: &Attributes<'_>) -> bool {
        let has = |list: &[String], value: &str| list.iter().any(|v| v == "*" || v == value);
        if !has(&self.verbs, a.verb) {
            return false;
        }
        if let Some(path) = a.path {
            return self.non_resource_urls.iter().any(|url| url_matches(url, path));
        }
        has(&self.api_groups, a.group)
            && self.resources.iter().any(|r| resource_matches(r, a))
            && (self.resource_names.is_empty() || self.resource_names.iter().any(|n| n == a.name))
    }
}

fn url_matches(url: &str, path: &str) -> bool {
    url == "*"
        || url == path
        || url.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix))
}

fn resource_matches(rule: &str, a: &Attributes<'_>) -> bool {
    match rule.split_once('/') {
        None => rule == "*" || (a.subresource.is_empty() && rule == a.resource),
        Some(("*", sub)) => sub == a.subresource,
        Some((resource, sub)) => resource == a.resource && sub == a.subresource,
    }
}

#[derive(Deserialize)]
struct Role {
    #[serde(default)]
    rules: Option<Vec<Rule>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Binding {
    #[serde(default)]
    subjects: Option<Vec<Subject>>,
    role_ref: RoleRef,
}

#[derive(Deserialize)]
struct RoleRef {
    kind: String,
    name: String,
}

#[derive(Deserialize, Clone)]
struct Subject {
    kind: String,
    name: String,
    #[serde(default)]
    namespace: String,
}

impl Subject {
    fn is(&self, user: &User, binding_namespace: &str) -> bool {
        match self.kind.as_str() {
            "User" => self.name == user.name,
            "Group" => user.in_group(&self.name),
            "ServiceAccount" => {
                let ns =
                    if self.namespace.is_empty() { binding_namespace } else { &self.namespace };
                user.name.strip_prefix("system:serviceaccount:").and_then(|r| r.split_once(':'))
                    == Some((ns, &self.name))
            }
            _ => false,
        }
    }
}

/// One binding with its role's rules looked up.
struct Grant {
    /// Empty when it holds everywhere.
    namespace: String,
    subjects: Vec<Subject>,
    rules: Arc<Vec<Rule>>,
}

#[derive(Default)]
struct Compiled {
    /// Last change of the four collections that the table reflects.
    as_of: [u64; 4],
    grants: Arc<Vec<Grant>>,
}

pub(super) struct Rbac {
    /// Roles, bindings, cluster roles, cluster bindings.
    sources: [Arc<Collection>; 4],
    compiled: Mutex<Compiled>,
}

const SOURCES: [&str; 4] = [
    "/registry/roles/",
    "/registry/rolebindings/",
    "/registry/clusterroles/",
    "/registry/clusterrolebindings/",
];

impl Rbac {
    pub(super) fn new(store: &Store) -> Rbac {
        let find = |prefix| store.collection(prefix).expect("RBAC's collections are built in");
        Rbac { sources: SOURCES.map(find), compiled: Mutex::default() }
    }

    pub(super) fn allows(&self, user: &User, a: &Attributes<'_>) -> bool {
        self.grants().iter().any(|g| {
            (g.namespace.is_empty() || (a.path.is_none() && g.namespace == a.namespace))
                && g.subjects.iter().any(|s| s.is(user, &g.namespace))
                && g.rules.iter().any(|r| r.allows(a))
        })
    }

    pub(super) fn rules(&self, user: &User, namespace: &str) -> Vec<Rule> {
        let grants = self.grants();
        let mine = grants.iter().filter(|g| {
            (g.namespace.is_empty() || g.namespace == namespace)
                && g.subjects.iter().any(|s| s.is(user, &g.namespace))
        });
        mine.flat_map(|g| g.rules.iter().cloned()).collect()
    }

    fn grants(&self) -> Arc<Vec<Grant>> {
        let as_of = self.sources.each_ref().map(|c| c.last_change());
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if compiled.as_of != as_of {
            *compiled = Compiled { as_of, grants: Arc::new(self.compile()) };
        }
        compiled.grants.clone()
    }

    fn compile(&self) -> Vec<Grant> {
        let [roles, bindings, cluster_roles, cluster_bindings] = &self.sources;
        let mut rules = HashMap::new();
        for (collection, kind) in [(roles, "Role"), (cluster_roles, "ClusterRole")] {
            for object in all(collection) {
                if let Ok(role) = object.decode::<Role>() {
                    let key =
                        (kind, object.meta().namespace.to_string(), object.meta().name.to_string());
                    rules.insert(key, Arc::new(role.rules.unwrap_or_default()));
                }
            }
        }
        let mut grants = Vec::new();
        for object in all(cluster_bindings).into_iter().chain(all(bindings)) {
            let Ok(binding) = object.decode::<Binding>() else { continue };
            let namespace = object.meta().namespace.to_string();
            let (kind, home) = match binding.role_ref.kind.as_str() {
                "Role" => ("Role", namespace.clone()),
                _ => ("ClusterRole", String::new()),
            };
            if let Some(rules) = rules.get(&(kind, home, binding.role_ref.name)) {
                let subjects = binding.subjects.unwrap_or_default();
                grants.push(Grant { namespace, subjects, rules: rules.clone() });
            }
        }
        grants
    }
}

fn all(collection: &Collection) -> Vec<Arc<api::Object>> {
    collection.list("", None, 0, usize::MAX, &|_| true).map(|page| page.objects).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(verbs: &[&str], resources: &[&str], names: &[&str]) -> Rule {
        let own = |l: &[&str]| l.iter().map(|s| (*s).to_owned()).collect();
        Rule {
            verbs: own(verbs),
            api_groups: own(&[""]),
            resources: own(resources),
            resource_names: own(names),
            non_resource_urls: vec![],
        }
    }

    fn ask<'a>(
        verb: &'a str,
        resource: &'a str,
        subresource: &'a str,
        name: &'a str,
    ) -> Attributes<'a> {
        Attributes { verb, group: "", resource, subresource, namespace: "a", name, path: None }
    }

    #[test]
    fn rules_match_resources_subresources_and_names() {
        assert!(rule(&["get"], &["pods"], &[]).allows(&ask("get", "pods", "", "x")));
        assert!(!rule(&["get"], &["pods"], &[]).allows(&ask("get", "pods", "log", "x")));
        assert!(rule(&["*"], &["*/scale"], &[]).allows(&ask("get", "pods", "scale", "x")));
        assert!(rule(&["get"], &["*"], &[]).allows(&ask("get", "pods", "log", "x")));
        assert!(!rule(&["get"], &["pods"], &["y"]).allows(&ask("get", "pods", "", "x")));
    }

    #[test]
    fn paths_match_exactly_or_by_prefix() {
        assert!(
            url_matches("/healthz/*", "/healthz/etcd") && !url_matches("/healthz", "/healthz/etcd")
        );
    }
}
