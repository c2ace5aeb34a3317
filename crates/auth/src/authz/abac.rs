//! Rights by attributes: a file with a policy a line (`--authorization-policy-file`, `pkg/auth/authorizer/abac`).

use serde::Deserialize;

use crate::authz::{Attributes, Rule};
use crate::user::{AUTHENTICATED, User};

/// Why a file cannot be used, with its line.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("line {line}: {why}")]
pub struct PolicyFileError {
    pub line: usize,
    why: String,
}

/// The policies of a file.
#[derive(Debug, Default)]
pub struct Abac(Vec<Policy>);

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct Policy {
    user: String,
    group: String,
    readonly: bool,
    api_group: String,
    namespace: String,
    resource: String,
    non_resource_path: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Line {
    api_version: String,
    kind: String,
    #[serde(default)]
    spec: Policy,
}

/// A line of the time before versions.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct OldLine {
    user: String,
    group: String,
    readonly: bool,
    resource: String,
    namespace: String,
}

const VERSION: &str = "abac.authorization.kubernetes.io/v1beta1";

impl Abac {
    /// The rules that hold for the user in a namespace (`PolicyList.RulesFor`).
    pub(super) fn rules(&self, user: &User, namespace: &str) -> Vec<Rule> {
        let mine = self.0.iter().filter(|policy| policy.is_about(user));
        let here = mine.filter(|p| p.namespace == "*" || p.namespace == namespace);
        here.flat_map(Policy::rules).collect()
    }

    /// Reads a file: JSON, a policy a line. Blank lines and those that begin with `#` say nothing.
    pub fn parse(text: &str) -> Result<Abac, PolicyFileError> {
        let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
        let told = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let read = |(line, text): (usize, &str)| {
            Policy::read(text).map_err(|why| PolicyFileError { line, why })
        };
        told.map(read).collect::<Result<_, _>>().map(Abac)
    }

    /// Whether one of the policies allows it. None forbids anything.
    pub(super) fn allows(&self, user: &User, asked: &Attributes<'_>) -> bool {
        self.0.iter().any(|policy| policy.is_about(user) && policy.covers(asked))
    }
}

impl Policy {
    fn read(text: &str) -> Result<Policy, String> {
        let tree: serde_json::Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
        let policy = if tree.get("apiVersion").is_none() && tree.get("kind").is_none() {
            let old: OldLine = serde_json::from_value(tree).map_err(|e| e.to_string())?;
            Policy::of_old(old)
        } else {
            let line: Line = serde_json::from_value(tree).map_err(|e| e.to_string())?;
            if (line.api_version.as_str(), line.kind.as_str()) != (VERSION, "Policy") {
                let (version, kind) = (line.api_version, line.kind);
                return Err(format!("no kind {kind:?} is registered for version {version:?}"));
            }
            line.spec
        };
        Ok(policy.of_the_known())
    }

    /// What is not said is anything: anybody who is known, every namespace, every resource, and every path
    /// where neither is said.
    fn of_old(old: OldLine) -> Policy {
        let nobody = old.user.is_empty() && old.group.is_empty();
        let any = |text: String| if text.is_empty() { "*".to_owned() } else { text };
        let path = if old.namespace.is_empty() && old.resource.is_empty() { "*" } else { "" };
        Policy {
            user: old.user,
            group: if nobody { "*".into() } else { old.group },
            readonly: old.readonly,
            api_group: "*".into(),
            namespace: any(old.namespace),
            resource: any(old.resource),
            non_resource_path: path.into(),
        }
    }

    /// Anybody is anybody who is known.
    fn of_the_known(mut self) -> Policy {
        if self.user == "*" || self.group == "*" {
            AUTHENTICATED.clone_into(&mut self.group);
            self.user.clear();
        }
        self
    }

    fn is_about(&self, user: &User) -> bool {
        let named = !self.user.is_empty() || !self.group.is_empty();
        named
            && (self.user.is_empty() || self.user == user.name)
            && (self.group.is_empty() || user.in_group(&self.group))
    }

    fn rules(&self) -> Vec<Rule> {
        let verbs: &[&str] = if self.readonly { &["get", "list", "watch"] } else { &["*"] };
        let verbs: Vec<String> = verbs.iter().map(|verb| (*verb).to_owned()).collect();
        let mut rules = Vec::new();
        if !self.resource.is_empty() {
            rules.push(Rule {
                verbs: verbs.clone(),
                api_groups: vec![self.api_group.clone()],
                resources: vec![self.resource.clone()],
                ..Rule::default()
            });
        }
        if !self.non_resource_path.is_empty() {
            let non_resource_urls = vec![self.non_resource_path.clone()];
            rules.push(Rule { verbs, non_resource_urls, ..Rule::default() });
        }
        rules
    }

    fn covers(&self, asked: &Attributes<'_>) -> bool {
        if self.readonly && !matches!(asked.verb, "get" | "list" | "watch") {
            return false;
        }
        let is = |wanted: &str, asked: &str| wanted == "*" || wanted == asked;
        match asked.path {
            Some(path) => {
                let below = self.non_resource_path.strip_suffix('*');
                is(&self.non_resource_path, path)
                    || below.is_some_and(|below| path.starts_with(below))
            }
            None => {
                is(&self.namespace, asked.namespace)
                    && is(&self.resource, asked.resource)
                    && is(&self.api_group, asked.group)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
# who may what
{"apiVersion":"abac.authorization.kubernetes.io/v1beta1","kind":"Policy","spec":{"user":"alice","namespace":"*","resource":"*","apiGroup":"*","nonResourcePath":"*"}}
{"apiVersion":"abac.authorization.kubernetes.io/v1beta1","kind":"Policy","spec":{"user":"bob","namespace":"p","resource":"pods","readonly":true}}
{"apiVersion":"abac.authorization.kubernetes.io/v1beta1","kind":"Policy","spec":{"group":"*","nonResourcePath":"/healthz/*","readonly":true}}
{"apiVersion":"abac.authorization.kubernetes.io/v1beta1","kind":"Policy","spec":{"user":"carol","group":"ops","namespace":"n","resource":"nodes"}}
{"user":"dave","namespace":"old"}
{"resource":"events","readonly":true}
"#;

    fn asked<'a>(verb: &'a str, namespace: &'a str, resource: &'a str) -> Attributes<'a> {
        Attributes { verb, namespace, resource, ..Attributes::default() }
    }

    #[test]
    fn policies_allow_by_user_group_place_and_verb() {
        let abac = Abac::parse(FILE).expect("a file");
        let user =
            |name: &str, groups: &[&str]| User::new(name, &[groups, &[AUTHENTICATED]].concat());
        let may = |name: &str, groups: &[&str], asked: Attributes<'_>| {
            abac.allows(&user(name, groups), &asked)
        };
        assert!(may("alice", &[], asked("delete", "x", "secrets")));
        assert!(may("bob", &[], asked("list", "p", "pods")));
        assert!(!may("bob", &[], asked("delete", "p", "pods")), "read only");
        assert!(
            !may("bob", &[], asked("get", "q", "pods"))
                && !may("bob", &[], asked("get", "p", "secrets"))
        );
        let apps = Attributes { group: "apps", ..asked("get", "p", "pods") };
        assert!(!may("bob", &[], apps), "no group is the core group");
        let health =
            Attributes { verb: "get", path: Some("/healthz/ping"), ..Attributes::default() };
        assert!(may("zoe", &[], health) && !abac.allows(&User::anonymous(), &health));
        assert!(may("carol", &["ops"], asked("get", "n", "nodes")));
        assert!(!may("carol", &[], asked("get", "n", "nodes")), "both must hold");
        assert!(may("dave", &[], asked("update", "old", "anything")));
        assert!(!may("dave", &[], asked("update", "new", "anything")));
        assert!(may("zoe", &[], asked("list", "any", "events")), "whoever is known");
        assert!(!may(
            "dave",
            &[],
            Attributes { verb: "get", path: Some("/version"), ..Attributes::default() }
        ));
    }

    #[test]
    fn what_is_no_policy_is_refused_with_its_line() {
        for (text, line) in [
            ("\n{", 2),
            (r#"{"apiVersion":"v1","kind":"Policy"}"#, 1),
            (
                r#"{"apiVersion":"abac.authorization.kubernetes.io/v1beta1","kind":"Policy","spec":{"users":"a"}}"#,
                1,
            ),
            (r#"{"user":"a","verbs":["get"]}"#, 1),
        ] {
            assert_eq!(Abac::parse(text).expect_err(text).line, line);
        }
    }
}
