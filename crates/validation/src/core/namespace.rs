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
        pod_security(namespace);
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

/// What its pods may do is told by labels, whose values are fixed (admission PodSecurity).
fn pod_security(namespace: &At<'_>) {
    if namespace.faults() > 0 {
        return;
    }
    let meta = namespace.get("metadata");
    let labels = meta.get("labels");
    for mode in ["enforce", "audit", "warn"] {
        let key = format!("pod-security.kubernetes.io/{mode}");
        let level = labels.key(&key);
        if !level.is_absent()
            && !level.unchanged()
            && !matches!(level.text(), "privileged" | "baseline" | "restricted")
        {
            level.invalid_text("must be one of privileged, baseline, restricted");
        }
        let key = format!("{key}-version");
        let version = labels.key(&key);
        let is_version = |text: &str| {
            let minor = text.strip_prefix("v1.").unwrap_or("");
            text == "latest" || minor.parse::<u16>().is_ok_and(|n| n.to_string() == minor)
        };
        if !version.is_absent() && !version.unchanged() && !is_version(version.text()) {
            version.invalid_text("must be \"latest\" or \"v1.x\"");
        }
    }
}

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
