//! RBAC: rules, subjects, and who is allowed what by the [`table`] of all bindings.

mod table;

use std::sync::{Arc, Mutex, PoisonError};

use api::Status;
use serde::Deserialize;

use self::table::{Grants, Table};
use super::Attributes;
use crate::objects::{Collection, Objects};
use crate::user::User;

/// A policy rule.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rule {
    pub verbs: Vec<String>,
    pub api_groups: Vec<String>,
    pub resources: Vec<String>,
    pub resource_names: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    pub non_resource_urls: Vec<String>,
}

impl Rule {
    /// Every verb on every resource, and on every path.
    pub fn everything() -> [Rule; 2] {
        let all = || vec!["*".to_owned()];
        let resources =
            Rule { verbs: all(), api_groups: all(), resources: all(), ..Rule::default() };
        [resources, Rule { verbs: all(), non_resource_urls: all(), ..Rule::default() }]
    }

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
    url == "*" || url_covers(url, path)
}

/// Whether a rule's path is the other or, ending in a star, begins it.
pub(super) fn url_covers(url: &str, path: &str) -> bool {
    url == path || url.ends_with('*') && path.starts_with(url.trim_end_matches('*'))
}

fn resource_matches(rule: &str, a: &Attributes<'_>) -> bool {
    let asked = (a.resource, a.subresource);
    match asked {
        _ if rule == "*" => true,
        (resource, "") => rule == resource,
        (resource, sub) => {
            rule.strip_prefix("*/") == Some(sub)
                || rule.strip_prefix(resource).and_then(|rest| rest.strip_prefix('/')) == Some(sub)
        }
    }
}

/// Rules that hold for somebody, and why some could not be found.
#[derive(Debug, Clone, Default)]
pub struct Resolved {
    pub rules: Vec<Rule>,
    pub errors: Vec<String>,
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

/// The role that a binding names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RoleRef {
    pub api_group: String,
    pub kind: String,
    pub name: String,
}

#[derive(Deserialize, Clone)]
struct Subject {
    kind: String,
    name: String,
    #[serde(default)]
    namespace: String,
}

impl Subject {
    fn told(&self, binding_namespace: &str) -> String {
        let home = if self.namespace.is_empty() { binding_namespace } else { &self.namespace };
        match self.kind.as_str() {
            "ServiceAccount" => format!("{} {:?}", self.kind, format!("{}/{home}", self.name)),
            kind => format!("{kind} {:?}", self.name),
        }
    }

    fn is(&self, user: &User, binding_namespace: &str) -> bool {
        match self.kind.as_str() {
            "User" => self.name == user.name,
            "Group" => user.in_group(&self.name),
            "ServiceAccount" => {
                let ns =
                    if self.namespace.is_empty() { binding_namespace } else { &self.namespace };
                !ns.is_empty()
                    && user
                        .name
                        .strip_prefix("system:serviceaccount:")
                        .and_then(|r| r.split_once(':'))
                        == Some((ns, &self.name))
            }
            _ => false,
        }
    }
}

/// A role that a binding names and that is not there.
#[derive(Debug, Clone)]
struct Missing {
    /// Plural.
    resource: &'static str,
    name: String,
}

impl Missing {
    /// As who reads the role finds it.
    fn read(&self) -> String {
        Status::not_found(GROUP, self.resource, &self.name).message
    }

    /// As an informer's lister tells it.
    fn listed(&self) -> String {
        Status::not_found(GROUP, self.resource.trim_end_matches('s'), &self.name).message
    }
}

pub(super) struct Rbac {
    /// Roles, bindings, cluster roles, cluster bindings.
    sources: [Arc<dyn Collection>; 4],
    table: Mutex<Table>,
}

const GROUP: &str = "rbac.authorization.k8s.io";
const SOURCES: [&str; 4] = ["roles", "rolebindings", "clusterroles", "clusterrolebindings"];

impl Rbac {
    pub(super) fn new(objects: &dyn Objects) -> Rbac {
        let find = |resource| objects.of(GROUP, resource).expect("RBAC's resources are built in");
        Rbac { sources: SOURCES.map(find), table: Mutex::default() }
    }

    pub(super) fn allows(&self, user: &User, a: &Attributes<'_>) -> bool {
        let grants = self.grants();
        grants.for_request(a).any(|grant| grant.subject(user).is_some() && grant.allows(a))
    }

    /// Which binding allows it.
    pub(super) fn source(&self, user: &User, a: &Attributes<'_>) -> Option<String> {
        let grants = self.grants();
        let mut mine = grants.for_request(a).filter(|grant| grant.allows(a));
        mine.find_map(|grant| Some(grant.told(grant.subject(user)?)))
    }

    /// Why some of the user's rights are not known: roles that are bound and not there.
    pub(super) fn lost(&self, user: &User, a: &Attributes<'_>) -> Vec<String> {
        let grants = self.grants();
        let mine = grants.for_request(a).filter(|grant| grant.subject(user).is_some());
        mine.filter_map(|grant| grant.rules().err().map(Missing::listed)).collect()
    }

    pub(super) fn rules(&self, user: &User, namespace: &str) -> Resolved {
        let mut found = Resolved::default();
        let grants = self.grants();
        for grant in grants.within(namespace).filter(|grant| grant.subject(user).is_some()) {
            match grant.rules() {
                Ok(rules) => found.rules.extend(rules.iter().cloned()),
                Err(missing) => found.errors.push(missing.read()),
            }
        }
        found
    }

    /// The rules of a role as a binding in this namespace names it.
    pub(super) fn role(&self, role: &RoleRef, namespace: &str) -> Result<Vec<Rule>, Status> {
        let [roles, _, cluster_roles, _] = &self.sources;
        let (found, plural) = match role.kind.as_str() {
            "Role" => (roles.get(&format!("{namespace}/{}", role.name)), "roles"),
            "ClusterRole" => (cluster_roles.get(&role.name), "clusterroles"),
            other => {
                let why = format!("unsupported role reference kind: {other:?}");
                return Err(Status::failure(500, "", why));
            }
        };
        let found = found.ok_or_else(|| Status::not_found(GROUP, plural, &role.name))?;
        let decoded = found.decode::<Role>().map_err(|e| Status::internal(e.to_string()))?;
        Ok(decoded.rules.unwrap_or_default())
    }

    fn grants(&self) -> Arc<Grants> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.grants(&self.sources)
    }
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
        Attributes { verb, resource, subresource, namespace: "a", name, ..Attributes::default() }
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
