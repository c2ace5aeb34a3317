//! PUT of one object, and the way every change of an existing object goes.

use std::sync::Arc;

use api::apply::Managers;
use api::{Object, Status};
use bytes::Bytes;
use serde_json::{Map, Value};
use store::{Expect, Write, WriteError};

use super::{Answer, metadata, steps};
use crate::admit::Admitted;
use crate::body;
use crate::call::Call;
use crate::managed;
use crate::scale_view::{set_replicas, view};
use strategy::decode::Format;
use strategy::meta;
use strategy::write_failure::write_failure;

/// Tries of a change that does not depend on a given revision.
const RETRIES: usize = 10;

/// How the change comes to be, for field management.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Update,
    Apply,
    /// The server's own write on behalf of a request about something else: nobody's fields.
    Internal,
}

pub async fn update(call: &Call<'_>, body: Bytes, content_type: &str) -> Result<Answer, Status> {
    let format = Format::of(content_type)?;
    let decoded = body::decode(call, &body, format)?;
    decoded.warnings.into_iter().for_each(|w| call.context.warn(w));
    let sent = decoded.value;
    metadata::check_name(call, &sent)?;
    let key = call.key();
    let exists = call.resources.collection(call.main_row()).get(&key).is_some();
    if !exists && call.strategy.hooks().create_on_update && call.row.subresource.is_empty() {
        return super::create::create_object(call, sent, Operation::Update).await;
    }
    if exists {
        needs_revision(call, &sent)?;
    }
    change(call, Operation::Update, |_| Ok(sent.clone())).await
}

/// Some kinds are replaced only by who knows what is replaced.
fn needs_revision(call: &Call<'_>, sent: &Value) -> Result<(), Status> {
    let any = call.strategy.hooks().unconditional;
    if any || !matches!(meta::text(sent, "resourceVersion"), "" | "0") {
        return Ok(());
    }
    let (row, field) = (call.row, "metadata.resourceVersion");
    let cause = meta::invalid(field, &0.into(), "must be specified for an update");
    Err(Status::invalid(row.group, row.name, &call.context.info.name, vec![cause]))
}

/// Computes a new state from the present one and writes it, again when it lost a race, unless the
/// new state names the revision it is based on.
pub async fn change(
    call: &Call<'_>,
    operation: Operation,
    compute: impl Fn(&Value) -> Result<Value, Status>,
) -> Result<Answer, Status> {
    let collection = call.resources.collection(call.main_row());
    let key = call.key();
    let mut tries = 0;
    while tries < RETRIES {
        let old = collection.get(&key).ok_or_else(|| call.not_found())?;
        let old_tree = call.strategy.read_folded(&old).await?;
        let computed = compute(&old_tree);
        if computed.is_err() && call.fetch_views().await {
            continue;
        }
        let mut new = computed?;
        let based_on = meta::text(&new, "resourceVersion").to_owned();
        if !based_on.is_empty() && based_on != "0" && based_on != old.revision().to_string() {
            return Err(Status::modified(call.row.group, call.row.name, &call.context.info.name));
        }
        call.transaction.roll_back().await;
        let tracked = track(call, &old_tree, &mut new, operation);
        if tracked.is_err() && call.fetch_views().await {
            continue;
        }
        tracked?;
        tries += 1;
        // The server's own write (a pod's binding) is sound, and may change what nobody else may.
        if operation != Operation::Internal {
            admit(call, &old_tree, &mut new).await?;
        }
        let mut stored = store(call, &old, &old_tree, &mut new).await;
        // Managed fields may be most of it, and can be done without; an apply cannot.
        if let Err(Unstored::Write(WriteError::TooLarge)) = stored
            && operation != Operation::Apply
            && meta::of(&mut new).remove("managedFields").is_some()
        {
            stored = store(call, &old, &old_tree, &mut new).await;
        }
        match stored {
            Err(Unstored::Write(WriteError::Conflict(_))) if based_on.is_empty() => {}
            Err(Unstored::Write(other)) => {
                return Err(write_failure(other, call.row, &call.context.info.name));
            }
            Err(Unstored::Refused(status)) => return Err(*status),
            Ok(answer) => return Ok(answer),
        }
    }
    Err(Status::modified(call.row.group, call.row.name, &call.context.info.name))
}

/// Defaults and manages the requested state, and carries over what no update touches.
fn track(
    call: &Call<'_>,
    old: &Value,
    new: &mut Value,
    operation: Operation,
) -> Result<(), Status> {
    call.strategy.default(call.row, new)?;
    if operation == Operation::Update {
        managed::track(call, Some(old), new)?;
    }
    metadata::prepare_update(call, old, new)
}

/// Everything between the requested state and the one to store. Admission sees a Scale as such.
async fn admit(call: &Call<'_>, old: &Value, new: &mut Value) -> Result<(), Status> {
    let name = call.context.info.name.as_str();
    match call.row.subresource {
        "scale" => {
            let (old_scale, mut scale) = (view(call, old), view(call, new));
            let admitted = Admitted::updated(name, &old_scale);
            admitted.mutate(call, &mut scale).await?;
            set_replicas(call, new, &scale)?;
            complete(call, old, new)?;
            admitted.validate(call, &view(call, new)).await?;
        }
        _ => {
            let admitted = Admitted::updated(name, old);
            admitted.mutate(call, new).await?;
            complete(call, old, new)?;
            admitted.validate(call, new).await?;
        }
    }
    match call.context.dry_run {
        true => Ok(()),
        false => steps::book(call, new).await,
    }
}

/// From the requested state to one that is complete and valid.
fn complete(call: &Call<'_>, old: &Value, new: &mut Value) -> Result<(), Status> {
    keep_other_parts(call, old, new);
    steps::prepare_update(call, old, new)?;
    call.strategy.default(call.row, new)?;
    call.strategy.canonicalize(new);
    metadata::bump_generation(call, old, new);
    let name = call.context.info.name.as_str();
    call.validate((call.main_row().kind, name), new, Some(old))
}

/// An update of the resource keeps the status, one of the status keeps the rest.
fn keep_other_parts(call: &Call<'_>, old: &Value, new: &mut Value) {
    let Some(map) = new.as_object_mut() else { return };
    match call.row.subresource {
        "status" => {
            let status = map.remove("status");
            let sent_meta = map.remove("metadata");
            *map = old.as_object().cloned().unwrap_or_default();
            restore(map, "status", status.as_ref());
            keep_status_metadata(call, map, sent_meta.as_ref());
        }
        "" if call.strategy.has_status() => restore(map, "status", old.get("status")),
        _ => {}
    }
}

/// A status write may also set labels, annotations, owners and finalizers, and carries its fields.
fn keep_status_metadata(call: &Call<'_>, map: &mut Map<String, Value>, sent: Option<&Value>) {
    let (Some(Value::Object(meta)), Some(sent)) = (map.get_mut("metadata"), sent) else { return };
    // Through some kinds' status, and that of custom resources, nothing else goes.
    let all = ["managedFields", "labels", "annotations", "finalizers"];
    let alone = call.strategy.hooks().status_keeps_metadata;
    for key in if alone { &all[..1] } else { &all[..] } {
        restore(meta, key, sent.get(key));
    }
}

fn restore(map: &mut Map<String, Value>, key: &str, value: Option<&Value>) {
    match value {
        Some(value) => drop(map.insert(key.into(), value.clone())),
        None => drop(map.remove(key)),
    }
}

/// Why a new state was not stored.
enum Unstored {
    Write(WriteError),
    /// It could not be made into what is stored.
    Refused(Box<Status>),
}

async fn store(
    call: &Call<'_>,
    old: &Arc<Object>,
    old_tree: &Value,
    new: &mut Value,
) -> Result<Answer, Unstored> {
    let row = call.main_row();
    meta::of(new).insert("resourceVersion".into(), old.revision().to_string().into());
    let code = 200;
    // A stale stored form is written anew though the object is the same.
    let is_stale = || {
        let store = &call.resources.store;
        store.is_stale(&call.resources.collection(row), &call.key())
    };
    if unchanged(old_tree, new) && (call.context.dry_run || !is_stale()) {
        return Ok(Answer::Object { code, object: old.clone() });
    }
    if call.context.dry_run {
        return Ok(Answer::Tree { code, value: std::mem::take(new) });
    }
    let done = is_finished(row.name, new);
    let draft = match done {
        true => None,
        false => Some(call.strategy.draft(new).await.map_err(|s| Unstored::Refused(Box::new(s)))?),
    };
    let collection = call.resources.collection(row);
    let expect = Expect::Revision(old.revision());
    let write = Write { collection, key: call.key(), expect, draft };
    let written = call.write(row, write).await.map_err(Unstored::Write)?;
    call.transaction.commit();
    steps::release(call, old_tree, (!done).then_some(&*new)).await;
    if done {
        return Ok(Answer::Tree { code, value: std::mem::take(new) });
    }
    Ok(Answer::Object { code, object: written })
}

/// Equal but for when fields were last managed: such a write is not made.
fn unchanged(old: &Value, new: &Value) -> bool {
    same_but(old, new, "metadata", |old, new| {
        same_but(old, new, "managedFields", |old, new| {
            let managers = |list| Managers::stored(list).map(Managers::undated);
            managers(old).is_some_and(|old| managers(new).is_some_and(|new| old == new))
        })
    })
}

/// Equal maps, where one key's values are compared in a way of their own.
fn same_but(old: &Value, new: &Value, but: &str, same: impl Fn(&Value, &Value) -> bool) -> bool {
    let (Some(a), Some(b)) = (old.as_object(), new.as_object()) else { return old == new };
    a.len() == b.len()
        && a.iter()
            .zip(b)
            .all(|((key, x), (other, y))| key == other && (x == y || (key == but && same(x, y))))
}

/// The revision that an answer shows.
pub fn revision_of(answer: &Answer) -> Option<String> {
    match answer {
        Answer::Object { object, .. } => Some(object.revision().to_string()),
        Answer::Tree { value, .. } => {
            Some(meta::text(value, "resourceVersion").to_owned()).filter(|text| !text.is_empty())
        }
        _ => None,
    }
}

/// Deletion was asked for and nothing holds the object back any more.
pub fn is_finished(resource: &str, object: &Value) -> bool {
    let meta = &object["metadata"];
    let held = |list: &Value| list.as_array().is_some_and(|l| !l.is_empty());
    let grace = meta["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
    meta["deletionTimestamp"].is_string()
        && grace == 0
        && !held(&meta["finalizers"])
        && !(resource == "namespaces" && held(&object["spec"]["finalizers"]))
}
