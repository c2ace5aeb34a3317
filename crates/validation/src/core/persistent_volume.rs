//! Persistent volumes.

use api::names;
use serde_json::{Value, json};

use super::claim::access_modes;
use super::pod::sources::*;
use crate::check::At;
use crate::golang;
use crate::shared::quantity;
use crate::shared::{csi_driver_name, node_selector};
use crate::{Kind, PLAIN};

pub(crate) static KIND: Kind =
    Kind { create: |pv| spec(&pv.get("spec"), Some(pv)), update, again: true, anew: true, ..PLAIN };

type Source = (&'static str, &'static str, &'static str, fn(&At<'_>, &str));

/// As the volumes of pods: field, name as a second source, name in its own faults, rules.
static SOURCES: [Source; 22] = [
    ("hostPath", "hostPath", "hostPath", |v, _| host_path(v)),
    ("gcePersistentDisk", "gcePersistentDisk", "persistentDisk", |v, _| gce_disk(v)),
    ("awsElasticBlockStore", "awsElasticBlockStore", "awsElasticBlockStore", |v, _| aws_disk(v)),
    ("glusterfs", "glusterfs", "glusterfs", |v, _| glusterfs(v)),
    ("flocker", "flocker", "flocker", |v, _| flocker(v)),
    ("nfs", "nfs", "nfs", |v, _| nfs(v)),
    ("rbd", "rbd", "rbd", |v, _| needs(v, &["monitors", "image"])),
    ("quobyte", "quobyte", "quobyte", |v, _| quobyte(v)),
    ("cephfs", "cephFS", "cephfs", |v, _| needs(v, &["monitors"])),
    ("iscsi", "iscsi", "iscsi", iscsi_of),
    ("cinder", "cinder", "cinder", |v, _| cinder(v, true)),
    ("fc", "fc", "fc", |v, _| fibre_channel(v)),
    ("flexVolume", "flexVolume", "flexVolume", |v, _| flex(v)),
    ("azureFile", "azureFile", "azureFile", |v, _| azure_file(v)),
    ("vsphereVolume", "vsphereVolume", "vsphereVolume", |v, _| needs(v, &["volumePath"])),
    ("photonPersistentDisk", "photonPersistentDisk", "photonPersistentDisk", |v, _| {
        needs(v, &["pdID"]);
    }),
    ("portworxVolume", "portworxVolume", "portworxVolume", |v, _| needs(v, &["volumeID"])),
    ("azureDisk", "azureDisk", "azureDisk", |v, _| azure_disk(v)),
    ("scaleIO", "scaleIO", "scaleIO", |v, _| needs(v, &["gateway", "system", "volumeName"])),
    ("local", "local", "local", |v, _| local(v)),
    ("storageos", "storageos", "storageos", |v, _| storageos(v, true)),
    ("csi", "csi", "csi", |v, _| csi(v)),
];

fn iscsi_of(source: &At<'_>, volume: &str) {
    let portal = source.get("targetPortal");
    if !source.get("initiatorName").is_absent() && volume.len() + 1 + portal.text().len() > 64 {
        source.get("targetportal").invalid_as(portal.value(), "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.");
    }
    iscsi(source, false);
}

fn glusterfs(source: &At<'_>) {
    needs(source, &["endpoints", "path"]);
    let namespace = source.get("endpointsNamespace");
    if namespace.is_absent() {
        return;
    }
    if namespace.text().is_empty() {
        namespace.invalid("if the endpointnamespace is set, it must be a valid namespace name");
    } else {
        namespace.named(names::dns_label);
    }
}

fn azure_file(source: &At<'_>) {
    needs(source, &["secretName", "shareName"]);
    let namespace = source.get("secretNamespace");
    if !namespace.is_absent() {
        namespace.need();
    }
}

fn local(source: &At<'_>) {
    let path = source.get("path");
    if path.need() {
        no_backsteps(&path);
    }
}

fn csi(source: &At<'_>) {
    csi_driver_name(&source.get("driver"));
    source.get("volumeHandle").need();
    for field in [
        "controllerPublishSecretRef",
        "controllerExpandSecretRef",
        "nodePublishSecretRef",
        "nodeExpandSecretRef",
    ] {
        let secret = source.get(field);
        if secret.is_absent() {
            continue;
        }
        for (key, rule) in [
            ("name", names::dns_subdomain as fn(&str) -> Vec<String>),
            ("namespace", names::dns_label),
        ] {
            if secret.get(key).need() {
                secret.get(key).named(rule);
            }
        }
    }
}

/// A volume's spec: of a volume of its own, or (without one) inline in a VolumeAttachment.
pub(crate) fn spec(spec: &At<'_>, volume: Option<&At<'_>>) {
    let name = volume.map_or("", |v| v.value()["metadata"]["name"].as_str().unwrap_or(""));
    let inline = volume.is_none();
    if inline {
        inline_only(spec);
    }
    let modes = spec.get("accessModes");
    modes.need();
    access_modes(&modes);
    if !inline {
        capacity(&spec.get("capacity"));
    }
    reclaim(spec, inline);
    let affinity = spec.get("nodeAffinity");
    if !affinity.is_absent() {
        if inline {
            affinity.forbidden("may not be specified in the context of inline volumes");
        } else if affinity.get("required").is_absent() {
            affinity.get("required").required("must specify required node constraints");
        } else {
            node_selector(&affinity.get("required"), false);
        }
    }
    sources(spec, name, !affinity.is_absent() && !inline);
    classes(spec, inline);
}

fn inline_only(spec: &At<'_>) {
    const WHY: &str = "may not be specified in the context of inline volumes";
    if !spec.get("claimRef").is_absent() {
        spec.get("claimRef").forbidden(WHY);
    }
    if !spec.get("capacity").is_empty() {
        spec.get("capacity").forbidden(WHY);
    }
    if spec.get("csi").is_absent() {
        spec.get("csi").required("has to be specified in the context of inline volumes");
    }
}

fn capacity(capacity: &At<'_>) {
    capacity.need();
    let amounts = capacity.value().as_object();
    if amounts.is_none_or(|m| m.len() != 1 || !m.contains_key("storage")) {
        let none = json!({});
        let at = if capacity.is_absent() {
            capacity.with(&none)
        } else {
            capacity.with(capacity.value())
        };
        at.not_supported_shown(&["storage"]);
    }
    for (_, amount) in capacity.entries() {
        quantity::basic(&amount);
        quantity::positive(&amount);
    }
}

fn reclaim(spec: &At<'_>, inline: bool) {
    let policy = spec.get("persistentVolumeReclaimPolicy");
    if policy.is_empty() {
        return;
    }
    if !inline {
        policy.one_of(&["Delete", "Recycle", "Retain"]);
    } else if policy.text() != "Retain" {
        policy.forbidden("may only be Retain in the context of inline volumes");
    }
}

fn sources(spec: &At<'_>, name: &str, has_affinity: bool) {
    let mut found = false;
    for (field, as_second, shown, rules) in &SOURCES {
        if spec.value()[*field].is_null() {
            continue;
        }
        if found && *field != "flexVolume" {
            spec.get_as(field, as_second).forbidden("may not specify more than 1 volume type");
        } else {
            rules(&spec.get_as(field, shown), name);
            if *field == "local" && !has_affinity {
                spec.get("nodeAffinity").required("Local volume requires node affinity");
            }
        }
        found = true;
    }
    if !found {
        spec.required("must specify a volume type");
    }
    let host = spec.get("hostPath");
    let path = host.get("path");
    let is_root = path.text().starts_with('/')
        && path.text().split('/').all(|s| matches!(s, "" | "." | ".."));
    let policy = spec.get("persistentVolumeReclaimPolicy");
    if is_root && policy.text() == "Recycle" {
        policy.forbidden("may not be 'recycle' for a hostPath mount of '/'");
    }
}

fn classes(spec: &At<'_>, inline: bool) {
    let class = spec.get("storageClassName");
    if !class.is_empty() {
        if inline {
            class.forbidden("may not be specified in the context of inline volumes");
        } else {
            class.named(names::dns_subdomain);
        }
    }
    let mode = spec.get("volumeMode");
    if !mode.is_absent() {
        if !inline {
            mode.one_of(&["Block", "Filesystem"]);
        } else if mode.text() != "Filesystem" {
            mode.forbidden(
                "may not specify volumeMode other than Filesystem in the context of inline volumes",
            );
        }
    }
    let attributes = spec.get("volumeAttributesClassName");
    if !attributes.is_absent() {
        if attributes.is_empty() {
            attributes.required("an empty string is disallowed");
        } else {
            attributes.named(names::dns_subdomain);
        }
        if spec.get("csi").is_absent() {
            spec.get("csi").required("has to be specified when using volumeAttributesClassName");
        }
    }
}

fn update(pv: &At<'_>) {
    let at = pv.get("spec");
    spec(&at, Some(pv));
    let Some(old) = at.old() else { return };
    let mut now = at.value().clone();
    let added = old["csi"]["controllerExpandSecretRef"].is_null();
    if added && old["csi"].is_object() && now["csi"].is_object() {
        now["csi"].as_object_mut().map(|c| c.remove("controllerExpandSecretRef"));
    }
    if SOURCES.iter().any(|(field, ..)| !golang::same(&now[*field], &old[*field])) {
        let diff = golang::diff("core.PersistentVolumeSource", old, &now);
        pv.report_at(
            "spec.persistentvolumesource",
            "FieldValueForbidden",
            format!("Forbidden: spec.persistentvolumesource is immutable after creation\n{diff}"),
        );
    }
    immutable_at(&at.get("volumeMode"), "volumeMode");
    affinity_update(&at.get("nodeAffinity"));
    let attributes = at.get("volumeAttributesClassName");
    if attributes.is_absent() && attributes.old().is_some_and(|o| !o.is_null()) {
        attributes.forbidden("update from non-nil value to nil is forbidden");
    }
}

fn immutable_at(at: &At<'_>, path: &str) {
    if at.old().is_some_and(|old| old != at.value()) {
        let message = format!("Invalid value: {}: field is immutable", at.value());
        at.report_at(path, "FieldValueInvalid", message);
    }
}

/// Labels that got their final names.
const FINAL: [(&str, &str); 5] = [
    ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
    ("beta.kubernetes.io/os", "kubernetes.io/os"),
    ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
    ("beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type"),
];

fn affinity_update(at: &At<'_>) {
    let Some(old) = at.old().filter(|old| !old.is_null()) else { return };
    if !renamed(at.value(), old) {
        let shown = golang::compact("core.VolumeNodeAffinity", at.value());
        at.report_at(
            "nodeAffinity",
            "FieldValueInvalid",
            format!("Invalid value: {shown}: field is immutable, except for updating from beta label to GA"),
        );
    }
}

/// Equal, but for keys that got their final names.
fn renamed(new: &Value, old: &Value) -> bool {
    match (new, old) {
        (Value::Object(new), Value::Object(old)) => {
            new.len() == old.len()
                && new.iter().all(|(key, value)| {
                    let before = old.get(key).unwrap_or(&Value::Null);
                    let key_moved = key == "key"
                        && FINAL.iter().any(|(from, to)| before == from && value == to);
                    key_moved || renamed(value, before)
                })
        }
        (Value::Array(new), Value::Array(old)) => {
            new.len() == old.len() && new.iter().zip(old).all(|(n, o)| renamed(n, o))
        }
        (new, old) => new == old,
    }
}
