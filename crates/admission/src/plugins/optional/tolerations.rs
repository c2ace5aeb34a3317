//! PodTolerationRestriction: tolerations that a namespace, or the configuration, adds to its pods, and those that
//! its pods may have.
//!
//! Rule: `plugin/pkg/admission/podtolerationrestriction`.

use api::Status;
use serde_json::{Value, json};

use crate::attributes::{Attributes, Operation};
use crate::plugin::{Decision, Plugin, Verdict};

const DEFAULTS: &str = "scheduler.alpha.kubernetes.io/defaultTolerations";
const ALLOWED: &str = "scheduler.alpha.kubernetes.io/tolerationsWhitelist";

pub(crate) struct PodTolerationRestriction {
    defaults: Vec<Value>,
    allowed: Vec<Value>,
}

impl PodTolerationRestriction {
    /// Of the plugin's configuration (`podtolerationrestriction.admission.k8s.io/v1alpha1`).
    pub(crate) fn read(configuration: &Value) -> PodTolerationRestriction {
        let list = |key: &str| configuration[key].as_array().cloned().unwrap_or_default();
        PodTolerationRestriction { defaults: list("default"), allowed: list("whitelist") }
    }

    fn add(&self, request: &Attributes<'_>, pod: &mut Value) -> Verdict {
        let mut extra = Vec::new();
        if request.operation == Operation::Create {
            extra = of_namespace(request, DEFAULTS)?.unwrap_or_else(|| self.defaults.clone());
        }
        if validation::qos_class(&pod["spec"]) != "BestEffort" {
            extra.push(json!({"key": "node.kubernetes.io/memory-pressure", "operator": "Exists",
                "effect": "NoSchedule"}));
        }
        if !extra.is_empty() {
            let own = pod["spec"]["tolerations"].as_array().cloned().unwrap_or_default();
            pod["spec"]["tolerations"] = merged(own.into_iter().chain(extra).collect()).into();
        }
        self.check(request, pod)
    }

    fn check(&self, request: &Attributes<'_>, pod: &Value) -> Verdict {
        let own = pod["spec"]["tolerations"].as_array().map_or(&[][..], Vec::as_slice);
        if own.is_empty() {
            return Ok(());
        }
        let of_namespace = of_namespace(request, ALLOWED)?;
        let scope = if of_namespace.is_some() { "namespace" } else { "cluster" };
        let allowed = of_namespace.as_deref().unwrap_or(&self.allowed);
        let is_allowed = |own: &Value| allowed.iter().any(|other| covers(other, own));
        if allowed.is_empty() || own.iter().all(is_allowed) {
            return Ok(());
        }
        let why = format!(
            "pod tolerations (possibly merged with namespace default tolerations) conflict with its {scope} whitelist"
        );
        Err(Status::failure(500, "", why))
    }
}

impl Plugin for PodTolerationRestriction {
    fn name(&self) -> &'static str {
        "PodTolerationRestriction"
    }

    fn handles(&self, request: &Attributes<'_>) -> bool {
        let writes = matches!(request.operation, Operation::Create | Operation::Update);
        writes && request.path() == ("", "pods", "")
    }

    fn mutate<'a>(&'a self, request: &'a Attributes<'a>, pod: &'a mut Value) -> Decision<'a> {
        self.add(request, pod).into()
    }

    fn validate<'a>(&'a self, request: &'a Attributes<'a>, pod: &'a Value) -> Decision<'a> {
        self.check(request, pod).into()
    }
}

/// The tolerations in an annotation of the namespace; `None` where there is no such annotation.
fn of_namespace(request: &Attributes<'_>, key: &str) -> Result<Option<Vec<Value>>, Status> {
    let name = request.namespace();
    let namespace = request.read(("", "v1", "namespaces"), name);
    let namespace = namespace.ok_or_else(|| Status::not_found("", "namespaces", name))?;
    let Some(text) = namespace["metadata"]["annotations"][key].as_str() else { return Ok(None) };
    if text.is_empty() {
        return Ok(Some(Vec::new()));
    }
    let list = serde_json::from_str::<Option<Vec<Value>>>(text);
    list.map_err(|fault| {
        let fault =
            validation::go_syntax_fault(text.as_bytes()).unwrap_or_else(|| fault.to_string());
        Status::failure(500, "", fault)
    })
}

/// Without those that another one covers; of equal ones the first stays.
fn merged(all: Vec<Value>) -> Vec<Value> {
    let mut merged: Vec<Value> = Vec::new();
    for (at, own) in all.iter().enumerate() {
        let later = || all[at + 1..].iter().any(|other| other != own && covers(other, own));
        if !merged.iter().any(|other| covers(other, own)) && !later() {
            merged.push(own.clone());
        }
    }
    merged
}

/// Whether what `own` tolerates `other` tolerates, too (upstream's `isSuperset`).
fn covers(other: &Value, own: &Value) -> bool {
    let text = |value: &'_ Value, key: &str| value[key].as_str().unwrap_or("").to_owned();
    let (operator, effect) = (text(other, "operator"), text(other, "effect"));
    if other == own {
        return true;
    }
    let is_any_key = text(other, "key").is_empty() && operator == "Exists";
    if text(own, "key") != text(other, "key") && !is_any_key {
        return false;
    }
    if !effect.is_empty() && text(own, "effect") != effect {
        return false;
    }
    if effect == "NoExecute"
        && let Some(limit) = other["tolerationSeconds"].as_i64()
        && own["tolerationSeconds"].as_i64().is_none_or(|own| own > limit)
    {
        return false;
    }
    match operator.as_str() {
        "" | "Equal" => {
            text(own, "operator") == "Equal" && text(own, "value") == text(other, "value")
        }
        operator => operator == "Exists",
    }
}
