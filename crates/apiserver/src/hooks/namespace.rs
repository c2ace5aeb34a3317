//! Namespaces: they go through Terminating, and are gone once the last finalizer is.

use serde_json::{Value, json};

use super::{DEFAULT, Hooks};
use crate::call::Call;
use crate::meta;
use api::Status;
use validation::set_default;

/// Namespaces that the cluster cannot do without.
const PERMANENT: [&str; 3] = ["default", "kube-system", "kube-public"];

/// The finalizer of the controller that empties a namespace.
const KUBERNETES: &str = "kubernetes";

pub(super) static HOOKS: Hooks = Hooks {
    prepare_create,
    prepare_update,
    check_delete,
    deleting,
    returns_deleted: true,
    ..DEFAULT
};

fn prepare_create(_: &Call<'_>, object: &mut Value) -> Result<(), Status> {
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
fn prepare_update(call: &Call<'_>, old: &Value, new: &mut Value) -> Result<(), Status> {
    if call.row.subresource != "finalize" {
        new["spec"] = old["spec"].clone();
    } else {
        new["status"] = old["status"].clone();
    }
    Ok(())
}

fn check_delete(call: &Call<'_>, object: &Value) -> Result<(), Status> {
    let name = meta::text(object, "name");
    if PERMANENT.contains(&name) {
        let why = "this namespace may not be deleted";
        return Err(Status::forbidden(call.row.group, call.row.name, name, why));
    }
    Ok(())
}

fn deleting(_: &Call<'_>, object: &mut Value) {
    object["status"]["phase"] = "Terminating".into();
    meta::of(object).remove("deletionGracePeriodSeconds");
}
