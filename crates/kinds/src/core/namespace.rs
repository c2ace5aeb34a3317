//! Namespaces.

use serde_json::{Value, json};

use crate::check::At;
use crate::meta::finalizer;
use crate::value::text;
use crate::{Kind, PLAIN};

pub(crate) static KIND: Kind = Kind {
    name: api::names::dns_label,
    default,
    create: |namespace| {
        let spec = namespace.get("spec");
        let list = spec.get("finalizers");
        for item in list.items() {
            finalizer(&list.with(item.value()));
        }
    },
    update: |namespace| {
        if namespace.subresource() == "finalize" {
            let spec = namespace.get("spec");
            spec.get("finalizers").items().for_each(|item| finalizer(&item));
        }
    },
    status,
    anew: true,
    ..PLAIN
};

/// Every namespace carries its name as a label, for selectors.
fn default(object: &mut Value) {
    let name = text(&object["metadata"]["name"]).to_owned();
    if !name.is_empty() {
        object["metadata"]["labels"]["kubernetes.io/metadata.name"] = json!(name);
    }
}

fn status(namespace: &At<'_>) {
    let (meta, status) = (namespace.get("metadata"), namespace.get("status"));
    let phase = status.get("phase");
    let (expected, when) = match meta.get("deletionTimestamp").is_absent() {
        true => ("Active", "empty"),
        false => ("Terminating", "not empty"),
    };
    if phase.text() != expected {
        let detail = format!("may only be '{expected}' if `deletionTimestamp` is {when}");
        status.get("Phase").invalid_as(&phase.text().into(), &detail);
    }
}
