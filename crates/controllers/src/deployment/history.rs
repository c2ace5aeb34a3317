//! Revisions: which ReplicaSet is the present template's, its number, its name, its annotations.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::rollout::Bounds;
use crate::meta::{Map, managed_by, name};

pub(crate) const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub(crate) const HASH_LABEL: &str = "pod-template-hash";
/// Annotations of a Deployment that its sets do not get.
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    "deployment.kubernetes.io/desired-replicas",
    "deployment.kubernetes.io/max-replicas",
    "deprecated.deployment.rollback.to",
];
/// Bytes of past revisions kept in one annotation (upstream's).
const HISTORY_MAX: usize = 2000;
/// Longest name of a set that leaves room for its pods' suffixes.
const NAME_MAX: usize = 253 - 10 - 1;

pub(crate) fn revision(set: &ReplicaSet) -> i64 {
    let text = set.metadata.annotations.as_ref().and_then(|a| a.get(REVISION));
    text.and_then(|t| t.parse().ok()).unwrap_or(0)
}

/// The oldest set with the Deployment's template.
pub(crate) fn find_new(
    deployment: &Deployment,
    sets: &[Arc<ReplicaSet>],
) -> Option<Arc<ReplicaSet>> {
    let wanted = bare(&deployment.spec.as_ref()?.template);
    let same = |set: &&Arc<ReplicaSet>| template_of(set).is_some_and(|t| bare(t) == wanted);
    let age = |set: &&Arc<ReplicaSet>| {
        let at = set.metadata.creation_timestamp.as_ref().map(|t| t.0);
        (at, name(&set.metadata).to_owned())
    };
    sets.iter().filter(same).min_by_key(age).cloned()
}

fn template_of(set: &ReplicaSet) -> Option<&PodTemplateSpec> {
    set.spec.as_ref()?.template.as_ref()
}

/// The template without the label that tells sets apart.
fn bare(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = template.clone();
    let meta = template.metadata.get_or_insert_default();
    if let Some(labels) = &mut meta.labels {
        labels.remove(HASH_LABEL);
    }
    meta.labels = meta.labels.take().filter(|l| !l.is_empty());
    meta.annotations = meta.annotations.take().filter(|a| !a.is_empty());
    meta.creation_timestamp = None;
    template
}

/// Whether the set is this Deployment's and has its template.
pub(crate) fn is_ours(deployment: &Deployment, set: &ReplicaSet) -> bool {
    let owner = crate::meta::controller(&set.metadata);
    let owned = owner.is_some_and(|o| Some(&o.uid) == deployment.metadata.uid.as_ref());
    let template = deployment.spec.as_ref().map(|s| bare(&s.template));
    owned && template_of(set).map(bare) == template
}

/// A short name for the template.
pub(crate) fn hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    let bytes = serde_json::to_vec(template).expect("a template always encodes");
    crate::harness::hash(&bytes, collisions)
}

/// The set for the Deployment's present template.
pub(crate) fn make_new(
    deployment: &Deployment,
    old: &[Arc<ReplicaSet>],
    replicas: i32,
    bounds: &Bounds,
) -> ReplicaSet {
    let spec = deployment.spec.clone().unwrap_or_default();
    let collisions = deployment.status.as_ref().and_then(|s| s.collision_count);
    let hash = hash(&spec.template, collisions);
    let mut template = spec.template;
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(HASH_LABEL.into(), hash.clone());
    let labels = labels.clone();
    let mut selector = spec.selector;
    selector.match_labels.get_or_insert_default().insert(HASH_LABEL.into(), hash.clone());
    let base = name(&deployment.metadata);
    let base = &base[..base.len().min(NAME_MAX - hash.len())];
    let mut set = ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{base}-{hash}")),
            namespace: deployment.metadata.namespace.clone(),
            owner_references: Some(vec![managed_by(deployment)]),
            labels: Some(labels),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(replicas),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(template),
        }),
        status: None,
    };
    let annotations = set.metadata.annotations.get_or_insert_default();
    annotate(deployment, annotations, next_revision(old));
    annotations.extend(bounds.annotations().map(|(k, v)| (k.to_owned(), v)));
    set
}

pub(crate) fn next_revision(old: &[Arc<ReplicaSet>]) -> i64 {
    old.iter().map(|s| revision(s)).max().unwrap_or(0) + 1
}

/// Gives a set the Deployment's annotations and at least this revision; a revision it had before
/// becomes history.
pub(crate) fn annotate(deployment: &Deployment, annotations: &mut Map, revision: i64) {
    for (key, value) in deployment.metadata.annotations.iter().flatten() {
        if !NOT_COPIED.contains(&key.as_str()) {
            annotations.insert(key.clone(), value.clone());
        }
    }
    let old = annotations.get(REVISION).cloned().unwrap_or_default();
    let number = match old.as_str() {
        "" => Ok(0),
        text => text.parse::<i64>(),
    };
    if !number.is_ok_and(|number| number < revision) {
        return;
    }
    annotations.insert(REVISION.into(), revision.to_string());
    if !old.is_empty() {
        let past = annotations.entry(REVISION_HISTORY.into()).or_default();
        *past = appended(past, &old);
    }
}

/// Drops the oldest revisions when the list grows too long.
fn appended(past: &str, revision: &str) -> String {
    let mut all: Vec<&str> = past.split(',').filter(|t| !t.is_empty()).collect();
    all.push(revision);
    while all.len() > 1 && all.iter().map(|t| t.len() + 1).sum::<usize>() > HISTORY_MAX {
        all.remove(0);
    }
    all.join(",")
}
