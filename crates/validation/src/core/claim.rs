//! Persistent volume claims, alone or as templates.

use api::names;
use serde_json::Value;

use crate::check::At;
use crate::golang;
use crate::shared::quantity::{self, parse};
use crate::shared::{LabelRules, label_selector};
use crate::{Kind, PLAIN};

pub(crate) static KIND: Kind = Kind {
    default: |claim| default_data_source(&mut claim["spec"]),
    create: |claim| spec(&claim.get("spec"), Rules::default()),
    update,
    status,
    again: true,
    ..PLAIN
};

/// The two ways to name a data source follow each other.
pub(crate) fn default_data_source(spec: &mut Value) {
    let Some(map) = spec.as_object_mut() else { return };
    let source = map.get("dataSource").filter(|v| !v.is_null()).cloned();
    let reference = map.get("dataSourceRef").filter(|v| !v.is_null()).cloned();
    match (source, reference) {
        (Some(source), None) => drop(map.insert("dataSourceRef".into(), source)),
        (None, Some(reference)) if reference["namespace"].as_str().is_none_or(str::is_empty) => {
            let mut source = reference;
            source.as_object_mut().map(|s| s.remove("namespace"));
            map.insert("dataSource".into(), source);
        }
        _ => {}
    }
}

/// What older claims may keep.
#[derive(Clone, Copy, Default)]
pub(crate) struct Rules {
    any_api_group: bool,
    labels: LabelRules,
}

pub(crate) const ACCESS_MODES: [&str; 4] =
    ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

/// Modes that exist, and the exclusive one alone.
pub(crate) fn access_modes(modes: &At<'_>) {
    for mode in modes.items() {
        if !ACCESS_MODES.contains(&mode.text()) {
            modes.not_supported_as(mode.value(), &ACCESS_MODES);
        }
    }
    let exclusive = |m: &At<'_>| m.text() == "ReadWriteOncePod";
    let other = |m: &At<'_>| !exclusive(m) && ACCESS_MODES.contains(&m.text());
    if modes.items().any(|m| exclusive(&m)) && modes.items().any(|m| other(&m)) {
        modes.forbidden("may not use ReadWriteOncePod with other access modes");
    }
}

pub(crate) fn spec(spec: &At<'_>, rules: Rules) {
    let modes = spec.get("accessModes");
    if modes.is_empty() {
        modes.required("at least 1 access mode is required");
    }
    label_selector(&spec.get("selector"), rules.labels);
    access_modes(&modes);
    storage(spec);
    let class = spec.get("storageClassName");
    if !class.is_empty() {
        class.named(names::dns_subdomain);
    }
    spec.get("volumeMode").one_of_if_set(&["Block", "Filesystem"]);
    let (source, reference) = (spec.get("dataSource"), spec.get("dataSourceRef"));
    for at in [source, reference] {
        if !at.is_absent() {
            data_source(&at, rules.any_api_group);
        }
    }
    sources_agree(spec, &source, &reference);
    let attributes = spec.get("volumeAttributesClassName");
    if !attributes.is_empty() {
        attributes.named(names::dns_subdomain);
    }
}

fn storage(spec: &At<'_>) {
    let resources = spec.get("resources");
    let amount = &spec.value()["resources"]["requests"]["storage"];
    let at = resources.key("storage");
    let at = at.with(amount);
    if amount.is_null() {
        at.required("");
    } else if at.sound(|| quantity::positive(&at)) {
        quantity::amount(&at, "storage");
    }
}

fn data_source(at: &At<'_>, any_api_group: bool) {
    at.get("name").need();
    at.get("kind").need();
    let (group, kind) = (at.get("apiGroup"), at.get("kind"));
    if group.is_empty() && kind.text() != "PersistentVolumeClaim" {
        let detail = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
        at.invalid_as(&kind.text().into(), detail);
    }
    if !group.is_empty() && !any_api_group {
        group.named(names::dns_subdomain);
    }
    let namespace = at.get("namespace");
    if !namespace.is_empty() {
        namespace.named(names::dns_label);
    }
}

fn sources_agree(spec: &At<'_>, source: &At<'_>, reference: &At<'_>) {
    if source.is_absent() || reference.is_absent() {
        return;
    }
    // Upstream shows the field's path, which has no exported fields.
    let shown = serde_json::json!({});
    if !reference.get("namespace").is_empty() {
        spec.invalid_as(&shown, "may not be specified when dataSourceRef.namespace is specified");
    } else if ["apiGroup", "kind", "name"]
        .iter()
        .any(|f| source.value()[*f] != reference.value()[*f])
    {
        spec.invalid_as(&shown, "must match dataSourceRef");
    }
}

/// Metadata of a template: labels and annotations only.
pub(crate) fn template_meta(meta: &At<'_>) {
    crate::meta::annotations(&meta.get("annotations"));
    meta.get("labels").labels();
    for (field, _) in meta.entries() {
        let at = meta.get(field);
        if !matches!(field, "annotations" | "labels") && !at.is_empty() {
            at.forbidden("cannot be set");
        }
    }
}

const CLASS: &str = "volume.beta.kubernetes.io/storage-class";

fn update(claim: &At<'_>) {
    let spec_at = claim.get("spec");
    let Some(old) = spec_at.old() else { return };
    let rules = Rules {
        any_api_group: !old["dataSource"]["apiGroup"].is_null()
            || !old["dataSourceRef"]["apiGroup"].is_null(),
        ..Rules::default()
    };
    spec(&spec_at, rules);
    let meta = claim.get("metadata");
    let (mut masked, mut before) = (spec_at.value().clone(), old.clone());
    if old["volumeName"].as_str().is_none_or(str::is_empty) {
        carry(&mut before, spec_at.value(), "volumeName");
    }
    class_change(&meta, old, &mut masked);
    let bound = claim.value()["status"]["phase"] == "Bound";
    if bound {
        if let Some(amount) = old["resources"]["requests"].get("storage") {
            masked["resources"]["requests"]["storage"] = amount.clone();
        }
        carry(&mut masked, old, "volumeAttributesClassName");
    }
    if !golang::same(&masked, &before) {
        let diff = golang::diff("core.PersistentVolumeClaimSpec", &before, &masked);
        spec_at.forbidden(&format!("spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n{diff}"));
    }
    size_change(claim, old);
    let mode = spec_at.get("volumeMode");
    if mode.old().is_some_and(|old| old != mode.value()) {
        mode.report_at(
            "volumeMode",
            "FieldValueInvalid",
            format!("Invalid value: {}: field is immutable", mode.value()),
        );
    }
    attributes_change(claim);
}

fn carry(into: &mut Value, from: &Value, key: &str) {
    let Some(map) = into.as_object_mut() else { return };
    match from.get(key) {
        Some(value) => drop(map.insert(key.into(), value.clone())),
        None => drop(map.remove(key)),
    }
}

/// A class may move from the old annotation to its field.
fn class_change(meta: &At<'_>, old: &Value, masked: &mut Value) {
    let annotation =
        |v: Option<&Value>| v.and_then(|m| m["annotations"][CLASS].as_str()).map(str::to_owned);
    let (before, now) = (annotation(meta.old()), annotation(Some(meta.value())));
    let (old_class, new_class) =
        (old["storageClassName"].as_str(), masked["storageClassName"].as_str());
    let moved = before.is_some()
        && old_class.is_none()
        && new_class == before.as_deref()
        && (now.is_none() || now == before);
    if moved {
        masked.as_object_mut().map(|m| m.remove("storageClassName"));
        return;
    }
    if before.as_deref().unwrap_or("") != now.as_deref().unwrap_or("") {
        let annotations = meta.get("annotations");
        annotations.get(CLASS).invalid_as(&now.unwrap_or_default().into(), "field is immutable");
    }
    let given = new_class.is_some() && old_class.is_none();
    if given && before.as_deref().is_none_or(|b| Some(b) == new_class) {
        carry(masked, old, "storageClassName");
    }
}

fn size_change(claim: &At<'_>, old: &Value) {
    let spec = claim.get("spec");
    let (resources, status) = (spec.get("resources"), claim.get("status"));
    let requests = resources.get("requests");
    let size = requests.get("storage");
    let zero = api::quantity::Quantity::ZERO;
    let now = parse(size.value()).unwrap_or(zero);
    let before = parse(&old["resources"]["requests"]["storage"]).unwrap_or(zero);
    let capacity = status.old().map_or(&Value::Null, |s| &s["capacity"]["storage"]);
    if now < before && now <= parse(capacity).unwrap_or(zero) {
        size.forbidden("field can not be less than status.capacity");
    }
}

fn attributes_change(claim: &At<'_>) {
    let (spec, status) = (claim.get("spec"), claim.get("status"));
    let class = spec.get("volumeAttributesClassName");
    let in_use = status.old().is_some_and(|s| !s["currentVolumeAttributesClassName"].is_null());
    if class.unchanged() || !in_use {
        return;
    }
    const WHEN: &str = "is forbidden when status.currentVolumeAttributesClassName is not nil";
    if class.is_absent() {
        if class.old().is_some_and(|o| !o.is_null()) {
            class.forbidden(&format!("update to nil {WHEN}"));
        }
    } else if class.is_empty() {
        class.forbidden(&format!("update to empty string {WHEN}"));
    }
}

const RESIZE: [&str; 5] = [
    "ControllerResizeInProgress",
    "ControllerResizeInfeasible",
    "NodeResizeInProgress",
    "NodeResizeInfeasible",
    "NodeResizePending",
];

fn status(claim: &At<'_>) {
    let (spec, status) = (claim.get("spec"), claim.get("status"));
    if spec.get("accessModes").is_empty() {
        claim.report_at("Spec.accessModes", "FieldValueRequired", "Required value");
    }
    let capacity = status.get("capacity");
    capacity.entries().for_each(|(_, amount)| quantity::basic(&amount));
    let statuses = status.get("allocatedResourceStatuses");
    for (name, state) in statuses.entries() {
        resource_key(&statuses, name);
        if !RESIZE.contains(&state.text()) {
            let mut sorted = RESIZE;
            sorted.sort_unstable();
            statuses.not_supported_as(&name.into(), &sorted);
        }
    }
    let allocated = status.get("allocatedResources");
    for (name, amount) in allocated.entries() {
        let sound = allocated.sound(|| resource_key(&allocated, name));
        if sound && amount.sound(|| quantity::basic(&amount)) {
            quantity::amount(&amount, "storage");
        }
    }
}

fn resource_key(at: &At<'_>, name: &str) {
    let faults = names::qualified_name(name);
    faults.iter().for_each(|fault| at.invalid_as(&name.into(), fault));
    if faults.is_empty() && quantity::is_native(name) && name != "storage" {
        at.not_supported_as(&name.into(), &["storage"]);
    }
}
