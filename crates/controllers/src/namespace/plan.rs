//! What is left in an ending namespace, as conditions; and the finalizers that stay.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// The finalizer this controller answers for.
pub(crate) const FINALIZER: &str = "kubernetes";

/// What deleting everything came to.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Left {
    /// Objects by `resource.group`.
    pub(crate) objects: BTreeMap<String, usize>,
    /// Objects by the finalizer that holds them.
    pub(crate) finalizers: BTreeMap<String, usize>,
    pub(crate) errors: Vec<String>,
    /// Groups whose resources are not known, with the reason.
    pub(crate) undiscovered: BTreeMap<String, String>,
}

impl Left {
    pub(crate) fn is_empty(&self) -> bool {
        self.objects.is_empty() && self.errors.is_empty() && self.undiscovered.is_empty()
    }
}

/// The namespace with conditions that say what is left, if they change.
pub(crate) fn with_conditions(namespace: &Namespace, left: &Left, now: &Time) -> Option<Namespace> {
    let mut new = namespace.clone();
    let conditions = new.status.get_or_insert_default().conditions.get_or_insert_default();
    for (kind, status, reason, message) in all(left) {
        set(conditions, kind, status, reason, message, now);
    }
    (new != *namespace).then_some(new)
}

type Said = (&'static str, &'static str, &'static str, String);

fn all(left: &Left) -> [Said; 5] {
    let list = |counts: &BTreeMap<String, usize>, word: &str| {
        let lines = counts.iter().map(|(what, n)| format!("{what} {word} {n} resource instances"));
        lines.collect::<Vec<_>>().join(", ")
    };
    let content = match left.errors.as_slice() {
        [] => {
            let message = "All content successfully deleted, may be waiting on finalization";
            ("False", "ContentDeleted", message.to_owned())
        }
        errors => {
            let (count, text) = (errors.len(), errors.join(", "));
            let message = format!("Failed to delete all resource types, {count} remaining: {text}");
            ("True", "ContentDeletionFailed", message)
        }
    };
    let objects = match left.objects.is_empty() {
        true => ("False", "ContentRemoved", "All content successfully removed".to_owned()),
        false => {
            let message = format!("Some resources are remaining: {}", list(&left.objects, "has"));
            ("True", "SomeResourcesRemain", message)
        }
    };
    let finalizers = match left.finalizers.is_empty() {
        true => {
            let message = "All content-preserving finalizers finished";
            ("False", "ContentHasNoFinalizers", message.to_owned())
        }
        false => {
            let text = list(&left.finalizers, "in");
            let message = format!("Some content in the namespace has finalizers remaining: {text}");
            ("True", "SomeFinalizersRemain", message)
        }
    };
    let discovered = match left.undiscovered.len() {
        0 => ("False", "ResourcesDiscovered", "All resources successfully discovered".to_owned()),
        count => {
            let each = left.undiscovered.iter().map(|(group, why)| format!("{group}: {why}"));
            let all = each.collect::<Vec<_>>().join(", ");
            let message = format!(
                "Discovery failed for some groups, {count} failing: unable to retrieve the complete \
                 list of server APIs: {all}"
            );
            ("True", "DiscoveryFailed", message)
        }
    };
    let parsed = "All legacy kube types successfully parsed".to_owned();
    [
        ("NamespaceDeletionDiscoveryFailure", discovered.0, discovered.1, discovered.2),
        ("NamespaceDeletionGroupVersionParsingFailure", "False", "ParsedGroupVersions", parsed),
        ("NamespaceDeletionContentFailure", content.0, content.1, content.2),
        ("NamespaceContentRemaining", objects.0, objects.1, objects.2),
        ("NamespaceFinalizersRemaining", finalizers.0, finalizers.1, finalizers.2),
    ]
}

fn set(
    conditions: &mut Vec<NamespaceCondition>,
    kind: &str,
    status: &str,
    reason: &str,
    message: String,
    now: &Time,
) {
    let new = NamespaceCondition {
        type_: kind.into(),
        status: status.into(),
        reason: Some(reason.into()),
        message: Some(message),
        last_transition_time: Some(now.clone()),
    };
    match conditions.iter_mut().find(|c| c.type_ == kind) {
        None => conditions.push(new),
        Some(old) => {
            let since = old.last_transition_time.take().filter(|_| old.status == new.status);
            let since = since.or_else(|| new.last_transition_time.clone());
            *old = NamespaceCondition { last_transition_time: since, ..new };
        }
    }
}

/// The namespace without our finalizer, if it has it.
pub(crate) fn finalized(namespace: &Namespace) -> Option<Namespace> {
    let mut new = namespace.clone();
    let finalizers = new.spec.as_mut()?.finalizers.as_mut()?;
    finalizers.retain(|f| f != FINALIZER);
    (new != *namespace).then_some(new)
}
