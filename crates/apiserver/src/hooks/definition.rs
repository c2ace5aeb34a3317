//! Definitions of custom resources: they outlive their objects.

use serde_json::{Value, json};

use super::{DEFAULT, Hooks};
use crate::call::Call;
use crate::custom::{CLEANUP, condition, set_condition};
use crate::meta;

pub(super) static HOOKS: Hooks = Hooks { deleting, unconditional: false, ..DEFAULT };

/// The upkeep deletes the objects, then takes the finalizer off.
fn deleting(call: &Call<'_>, object: &mut Value) {
    let finalizers = meta::of(object).entry("finalizers").or_insert_with(|| json!([]));
    if let Some(list) = finalizers.as_array_mut().filter(|list| !list.contains(&CLEANUP.into())) {
        list.push(CLEANUP.into());
    }
    let detail =
        "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
    let pending = condition("Terminating", true, "InstanceDeletionPending", detail);
    set_condition(&mut object["status"], pending, &call.now_text());
}
