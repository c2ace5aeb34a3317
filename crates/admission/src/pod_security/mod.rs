//! Pod Security admission (KEP-2579): the levels of the Pod Security Standards, asked for by labels of
//! the namespace.

mod checks;

use serde_json::Value;
use validation::text;

/// `pod-security.kubernetes.io/<mode>` and `…/<mode>-version`.
pub const PREFIX: &str = "pod-security.kubernetes.io/";
/// The newest version with checks of its own; later ones are read as this (minor of 1.x).
const LATEST: u32 = 36;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Privileged,
    Baseline,
    Restricted,
}

/// A level as of a version: `restricted:latest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    pub level: Level,
    /// Minor of 1.x; none for the latest.
    version: Option<u32>,
}

impl std::fmt::Display for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let level = match self.level {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        };
        match self.version {
            Some(minor) => write!(f, "{level}:v1.{minor}"),
            None => write!(f, "{level}:latest"),
        }
    }
}

/// A label that means nothing: its key, its value and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadLabel {
    pub key: String,
    pub value: String,
    pub fault: &'static str,
}

/// What the namespace asks for in a mode (`enforce`, `warn`, `audit`). A label that cannot be read
/// means the strictest there is, except for enforcing, which then stays as open as unlabelled.
pub fn policy(labels: &Value, mode: &str) -> (Policy, Vec<BadLabel>) {
    let mut bad = Vec::new();
    let key = format!("{PREFIX}{mode}");
    let level = match labels[&key].as_str() {
        None => Level::Privileged,
        Some("privileged") => Level::Privileged,
        Some("baseline") => Level::Baseline,
        Some("restricted") => Level::Restricted,
        Some(other) => {
            let fault = "must be one of privileged, baseline, restricted";
            bad.push(BadLabel { key: key.clone(), value: other.into(), fault });
            if mode == "enforce" { Level::Restricted } else { Level::Privileged }
        }
    };
    let key = format!("{key}-version");
    let version = match labels[&key].as_str() {
        None | Some("latest") => None,
        Some(text) => {
            let minor = text.strip_prefix("v1.").and_then(|minor| minor.parse().ok());
            if minor.is_none() {
                let fault = "must be \"latest\" or \"v1.x\"";
                bad.push(BadLabel { key: key.clone(), value: text.into(), fault });
            }
            minor
        }
    };
    (Policy { level, version }, bad)
}

/// What warnings are about: the policy asked for, or the enforced one where that is stricter and
/// nothing was asked for.
pub fn warned(labels: &Value) -> Policy {
    let (enforced, bad) = policy(labels, "enforce");
    let (warned, _) = policy(labels, "warn");
    let asked = labels[format!("{PREFIX}warn")].is_string();
    let readable = !bad.iter().any(|label| label.key == format!("{PREFIX}enforce"));
    if asked || !readable || enforced.level <= warned.level {
        return warned;
    }
    let version = match labels[format!("{PREFIX}warn-version")].is_string() {
        true => warned.version,
        false => enforced.version,
    };
    Policy { version, ..enforced }
}

/// One rule that a pod breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub reason: &'static str,
    pub detail: String,
}

/// What of the policy a pod (its metadata and spec) breaks.
pub fn violations(policy: Policy, meta: &Value, spec: &Value) -> Vec<Violation> {
    let version = policy.version.unwrap_or(LATEST).min(LATEST);
    let pod = checks::Pod { annotations: &meta["annotations"], spec, version };
    let windows = spec["os"]["name"] == "windows";
    match policy.level {
        Level::Privileged => Vec::new(),
        Level::Baseline => pod.baseline(),
        Level::Restricted => pod.restricted(windows),
    }
}

/// `privileged (container "c" …), hostPort (…)`: what a refusal or a warning says.
pub fn told(violations: &[Violation]) -> String {
    let one = |v: &Violation| match v.detail.is_empty() {
        true => v.reason.to_owned(),
        false => format!("{} ({})", v.reason, v.detail),
    };
    violations.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// The pod's metadata and spec in an object that has or makes pods; none for other kinds.
pub fn pod_of<'a>(
    group: &str,
    resource: &str,
    object: &'a Value,
) -> Option<(&'a Value, &'a Value)> {
    let template = match (group, resource) {
        ("", "pods") => object,
        ("", "podtemplates") => &object["template"],
        ("batch", "cronjobs") => &object["spec"]["jobTemplate"]["spec"]["template"],
        ("", "replicationcontrollers")
        | ("apps", "deployments" | "replicasets" | "daemonsets" | "statefulsets")
        | ("batch", "jobs") => &object["spec"]["template"],
        _ => return None,
    };
    template["spec"].is_object().then(|| (&template["metadata"], &template["spec"]))
}

fn name(container: &Value) -> &str {
    text(&container["name"])
}

#[cfg(test)]
mod tests;
