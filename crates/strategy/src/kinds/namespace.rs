//! Namespaces: they go through Terminating, and are gone once the last finalizer is.

use serde_json::{Value, json};

use crate::meta;
use crate::{DEFAULT, Hooks, Step};
use api::Status;
use validation::set_default;

/// The finalizer of the controller that empties a namespace.
const KUBERNETES: &str = "kubernetes";

pub(crate) const HOOKS: Hooks =
    Hooks { prepare_create, prepare_update, deleting, returns_deleted: true, ..DEFAULT };

fn prepare_create(_: &Step<'_>, object: &mut Value) -> Result<(), Status> {
    set_default(&mut object["spec"], "finalizers", json!([]));
    if let Some(list) = object["spec"]["finalizers"].as_array_mut()
        && !list.contains(&KUBERNETES.into())
    {
        list.push(KUBERNETES.into());
    }
    object["status"] = json!({"phase": "Active"});
    Ok(())
}

/// `spec.finalizers` change through `/finalize` only.
fn prepare_update(step: &Step<'_>, old: &Value, new: &mut Value) -> Result<(), Status> {
    if step.row.subresource != "finalize" {
        new["spec"] = old["spec"].clone();
    } else {
        new["status"] = old["status"].clone();
    }
    Ok(())
}

fn deleting(_: &Step<'_>, object: &mut Value) {
    object["status"]["phase"] = "Terminating".into();
    meta::of(object).remove("deletionGracePeriodSeconds");
}
