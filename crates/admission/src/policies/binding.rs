//! Bindings: where a policy applies, with which parameters, and what a failed validation does.

use serde_json::Value;

use super::params::ParamRef;
use crate::matching::Constraints;

/// What a failed validation does (`validationActions`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Deny,
    Warn,
    Audit,
}

impl Action {
    fn read(action: &Value) -> Option<Action> {
        match action.as_str()? {
            "Deny" => Some(Action::Deny),
            "Warn" => Some(Action::Warn),
            "Audit" => Some(Action::Audit),
            _ => None,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Action::Deny => "Deny",
            Action::Warn => "Warn",
            Action::Audit => "Audit",
        }
    }
}

#[derive(Debug)]
pub(crate) struct Binding {
    pub(crate) name: Box<str>,
    pub(crate) policy: Box<str>,
    /// Absent: the binding adds no constraints to those of the policy.
    pub(crate) resources: Option<Constraints>,
    pub(crate) param_ref: Option<ParamRef>,
    pub(crate) actions: Vec<Action>,
}

impl Binding {
    pub(crate) fn read(object: &Value) -> Binding {
        let spec = &object["spec"];
        let text = |value: &Value| value.as_str().unwrap_or("").into();
        let resources = &spec["matchResources"];
        Binding {
            name: text(&object["metadata"]["name"]),
            policy: text(&spec["policyName"]),
            resources: resources.is_object().then(|| Constraints::of_policy(resources)),
            param_ref: ParamRef::read(&spec["paramRef"]),
            actions: validation::items(spec, "validationActions")
                .filter_map(Action::read)
                .collect(),
        }
    }
}
