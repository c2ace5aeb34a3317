//! Past templates, kept as ControllerRevisions.

use std::sync::Arc;

use client::{Client, DeleteParams, Error, Resource};
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use serde_json::json;

use super::hash::hash;
use crate::meta::{managed_by, name, namespace};

/// The label that tells a revision's pods.
pub(crate) const REVISION_HASH: &str = "controller-revision-hash";
/// Longest part of an owner's name in a revision's name.
const PREFIX_MAX: usize = 223;

/// The template as a patch that brings it back.
fn data(template: &PodTemplateSpec) -> RawExtension {
    let mut template = serde_json::to_value(template).expect("a template always encodes");
    template["$patch"] = "replace".into();
    RawExtension(json!({"spec": {"template": template}}))
}

/// The template that the revision keeps.
pub(crate) fn template_of(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let template = revision.data.as_ref()?.0.get("spec")?.get("template")?;
    api::typed::from_slice(template.to_string().as_bytes()).ok()
}

pub(crate) fn keeps(revision: &ControllerRevision, template: &PodTemplateSpec) -> bool {
    template_of(revision).is_some_and(|kept| bare(&kept) == bare(template))
}

/// Without what says nothing: empty maps, and the time that Go writes as null.
fn bare(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = template.clone();
    let mut meta = template.metadata.take().unwrap_or_default();
    meta.labels = meta.labels.filter(|l| !l.is_empty());
    meta.annotations = meta.annotations.filter(|a| !a.is_empty());
    meta.creation_timestamp = None;
    template.metadata = Some(meta);
    template
}

/// A revision of the template, as it is to be created.
pub(crate) fn revision<O: Resource>(
    owner: &O,
    template: &PodTemplateSpec,
    number: i64,
    collisions: i32,
) -> ControllerRevision {
    let meta = owner.metadata();
    let data = data(template);
    let hash = hash(data.0.to_string().as_bytes(), Some(collisions).filter(|n| *n > 0));
    let mut labels = template.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
    labels.insert(REVISION_HASH.into(), hash.clone());
    let base = name(meta);
    ControllerRevision {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", &base[..base.len().min(PREFIX_MAX)])),
            namespace: meta.namespace.clone(),
            labels: Some(labels),
            annotations: meta.annotations.clone(),
            owner_references: Some(vec![managed_by(owner)]),
            ..ObjectMeta::default()
        },
        data: Some(data),
        revision: number,
    }
}

/// The hash of a revision's pods.
pub(crate) fn hash_of(revision: &ControllerRevision) -> &str {
    let labels = revision.metadata.labels.as_ref();
    let hash = labels.and_then(|l| l.get(REVISION_HASH)).map(String::as_str);
    hash.unwrap_or_else(|| name(&revision.metadata))
}

/// Creates the revision, or finds it: a name that another template has is tried again with one more
/// collision. The revision, and the collisions by then.
pub(crate) async fn create<O: Resource>(
    client: &Client,
    owner: &O,
    template: &PodTemplateSpec,
    number: i64,
    mut collisions: i32,
) -> Result<(ControllerRevision, i32), Error> {
    let space = namespace(owner.metadata());
    loop {
        let wanted = revision(owner, template, number, collisions);
        let error = match client.create(space, &wanted).await {
            Ok(created) => return Ok((created, collisions)),
            Err(error) if error.is_already_exists() => error,
            Err(error) => return Err(error),
        };
        let there: ControllerRevision = client.get(space, name(&wanted.metadata)).await?;
        if keeps(&there, template) {
            return Ok((there, collisions));
        }
        if collisions >= COLLISIONS_MAX {
            return Err(error);
        }
        collisions += 1;
    }
}

/// Names tried: more collisions than this are no accident.
const COLLISIONS_MAX: i32 = 100;

/// The revision with this number.
pub(crate) async fn renumber(
    client: &Client,
    revision: &ControllerRevision,
    number: i64,
) -> Result<ControllerRevision, Error> {
    client.update(&ControllerRevision { revision: number, ..revision.clone() }).await
}

/// Deletes the oldest of `old` beyond `limit`; those with a live hash stay and do not count as deleted.
pub(crate) async fn truncate(
    client: &Client,
    old: &[Arc<ControllerRevision>],
    limit: usize,
    is_live: impl Fn(&ControllerRevision) -> bool,
) -> Result<(), Error> {
    let surplus = old.len().saturating_sub(limit);
    let mut dead: Vec<&Arc<ControllerRevision>> = old.iter().filter(|r| !is_live(r)).collect();
    dead.sort_by_key(|r| r.revision);
    for revision in dead.into_iter().take(surplus) {
        delete(client, revision).await?;
    }
    Ok(())
}

pub(crate) async fn delete(client: &Client, revision: &ControllerRevision) -> Result<(), Error> {
    let (space, own) = (namespace(&revision.metadata), name(&revision.metadata));
    let params = DeleteParams::default();
    match client.delete::<ControllerRevision>(space, own, &params).await {
        Err(error) if error.is_not_found() => Ok(()),
        other => other,
    }
}
