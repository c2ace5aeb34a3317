//! Which requests a webhook or policy looks at: rules, match policy, selectors, exempt resources.
//!
//! [`Constraints`] are read once, when a configuration changes, and asked by every request.

mod rule;
mod selectors;
#[cfg(test)]
mod tests;

use api::Status;
use api::registry::Resource;
use api::selector::LabelSelector;
use serde_json::Value;
use validation::items;

use crate::attributes::Attributes;

pub use rule::{Rule, namespace};

/// Kinds that neither webhooks nor policies see: a fault in one could not be mended otherwise.
const EXEMPT: [&str; 6] = [
    "validatingwebhookconfigurations",
    "mutatingwebhookconfigurations",
    "validatingadmissionpolicies",
    "validatingadmissionpolicybindings",
    "mutatingadmissionpolicies",
    "mutatingadmissionpolicybindings",
];

/// Whether neither webhooks nor policies see requests for this resource.
pub fn is_exempt(row: &Resource) -> bool {
    row.group == "admissionregistration.k8s.io" && EXEMPT.contains(&row.name)
}

/// The requests that a webhook, a policy or a binding looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Constraints {
    namespaces: LabelSelector,
    objects: LabelSelector,
    /// Absent (policies and bindings): any resource.
    rules: Option<Vec<Rule>>,
    excluded: Vec<Rule>,
    /// A rule for another version of the resource matches, too (`matchPolicy: Equivalent`).
    is_equivalent: bool,
}

impl Constraints {
    /// Those of a webhook.
    pub fn of_webhook(webhook: &Value) -> Constraints {
        let rules = items(webhook, "rules").map(Rule::read).collect();
        Constraints { rules: Some(rules), ..Constraints::selecting(webhook) }
    }

    /// `matchConstraints` of a policy, or `matchResources` of a binding.
    pub fn of_policy(resources: &Value) -> Constraints {
        let rules: Vec<Rule> = items(resources, "resourceRules").map(Rule::read).collect();
        Constraints {
            rules: (!rules.is_empty()).then_some(rules),
            excluded: items(resources, "excludeResourceRules").map(Rule::read).collect(),
            ..Constraints::selecting(resources)
        }
    }

    /// Selectors and match policy, which have the same names everywhere.
    fn selecting(value: &Value) -> Constraints {
        Constraints {
            namespaces: LabelSelector::from_json(&value["namespaceSelector"]),
            objects: LabelSelector::from_json(&value["objectSelector"]),
            rules: None,
            excluded: Vec::new(),
            is_equivalent: value["matchPolicy"] != "Exact",
        }
    }

    pub fn rules(&self) -> &[Rule] {
        self.rules.as_deref().unwrap_or(&[])
    }

    /// The row in whose version the request is looked at, if it is: that of the request, or an equivalent.
    /// Fails when the namespace is not there and it would matter.
    pub fn matches<'a>(
        &self,
        request: &Attributes<'a>,
        object: &Value,
    ) -> Result<Option<&'a Resource>, Status> {
        // Rules say no most often, and cost the least.
        if find(&self.excluded, self.is_equivalent, request).is_some() {
            return Ok(None);
        }
        let row = match &self.rules {
            None => Some(request.row),
            Some(rules) => find(rules, self.is_equivalent, request),
        };
        let Some(row) = row else { return Ok(None) };
        if !selectors::matches_object(&self.objects, request, object) {
            return Ok(None);
        }
        let is_selected = selectors::matches_namespace(&self.namespaces, request, object)?;
        Ok(is_selected.then_some(row))
    }

    /// Whether the selectors take an object in a namespace, whatever the rules say.
    pub fn selects(&self, namespace: &Value, object: &Value) -> bool {
        let takes = |selector: &LabelSelector, tree: &Value| {
            let labels = &tree["metadata"]["labels"];
            selector.matches_with(|key| labels.get(key).and_then(Value::as_str))
        };
        takes(&self.namespaces, namespace) && takes(&self.objects, object)
    }
}

/// The row of the first rule that matches: the request's own, or that of an equivalent resource.
fn find<'a>(rules: &[Rule], is_equivalent: bool, request: &Attributes<'a>) -> Option<&'a Resource> {
    if rules.iter().any(|rule| rule.matches(request, request.row)) {
        return Some(request.row);
    }
    if !is_equivalent || rules.is_empty() {
        return None;
    }
    let others = request.versions.equivalents();
    let matching = |rule: &Rule| others.iter().copied().find(|row| rule.matches(request, row));
    rules.iter().find_map(matching)
}
