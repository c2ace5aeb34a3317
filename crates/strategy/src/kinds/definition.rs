//! Definitions of custom resources: they outlive their objects.

use api::Status;
use serde_json::{Value, json};

use crate::conditions::{CLEANUP, condition, set_condition};
use crate::meta;
use crate::{DEFAULT, Hooks, Step};

pub(crate) const HOOKS: Hooks =
    Hooks { prepare_create, prepare_update, validate, deleting, unconditional: false, ..DEFAULT };

fn prepare_create(_: &Step<'_>, object: &mut Value) -> Result<(), Status> {
    let storage = storage_version(object);
    object["status"] = json!({
        "conditions": null, "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": storage,
    });
    Ok(())
}

/// Rules must compile; those that are there already are not asked again.
fn validate(definition: &validation::At<'_>) {
    if !definition.get("spec").unchanged() {
        custom::check_rules(definition);
    }
}

/// A version that objects are stored in from now on is noted.
fn prepare_update(step: &Step<'_>, _: &Value, new: &mut Value) -> Result<(), Status> {
    let storage = storage_version(new);
    if let (true, Some(stored)) =
        (step.row.subresource.is_empty(), new["status"]["storedVersions"].as_array_mut())
    {
        for version in storage {
            if !stored.contains(&version) {
                stored.push(version);
            }
        }
    }
    Ok(())
}

fn storage_version(object: &Value) -> Vec<Value> {
    let versions = object["spec"]["versions"].as_array().into_iter().flatten();
    versions.filter(|v| v["storage"] == true).map(|v| v["name"].clone()).collect()
}

/// The upkeep deletes the objects, then takes the finalizer off.
fn deleting(step: &Step<'_>, object: &mut Value) {
    let finalizers = meta::of(object).entry("finalizers").or_insert_with(|| json!([]));
    if let Some(list) = finalizers.as_array_mut().filter(|list| !list.contains(&CLEANUP.into())) {
        list.push(CLEANUP.into());
    }
    let detail =
        "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
    let pending = condition("Terminating", true, "InstanceDeletionPending", detail);
    set_condition(&mut object["status"], pending, &step.context.now_text());
}
