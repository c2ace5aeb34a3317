//! Field management: who owns which field (`metadata.managedFields`), and server-side apply.
//!
//! The algorithm is `api::apply`; this is where a request's manager, time and path come in, and
//! where its outcomes become answers. What a path may own is a table here, because upstream
//! has it per resource.

use api::Status;
use api::apply::{ApplyError, Conflict, LAST_APPLIED, Manage, Managers, Node, go_json, is_reset};
use api::schema::Shape;
use api::status::Cause;
use serde_json::{Value, json};

use crate::body;
use crate::call::Call;
use strategy::meta;

/// Whose server-side apply takes over from client-side apply.
const KUBECTL: &str = "kubectl";

/// Records what an update changed as owned by its manager. `new` has its defaults, but nothing of
/// what the server will do to it. Fails, with `new` as it was, only to be done again when the
/// call's views are fetched.
pub fn track(call: &Call<'_>, old: Option<&Value>, new: &mut Value) -> Result<(), Status> {
    let sent = meta::of(new).remove("managedFields").unwrap_or_default();
    let managers = managers_before(call, old, &sent);
    if old.is_none() && managers.is_empty() && track_created(call, new) {
        return Ok(());
    }
    let updated = with_manage(call, |manage| match old {
        Some(old) => manage.update(old, new, managers, &call.context.manager),
        None => {
            manage.update(&manage.schema.zero(manage.shape), new, managers, &call.context.manager)
        }
    });
    match updated {
        Ok(managers) => put(call, new, managers),
        Err(fault) if call.views.is_wanting() => {
            meta::of(new).insert("managedFields".into(), sent);
            return Err(Status::failure(500, "", fault));
        }
        // As upstream: an object whose lists cannot be told apart goes untracked.
        Err(fault) => tracing::debug!(kind = call.row.kind, fault, "fields are not tracked"),
    }
    Ok(())
}

/// Tracks a new object without managers, and folds them; false where that is not done.
fn track_created(call: &Call<'_>, new: &mut Value) -> bool {
    if !call.strategy.folds_managers() {
        return false;
    }
    let written = with_manage(call, |manage| manage.created(new, &call.context.manager));
    let Ok(list) = written else { return false };
    if let Some(list) = list {
        meta::of(new).insert("managedFields".into(), list.into());
    }
    true
}

/// Clients may send the list back changed, or ask to forget it; not through subresources.
fn managers_before(call: &Call<'_>, old: Option<&Value>, sent: &Value) -> Managers {
    let live = || {
        let live = old.map(|old| &old["metadata"]["managedFields"]);
        live.and_then(Managers::stored).unwrap_or_default()
    };
    if !call.row.subresource.is_empty() {
        return live();
    }
    if is_reset(sent) {
        return Managers::default();
    }
    Managers::decode(sent).filter(|sent| !sent.is_empty()).unwrap_or_else(live)
}

/// Sets the managers, folded where the strategy folds them.
fn put(call: &Call<'_>, object: &mut Value, managers: Managers) {
    let meta = meta::of(object);
    let list = match call.strategy.folds_managers() {
        true => managers.encode_text().map(Value::String),
        false => managers.encode(),
    };
    match list {
        Some(list) => drop(meta.insert("managedFields".into(), list)),
        None => drop(meta.remove("managedFields")),
    }
}

/// Runs an operation for the request's resource, version, subresource and time.
fn with_manage<T>(call: &Call<'_>, run: impl FnOnce(&Manage<'_>) -> T) -> T {
    let row = call.main_row();
    let types = call.strategy.types();
    let (version, now) = (row.api_version(), call.context.now_text());
    let is_served = |other: &str| call.strategy.serves(other);
    let versions = call.strategy.versions(&call.views);
    run(&Manage {
        schema: types.schema(),
        shape: types.shape(),
        api_version: &version,
        subresource: call.row.subresource,
        filter: &call.strategy.reset_fields(call.row),
        is_served: &is_served,
        elsewhere: versions.as_deref(),
        // Upstream loses the time when it carries a scale's entries over to the object.
        now: (call.row.subresource != "scale").then_some(now.as_str()),
    })
}

/// The object after applying `applied` to `old`.
pub fn apply(call: &Call<'_>, old: Option<&Value>, applied: &Value) -> Result<Value, Status> {
    let row = call.main_row();
    check_type((&row.api_version(), row.kind), applied)?;
    if applied["metadata"].get("managedFields").is_some_and(|list| !list.is_null()) {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    if old.is_none() && meta::text(applied, "name").is_empty() {
        return Err(Status::bad_request(format!(
            "the name of the object ({} based on URL) was undeterminable: name must be provided",
            call.context.info.name
        )));
    }
    let zero;
    let live = match old {
        Some(old) => old,
        None => {
            // An object of free form has no zero value but the empty one.
            let types = call.strategy.types();
            zero = match types.schema().zero(types.shape()) {
                Value::Null => json!({}),
                zero => zero,
            };
            &zero
        }
    };
    let managers = Managers::stored(&live["metadata"]["managedFields"]).unwrap_or_default();
    let live = meta::without_managed_fields(live);
    let (merged, managers) = with_manage(call, |manage| {
        let force = call.context.query.flag("force");
        let again = (call.context.manager == KUBECTL).then(|| managers.clone());
        let result = manage.apply(&live, applied, managers, &call.context.manager, force);
        match (result, again) {
            (Err(ApplyError::Conflicts(conflicts)), Some(managers)) => {
                take_over(manage, &live, applied, managers, conflicts)
            }
            (other, _) => other,
        }
    })
    .map_err(|error| refusal(call, applied, error))?;
    finish(call, live, merged, applied, managers)
}

/// Conflicts about what client-side apply had set are none for kubectl.
fn take_over(
    manage: &Manage<'_>,
    live: &Value,
    applied: &Value,
    managers: Managers,
    mut conflicts: Vec<Conflict>,
) -> Result<(Option<Value>, Managers), ApplyError> {
    let Some(allowed) = manage.last_applied(live) else {
        return Err(ApplyError::Conflicts(conflicts));
    };
    conflicts.retain(|conflict| !allowed.contains(&conflict.path.0));
    if !conflicts.is_empty() {
        return Err(ApplyError::Conflicts(conflicts));
    }
    manage.apply(live, applied, managers, KUBECTL, true)
}

/// Reads the merged tree as an object again, and notes who manages it.
fn finish(
    call: &Call<'_>,
    live: Value,
    merged: Option<Value>,
    applied: &Value,
    managers: Managers,
) -> Result<Value, Status> {
    let revision = live["metadata"]["resourceVersion"].clone();
    let mut object = match merged {
        None => live,
        Some(merged) => {
            let validation = strategy::query::FieldValidation::Ignore;
            body::redecode(call, merged, validation)?.value
        }
    };
    if object["metadata"]["resourceVersion"] == revision {
        meta::of(&mut object).remove("resourceVersion");
    }
    if call.context.manager == KUBECTL {
        renew_last_applied(&mut object, applied);
    }
    put(call, &mut object, managers);
    Ok(object)
}

/// Keeps kubectl's annotation true for those who go back to client-side apply.
fn renew_last_applied(object: &mut Value, applied: &Value) {
    let annotations = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut);
    let Some(annotations) = annotations else { return };
    if annotations.get(LAST_APPLIED).and_then(Value::as_str).is_none_or(str::is_empty) {
        return;
    }
    let mut applied = applied.clone();
    if let Some(own) = applied.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        own.remove(LAST_APPLIED);
    }
    annotations.insert(LAST_APPLIED.into(), format!("{}\n", go_json(&applied)).into());
}

fn check_type((version, kind): (&str, &str), applied: &Value) -> Result<(), Status> {
    if applied["apiVersion"] == version && applied["kind"] == kind {
        return Ok(());
    }
    let sent = |key: &str| applied[key].as_str().unwrap_or("");
    let named = go_kind(sent("apiVersion"), sent("kind"));
    Err(Status::bad_request(format!("invalid object type: {named}")))
}

/// The object after applying a Scale to it: the replicas, as the object's own field.
pub fn apply_scale(call: &Call<'_>, object: &Value, scale: &Value) -> Result<Value, Status> {
    check_type((&call.row.kind_api_version(), call.row.kind), scale)?;
    let shape = call.row.ty.map_or(Shape::Any, Shape::Struct);
    let faults = api::apply::check(call.resources.schema, Node::root(&shape), scale);
    if !faults.is_empty() {
        return Err(refusal(call, scale, ApplyError::Untyped(faults)));
    }
    let row = call.main_row();
    let mut partial = json!({
        "apiVersion": row.api_version(), "kind": row.kind, "metadata": scale["metadata"],
    });
    if let Some(replicas) = scale.pointer("/spec/replicas").and_then(Value::as_i64) {
        call.strategy.scale_paths().set_replicas(&mut partial, replicas);
    }
    apply(call, Some(object), &partial)
}

/// A kind as Go prints it.
fn go_kind(api_version: &str, kind: &str) -> String {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    format!("{group}/{version}, Kind={kind}")
}

fn refusal(call: &Call<'_>, applied: &Value, error: ApplyError) -> Status {
    let about = || {
        let (namespace, name) = (meta::text(applied, "namespace"), meta::text(applied, "name"));
        format!("{namespace}/{name}; {}", go_kind(&call.row.kind_api_version(), call.row.kind))
    };
    match error {
        ApplyError::Untyped(faults) => {
            let faults = match faults.as_slice() {
                [one] => one.clone(),
                many => format!("errors:\n  {}", many.join("\n  ")),
            };
            let m = format!("failed to create typed patch object ({}): {faults}", about());
            Status::failure(500, "", m)
        }
        ApplyError::Merge(fault) => {
            Status::failure(500, "", format!("failed to merge config: {fault}"))
        }
        ApplyError::Conflicts(mut conflicts) => {
            if call.row.subresource == "scale" {
                // All managers of the replicas are shown as the Scale's.
                let version = call.row.kind_api_version();
                conflicts.iter_mut().for_each(|c| c.manager.api_version.clone_from(&version));
            }
            conflict(&conflicts)
        }
    }
}

fn conflict(conflicts: &[Conflict]) -> Status {
    let cause = |conflict: &Conflict| Cause {
        reason: "FieldManagerConflict".into(),
        message: format!("conflict with {}", conflict.manager),
        field: conflict.path.to_string(),
    };
    let message = match conflicts {
        [one] => {
            format!("Apply failed with 1 conflict: conflict with {}: {}", one.manager, one.path)
        }
        many => {
            let mut lines: Vec<String> = Vec::new();
            for (at, conflict) in many.iter().enumerate() {
                if at == 0 || many[at - 1].manager != conflict.manager {
                    lines.push(format!("conflicts with {}:", conflict.manager));
                }
                lines.push(format!("- {}", conflict.path));
            }
            format!("Apply failed with {} conflicts: {}", many.len(), lines.join("\n"))
        }
    };
    let causes = conflicts.iter().map(cause).collect();
    Status::failure(409, "Conflict", message).with_causes(causes)
}
