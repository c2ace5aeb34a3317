//! Pod Security: the namespace's labels say what is enforced and what is warned of.

use api::Status;
use api::status::{Cause, invalid};
use api::tree::metadata_text;
use serde_json::{Map, Value, json};

use crate::attributes::{Attributes, Operation};
use crate::config::Configuration;
use crate::plugin::{Decision, Plugin, Verdict};
use crate::pod_security::{self, Level};

/// What namespaces without labels get, and who is exempt.
#[derive(Default)]
pub(super) struct PodSecurity {
    /// As labels of a namespace.
    defaults: Map<String, Value>,
    usernames: Vec<String>,
    namespaces: Vec<String>,
    runtime_classes: Vec<String>,
}

impl PodSecurity {
    /// Of the plugin's configuration (`pod-security.admission.config.k8s.io`).
    pub(super) fn read(configuration: &Configuration) -> Result<PodSecurity, String> {
        let group = "pod-security.admission.config.k8s.io";
        let own = configuration.typed("PodSecurity", "PodSecurityConfiguration", group)?;
        let defaults = own["defaults"].as_object().into_iter().flatten();
        let defaults: Map<String, Value> = defaults
            .map(|(key, value)| (format!("{}{key}", pod_security::PREFIX), value.clone()))
            .collect();
        let all = Value::Object(defaults.clone());
        let modes = ["enforce", "audit", "warn"].into_iter();
        let bad = modes.flat_map(|mode| pod_security::policy(&all, mode).1).next();
        if let Some(bad) = bad {
            let key = bad.key.trim_start_matches(pod_security::PREFIX);
            return Err(format!("defaults.{key}: Invalid value: {:?}: {}", bad.value, bad.fault));
        }
        let list = |key: &str| -> Vec<String> {
            let names = validation::items(&own["exemptions"], key).filter_map(Value::as_str);
            names.map(str::to_owned).collect()
        };
        Ok(PodSecurity {
            defaults,
            usernames: list("usernames"),
            namespaces: list("namespaces"),
            runtime_classes: list("runtimeClasses"),
        })
    }

    fn exempts(&self, request: &Attributes<'_>, spec: &Value) -> bool {
        let has = |list: &[String], name: &str| list.iter().any(|own| own == name);
        let class = spec["runtimeClassName"].as_str();
        has(&self.usernames, &request.user.name)
            || has(&self.namespaces, request.namespace())
            || class.is_some_and(|class| has(&self.runtime_classes, class))
    }
}

impl Plugin for PodSecurity {
    fn name(&self) -> &'static str {
        "PodSecurity"
    }

    fn handles(&self, request: &Attributes<'_>) -> bool {
        let writes = matches!(request.operation, Operation::Create | Operation::Update);
        let adds_containers = request.path() == ("", "pods", "ephemeralcontainers");
        writes && (request.row.subresource.is_empty() || adds_containers)
    }

    fn validate<'a>(&'a self, request: &'a Attributes<'a>, new: &'a Value) -> Decision<'a> {
        match (request.path(), request.old) {
            (("", "namespaces", _), old) => check_namespace(request, old, new).into(),
            (_, Some(old)) if old["spec"] == new["spec"] => Decision::ALLOWED,
            _ => self.check_pod(request, new).into(),
        }
    }
}

impl PodSecurity {
    /// A pod that the enforced level forbids is refused; what the warned level forbids is told, of pods
    /// and of what makes pods.
    fn check_pod(&self, request: &Attributes<'_>, object: &Value) -> Verdict {
        let (row, namespace) = (request.row, request.namespace());
        let Some((pod_meta, spec)) = pod_security::pod_of(row.group, row.name, object) else {
            return Ok(());
        };
        let labels = self.labels_of(request, namespace);
        if labels.is_null() || self.exempts(request, spec) {
            return Ok(());
        }
        let (enforced, _) = pod_security::policy(&labels, "enforce");
        if row.name == "pods" {
            let found = pod_security::violations(enforced, pod_meta, spec);
            if !found.is_empty() {
                let told = pod_security::told(&found);
                let why = format!("violates PodSecurity \"{enforced}\": {told}");
                return Err(request.forbid(object, &why));
            }
        }
        let warned = pod_security::warned(&labels);
        let found = pod_security::violations(warned, pod_meta, spec);
        if !found.is_empty() {
            let told = pod_security::told(&found);
            (request.warn)(format!("would violate PodSecurity \"{warned}\": {told}"));
        }
        Ok(())
    }

    /// The namespace's labels that ask for something; null when none does, as in most.
    fn labels_of(&self, request: &Attributes<'_>, namespace: &str) -> Value {
        let Some(found) = request.cluster.get(("", "v1", "namespaces"), namespace) else {
            return Value::Null;
        };
        let labels =
            found.meta().labels.iter().filter(|(key, _)| key.starts_with(pod_security::PREFIX));
        let asking: Map<String, Value> =
            labels.map(|(key, value)| (key.to_string(), value.as_ref().into())).collect();
        let mut all = self.defaults.clone();
        all.extend(asking);
        if all.is_empty() { Value::Null } else { all.into() }
    }
}

/// Labels of a namespace that cannot be read are refused, unless they were there before.
fn check_namespace(request: &Attributes<'_>, old: Option<&Value>, new: &Value) -> Verdict {
    let bad = |object: &Value| {
        let labels = &object["metadata"]["labels"];
        let modes = ["enforce", "audit", "warn"].into_iter();
        modes.flat_map(|mode| pod_security::policy(labels, mode).1).collect::<Vec<_>>()
    };
    let found = bad(new);
    if !found.is_empty() && old.is_none_or(|old| bad(old) != found) {
        let causes: Vec<Cause> = found
            .iter()
            .map(|b| {
                let field = format!("metadata.labels[{}]", b.key);
                invalid(field, &json!(b.value), b.fault)
            })
            .collect();
        return Err(Status::invalid("", "Namespace", metadata_text(new, "name"), causes));
    }
    if let Some(old) = old {
        warn_of_present(request, old, new);
    }
    Ok(())
}

/// Pods that are there already and that a stricter level would have refused.
fn warn_of_present(request: &Attributes<'_>, old: &Value, new: &Value) {
    let of = |object: &Value| pod_security::policy(&object["metadata"]["labels"], "enforce").0;
    let (before, after) = (of(old), of(new));
    if before == after || after.level == Level::Privileged {
        return;
    }
    let name = metadata_text(new, "name");
    let pods = request.cluster.list(("", "v1", "pods"), &format!("{name}/"));
    let mut told: Vec<(String, String, usize)> = Vec::new();
    for pod in pods {
        let tree = pod.to_value();
        let found = pod_security::violations(after, &tree["metadata"], &tree["spec"]);
        if found.is_empty() {
            continue;
        }
        let reasons: Vec<&str> = found.iter().map(|v| v.reason).collect();
        let reasons = reasons.join(", ");
        match told.iter_mut().find(|(_, known, _)| *known == reasons) {
            Some((_, _, count)) => *count += 1,
            None => told.push((pod.meta().name.to_string(), reasons, 1)),
        }
    }
    if told.is_empty() {
        return;
    }
    (request.warn)(format!(
        "existing pods in namespace {name:?} violate the new PodSecurity enforce level \"{after}\""
    ));
    let mut lines: Vec<String> = told
        .into_iter()
        .map(|(pod, reasons, count)| match count {
            1 => format!("{pod}: {reasons}"),
            2 => format!("{pod} (and 1 other pod): {reasons}"),
            many => format!("{pod} (and {} other pods): {reasons}", many - 1),
        })
        .collect();
    lines.sort();
    lines.into_iter().for_each(request.warn);
}
