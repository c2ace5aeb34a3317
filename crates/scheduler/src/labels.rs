//! Label selectors, tolerations and node selector terms as predicates.

use std::collections::{BTreeMap, HashMap};

use api::selector::{LabelSelector, Operator, Requirement};
use k8s_openapi::api::core::v1::{
    Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodSpec, Taint, Toleration,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;

pub(crate) type Labels = BTreeMap<String, String>;

/// A selector ready to match. An absent one matches nothing, an empty one everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Selector(Option<LabelSelector>);

impl Selector {
    pub(crate) fn of(selector: Option<&meta::LabelSelector>) -> Selector {
        let Some(selector) = selector else { return Selector(None) };
        let mut requirements = Vec::new();
        for (key, value) in selector.match_labels.iter().flatten() {
            requirements.push(equals(key, value));
        }
        for expression in selector.match_expressions.iter().flatten() {
            let operator = match expression.operator.as_str() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                _ => Operator::DoesNotExist,
            };
            let values = expression.values.clone().unwrap_or_default();
            requirements.push(Requirement { key: expression.key.clone(), operator, values });
        }
        Selector(Some(LabelSelector { requirements }))
    }

    /// Matches what has all of these labels; everything when there are none.
    pub(crate) fn of_labels<'a>(
        labels: impl IntoIterator<Item = (&'a String, &'a String)>,
    ) -> Selector {
        let requirements = labels.into_iter().map(|(k, v)| equals(k, v)).collect();
        Selector(Some(LabelSelector { requirements }))
    }

    /// Also demands (`In`) or refuses (`NotIn`) `key=value`.
    pub(crate) fn require(&mut self, key: &str, operator: Operator, value: &str) {
        if let Some(selector) = &mut self.0 {
            let values = vec![value.to_owned()];
            selector.requirements.push(Requirement { key: key.to_owned(), operator, values });
        }
    }

    /// Also demands everything that `other` demands.
    pub(crate) fn and(&mut self, other: Selector) {
        match (&mut self.0, other.0) {
            (Some(mine), Some(other)) => mine.requirements.extend(other.requirements),
            (mine, _) => *mine = None,
        }
    }

    /// Whether it matches everything.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.as_ref().is_some_and(LabelSelector::is_empty)
    }

    pub(crate) fn matches(&self, labels: Option<&Labels>) -> bool {
        let value = |key: &str| labels.and_then(|l| l.get(key)).map(String::as_str);
        self.0.as_ref().is_some_and(|s| s.matches_with(value))
    }

    /// A text that equal selectors share.
    pub(crate) fn identity(&self) -> String {
        let Some(selector) = &self.0 else { return "-".into() };
        let mut parts: Vec<String> = selector
            .requirements
            .iter()
            .map(|r| format!("{:?}\u{1}{}\u{1}{}", r.operator, r.key, r.values.join("\u{2}")))
            .collect();
        parts.sort();
        parts.join("\u{3}")
    }

    /// A label that everything this matches has, if it names one.
    fn demanded_label(&self) -> Option<(&str, &str)> {
        let requirements = &self.0.as_ref()?.requirements;
        let one = |r: &&Requirement| r.operator == Operator::In && r.values.len() == 1;
        requirements.iter().find(one).map(|r| (r.key.as_str(), r.values[0].as_str()))
    }
}

fn equals(key: &str, value: &str) -> Requirement {
    Requirement { key: key.to_owned(), operator: Operator::In, values: vec![value.to_owned()] }
}

/// Finds the few selectors that may match an object among many, by a label that they demand.
#[derive(Debug, Default)]
pub(crate) struct SelectorIndex {
    by_label: HashMap<String, HashMap<String, Vec<u32>>>,
    general: Vec<u32>,
}

impl SelectorIndex {
    pub(crate) fn insert(&mut self, selector: &Selector, id: u32) {
        match selector.demanded_label() {
            Some((key, value)) => {
                let values = self.by_label.entry(key.to_owned()).or_default();
                values.entry(value.to_owned()).or_default().push(id);
            }
            None => self.general.push(id),
        }
    }

    pub(crate) fn remove(&mut self, selector: &Selector, id: u32) {
        let Some((key, value)) = selector.demanded_label() else {
            return self.general.retain(|other| *other != id);
        };
        let Some(values) = self.by_label.get_mut(key) else { return };
        if let Some(ids) = values.get_mut(value) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                values.remove(value);
            }
        }
        if values.is_empty() {
            self.by_label.remove(key);
        }
    }

    /// Ids of all selectors that may match these labels; each still has to be asked.
    pub(crate) fn candidates<'a>(
        &'a self,
        labels: Option<&'a Labels>,
    ) -> impl Iterator<Item = u32> + 'a {
        let demanded = labels.into_iter().flatten().filter_map(|(key, value)| {
            self.by_label.get(key.as_str()).and_then(|values| values.get(value.as_str()))
        });
        demanded.flatten().chain(&self.general).copied()
    }
}

/// Whether one of the tolerations tolerates the taint. `Gt` and `Lt` are behind a gate that is off
/// in v1.36: they tolerate nothing.
pub(crate) fn tolerates(tolerations: &[Toleration], taint: &Taint) -> bool {
    tolerations.iter().any(|t| tolerates_one(t, taint))
}

fn tolerates_one(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |t: &Option<String>| -> String { t.clone().unwrap_or_default() };
    let (effect, key) = (text(&toleration.effect), text(&toleration.key));
    if !effect.is_empty() && effect != taint.effect || !key.is_empty() && key != taint.key {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or("") {
        "" | "Equal" => text(&toleration.value) == text(&taint.value),
        "Exists" => true,
        _ => false,
    }
}

/// Whether pods are kept away by the taint, as opposed to discouraged.
pub(crate) fn keeps_away(taint: &Taint) -> bool {
    taint.effect == "NoSchedule" || taint.effect == "NoExecute"
}

pub(crate) fn taints(node: &Node) -> &[Taint] {
    node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default()
}

/// The first taint that keeps a pod with these tolerations away.
pub(crate) fn untolerated_taint<'a>(
    node: &'a Node,
    tolerations: &[Toleration],
) -> Option<&'a Taint> {
    taints(node).iter().find(|t| keeps_away(t) && !tolerates(tolerations, t))
}

/// Whether the pod restricts its nodes by selector or required node affinity.
pub(crate) fn restricts_nodes(spec: &PodSpec) -> bool {
    spec.node_selector.as_ref().is_some_and(|s| !s.is_empty()) || required_terms(spec).is_some()
}

pub(crate) fn required_terms(spec: &PodSpec) -> Option<&NodeSelector> {
    let affinity = spec.affinity.as_ref()?.node_affinity.as_ref()?;
    affinity.required_during_scheduling_ignored_during_execution.as_ref()
}

/// The node selector and the required node affinity.
pub(crate) fn node_matches(spec: &PodSpec, node: &Node) -> bool {
    let labels = node.metadata.labels.as_ref();
    let has = |(key, value): (&String, &String)| labels.and_then(|l| l.get(key)) == Some(value);
    spec.node_selector.iter().flatten().all(has)
        && required_terms(spec).is_none_or(|r| selector_matches(r, node))
}

/// Any of the terms.
pub(crate) fn selector_matches(selector: &NodeSelector, node: &Node) -> bool {
    selector.node_selector_terms.iter().any(|t| term_matches(t, node))
}

/// An empty term matches nothing.
pub(crate) fn term_matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let label =
        |key: &str| node.metadata.labels.as_ref().and_then(|l| l.get(key)).map(String::as_str);
    let name = |key: &str| match key {
        "metadata.name" => node.metadata.name.as_deref(),
        _ => None,
    };
    requirements_of(expressions).is_some_and(|s| s.matches_with(label))
        && requirements_of(fields).is_some_and(|s| s.matches_with(name))
}

/// `None` when an operator is unknown: such a term matches nothing.
fn requirements_of(requirements: &[NodeSelectorRequirement]) -> Option<LabelSelector> {
    let requirement = |r: &NodeSelectorRequirement| {
        let operator = match r.operator.as_str() {
            "In" => Operator::In,
            "NotIn" => Operator::NotIn,
            "Exists" => Operator::Exists,
            "DoesNotExist" => Operator::DoesNotExist,
            "Gt" => Operator::GreaterThan,
            "Lt" => Operator::LessThan,
            _ => return None,
        };
        let values = r.values.clone().unwrap_or_default();
        Some(Requirement { key: r.key.clone(), operator, values })
    };
    let requirements = requirements.iter().map(requirement).collect::<Option<_>>()?;
    Some(LabelSelector { requirements })
}
