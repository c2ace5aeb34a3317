//! Volume mounts and block devices of a container.

use std::collections::HashSet;

use serde_json::Value;

use super::Pod;
use super::sources::descending;
use crate::check::At;
use crate::formats::has_backsteps;

/// Names of a list's items, and the values of another field.
fn names_and<'a>(list: &'a Value, field: &str) -> (HashSet<&'a str>, HashSet<&'a str>) {
    let text = |v: &'a Value| v.as_str().unwrap_or("");
    let items = list.as_array().into_iter().flatten();
    items.map(|i| (text(&i["name"]), i.get(field).map_or("", text))).unzip()
}

pub(super) fn mounts(container: &At<'_>, pod: &Pod<'_>) {
    let list = container.get("volumeMounts");
    let (device_names, device_paths) = names_and(&container.value()["volumeDevices"], "devicePath");
    let mut seen: HashSet<String> = HashSet::new();
    for mount in list.items() {
        let (name, path) = (mount.get("name"), mount.get("mountPath"));
        name.need();
        if pod.volume(name.text()).is_none() {
            name.not_found();
        }
        path.need();
        if !seen.insert(path.text().to_owned()) {
            path.invalid_text("must be unique");
        }
        if device_names.contains(name.text()) {
            name.invalid_text("must not already exist in volumeDevices");
        }
        if device_paths.contains(path.text()) {
            path.invalid_text("must not already exist as a path in volumeDevices");
        }
        sub_paths(&list, &mount);
        propagation(&list, &mount, container);
        recursive_read_only(&list, &mount);
    }
}

/// Upstream reports these at the list, not at the mount.
fn sub_paths(list: &At<'_>, mount: &At<'_>) {
    let (path, expression) = (mount.get("subPath"), mount.get("subPathExpr"));
    if !path.is_empty() {
        descending(&list.get("subPath").with(path.value()));
    }
    if !expression.is_empty() {
        if !path.is_empty() {
            expression.invalid("subPathExpr and subPath are mutually exclusive");
        }
        descending(&list.get("subPathExpr").with(expression.value()));
    }
}

fn propagation(list: &At<'_>, mount: &At<'_>, container: &At<'_>) {
    let mode = mount.get("mountPropagation");
    if mode.is_absent() {
        return;
    }
    let at = list.get("mountPropagation");
    let at = at.with(mode.value());
    at.one_of(&["Bidirectional", "HostToContainer", "None"]);
    let privileged = container.value()["securityContext"]["privileged"] == true;
    if mode.text() == "Bidirectional" && !privileged {
        at.forbidden("Bidirectional mount propagation is available only to privileged containers");
    }
}

fn recursive_read_only(list: &At<'_>, mount: &At<'_>) {
    let mode = mount.get("recursiveReadOnly");
    if mode.is_absent() {
        return;
    }
    let at = list.get("recursiveReadOnly");
    let at = at.with(mode.value());
    match mode.text() {
        "Disabled" => {}
        "Enabled" | "IfPossible" => {
            if !mount.get("readOnly").is_true() {
                at.forbidden("may only be specified when readOnly is true");
            }
            let propagation = mount.get("mountPropagation");
            if !propagation.is_absent() && propagation.text() != "None" {
                at.forbidden(
                    "may only be specified when mountPropagation is None or not specified",
                );
            }
        }
        _ => at.not_supported(&["Disabled", "Enabled", "IfPossible"]),
    }
}

pub(super) fn devices(container: &At<'_>, pod: &Pod<'_>) {
    let list = container.get("volumeDevices");
    let (mount_names, mount_paths) = names_and(&container.value()["volumeMounts"], "mountPath");
    let (mut names, mut paths): (HashSet<String>, HashSet<String>) = Default::default();
    for device in list.items() {
        let (name, path) = (device.get("name"), device.get("devicePath"));
        name.need();
        if names.contains(name.text()) {
            name.invalid_text("must be unique");
        }
        match pod.volume(name.text()) {
            None => name.not_found(),
            Some(v) if v["persistentVolumeClaim"].is_null() && v["ephemeral"].is_null() => name
                .invalid("can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode"),
            Some(_) => {}
        }
        path.need();
        if paths.contains(path.text()) {
            path.invalid_text("must be unique");
        }
        if has_backsteps(path.text()) {
            path.invalid("can not contain backsteps ('..')");
        } else {
            paths.insert(path.text().to_owned());
        }
        if mount_names.contains(name.text()) {
            name.invalid_text("must not already exist in volumeMounts");
        }
        if mount_paths.contains(path.text()) {
            path.invalid_text("must not already exist as a path in volumeMounts");
        }
        if !name.is_empty() {
            names.insert(name.text().to_owned());
        }
    }
}
