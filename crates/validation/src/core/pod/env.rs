//! Environment variables and where their values come from.

use api::names;

use super::projected::{field_ref, resource_ref};
use super::sources::no_backsteps;
use crate::check::At;
use crate::formats;

const FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

pub(super) fn variables(list: &At<'_>) {
    for variable in list.items() {
        let name = variable.get("name");
        if name.need() {
            name.named(formats::env_name);
        }
        value_from(&variable);
    }
}

fn value_from(variable: &At<'_>) {
    let source = variable.get("valueFrom");
    if source.is_absent() {
        return;
    }
    type Rule = fn(&At<'_>);
    let kinds: [(&str, Rule); 5] = [
        ("fieldRef", |r| field_ref(r, &FIELDS)),
        ("resourceFieldRef", |r| resource_ref(r, false)),
        ("configMapKeyRef", key_ref),
        ("secretKeyRef", key_ref),
        ("fileKeyRef", file_ref),
    ];
    let mut found = 0;
    for (kind, rule) in kinds {
        if !source.get(kind).is_absent() {
            found += 1;
            rule(&source.get(kind));
        }
    }
    let empty = "".into();
    if found == 0 {
        source.invalid_as(&empty, "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`");
    } else if !variable.get("value").is_empty() {
        source.invalid_as(&empty, "may not be specified when `value` is not empty");
    } else if found > 1 {
        source.invalid_as(&empty, "may not have more than one field specified at a time");
    }
}

fn key_ref(reference: &At<'_>) {
    reference.get("name").named(names::dns_subdomain);
    let key = reference.get("key");
    if key.need() {
        key.named(formats::config_key);
    }
}

fn file_ref(reference: &At<'_>) {
    let (key, volume, path) =
        (reference.get("key"), reference.get("volumeName"), reference.get("path"));
    if key.need() {
        key.named(formats::env_name);
    }
    if volume.need() {
        volume.named(names::dns_label);
    }
    if path.need() {
        no_backsteps(&path);
    }
}

/// Whole ConfigMaps and Secrets as variables.
pub(super) fn variables_from(list: &At<'_>) {
    for from in list.items() {
        let prefix = from.get("prefix");
        if !prefix.is_empty() {
            prefix.named(formats::env_name);
        }
        let mut found = 0;
        for kind in ["configMapRef", "secretRef"] {
            let reference = from.get(kind);
            if reference.is_absent() {
                continue;
            }
            found += 1;
            let name = reference.get("name");
            if name.need() {
                // Upstream checks it as a prefix, which may end in a dash.
                let masked = match name.text().strip_suffix('-') {
                    Some(rest) if !rest.is_empty() => format!("{}a", &rest[..rest.len() - 1]),
                    _ => name.text().to_owned(),
                };
                names::dns_subdomain(&masked).iter().for_each(|fault| name.invalid(fault));
            }
        }
        let empty = "".into();
        if found == 0 {
            list.invalid_as(&empty, "must specify one of: `configMapRef` or `secretRef`");
        } else if found > 1 {
            list.invalid_as(&empty, "may not have more than one field specified at a time");
        }
    }
}
