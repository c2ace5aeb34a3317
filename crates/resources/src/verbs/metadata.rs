//! `metadata` on its way in: what the server sets, what may not change.

use api::Status;
use api::registry::Resource;
use serde_json::{Map, Value};

use crate::call::Call;
use strategy::meta::{generate_name, of, text};

/// Takes from a new object's metadata what only the server sets. Admission sees it so: without a generated name,
/// uid and time.
pub(super) fn begin_create(call: &Call<'_>, object: &mut Value) -> Result<(), Status> {
    check_namespace(call, call.main_row(), object)?;
    let meta = of(object);
    if meta.get("resourceVersion").is_some_and(|v| v != "") {
        return Err(Status::failure(
            500,
            "",
            "resourceVersion should not be set on objects to be created",
        ));
    }
    wipe(meta);
    Ok(())
}

/// Fills a new object's metadata, whatever admission made of it.
pub(super) fn fill_created(call: &Call<'_>, object: &mut Value) -> Result<(), Status> {
    let row = call.main_row();
    check_namespace(call, row, object)?;
    let meta = of(object);
    wipe(meta);
    generate_name(meta);
    meta.insert("uid".into(), uuid::Uuid::new_v4().to_string().into());
    meta.insert("creationTimestamp".into(), call.context.now_text().into());
    if row.generation {
        meta.insert("generation".into(), 1.into());
    }
    Ok(())
}

fn wipe(meta: &mut Map<String, Value>) {
    for key in [
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
        "generation",
        "resourceVersion",
        "uid",
    ] {
        meta.remove(key);
    }
}

/// The body's namespace must be the path's; cluster-scoped objects have none.
fn check_namespace(call: &Call<'_>, row: &Resource, object: &mut Value) -> Result<(), Status> {
    let path = call.context.info.namespace.as_str();
    let meta = of(object);
    if !row.namespaced {
        meta.remove("namespace");
        return Ok(());
    }
    match meta.get("namespace").and_then(Value::as_str) {
        Some(ns) if !ns.is_empty() && ns != path => Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        )),
        _ => {
            meta.insert("namespace".into(), path.into());
            Ok(())
        }
    }
}

/// The body of a change names the object that the path names.
pub(super) fn check_name(call: &Call<'_>, new: &Value) -> Result<(), Status> {
    let (name, asked) = (text(new, "name"), &call.context.info.name);
    if name.is_empty() {
        return Err(Status::bad_request(format!(
            "the name of the object ({asked} based on URL) was undeterminable: name must be provided"
        )));
    }
    if name != asked {
        return Err(Status::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({asked})"
        )));
    }
    Ok(())
}

/// Carries over what an update may not touch, and checks its preconditions.
pub(super) fn prepare_update(call: &Call<'_>, old: &Value, new: &mut Value) -> Result<(), Status> {
    let row = call.main_row();
    check_name(call, new)?;
    let name = text(new, "name").to_owned();
    check_namespace(call, row, new)?;
    let sent_uid = text(new, "uid");
    if !sent_uid.is_empty() && sent_uid != text(old, "uid") {
        let why = format!(
            "Precondition failed: UID in precondition: {sent_uid}, UID in object meta: {}",
            text(old, "uid")
        );
        return Err(Status::conflict(row.group, row.name, &name, &why));
    }
    let meta = of(new);
    for key in [
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "generateName",
    ] {
        match old["metadata"].get(key) {
            Some(kept) => drop(meta.insert(key.into(), kept.clone())),
            None if key != "generateName" => drop(meta.remove(key)),
            None => {}
        }
    }
    meta.remove("selfLink");
    Ok(())
}

/// Raises the generation when something besides metadata and status changed.
pub(super) fn bump_generation(call: &Call<'_>, old: &Value, new: &mut Value) {
    let hooks = call.strategy.hooks();
    if !call.main_row().generation || hooks.has_fixed_generation {
        return;
    }
    let skips_status = call.strategy.skips_status();
    let differs = |key: &String| match key.as_str() {
        "metadata" => false,
        "status" if skips_status => false,
        key => old[key] != new[key],
    };
    let keys = |v: &Value| {
        v.as_object().map(|m| m.keys().cloned().collect::<Vec<_>>()).unwrap_or_default()
    };
    let counted = hooks.generation_metadata;
    let relabelled = old["metadata"].get(counted) != new["metadata"].get(counted);
    if relabelled || keys(old).iter().chain(&keys(new)).any(differs) {
        let generation = old["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
        of(new).insert("generation".into(), generation.into());
    }
}
