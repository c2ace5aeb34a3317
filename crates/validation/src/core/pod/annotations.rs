//! Annotations of pods that mean something, and their agreement with the fields that replaced them.

use serde_json::{Value, json};

use super::scheduling::tolerations;
use super::system::each_container;
use crate::check::At;
use crate::formats::has_backsteps;

pub(super) const MIRROR: &str = "kubernetes.io/config.mirror";
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

/// Of a pod or template with this spec.
pub(super) fn specific(annotations: &At<'_>, spec: &At<'_>) {
    if annotations.is_empty() {
        return;
    }
    let mirror = annotations.key(MIRROR);
    if !mirror.is_absent() && spec.get("nodeName").is_empty() {
        mirror.invalid("must set spec.nodeName if mirror pod annotation is set");
    }
    old_tolerations(annotations);
    let cost = annotations.key("controller.kubernetes.io/pod-deletion-cost");
    if !cost.is_absent() && !is_cost(cost.text()) {
        cost.invalid("must be a 32bit integer");
    }
    let pod = annotations.get(SECCOMP_POD);
    if !pod.is_absent() {
        seccomp(&pod);
    }
    for (key, _) in annotations.entries() {
        if key.starts_with(SECCOMP_CONTAINER) {
            seccomp(&annotations.get(key));
        }
    }
    app_armor(annotations, spec);
}

fn old_tolerations(annotations: &At<'_>) {
    const KEY: &str = "scheduler.alpha.kubernetes.io/tolerations";
    let text = annotations.key(KEY);
    if text.text().is_empty() {
        return;
    }
    match serde_json::from_str::<Value>(text.text()) {
        Ok(list) => {
            let at = annotations.get(KEY);
            tolerations(&At::with(&at, &list));
        }
        Err(e) => annotations.invalid_as(&KEY.into(), &e.to_string()),
    }
}

fn is_cost(text: &str) -> bool {
    let first = text.as_bytes().first().copied().unwrap_or(0);
    let starts = first == b'-' || text == "0" || (b'1'..=b'9').contains(&first);
    starts && text.parse::<i32>().is_ok()
}

fn seccomp(at: &At<'_>) {
    let text = at.text();
    if matches!(text, "runtime/default" | "docker/default" | "unconfined") {
        return;
    }
    let Some(path) = text.strip_prefix("localhost/") else {
        return at.invalid("must be a valid seccomp profile");
    };
    let shown = Value::from(path);
    if path.starts_with('/') {
        at.invalid_as(&shown, "must be a relative path");
    }
    if has_backsteps(path) {
        at.invalid_as(&shown, "must not contain '..'");
    }
}

fn app_armor(annotations: &At<'_>, spec: &At<'_>) {
    for (key, at) in annotations.entries() {
        let Some(name) = key.strip_prefix(APP_ARMOR) else { continue };
        let mut found = false;
        each_container(spec, |container| found |= container.get("name").text() == name);
        if !found {
            at.invalid_as(&name.into(), "container not found");
        }
        let profile = at.text();
        let known = matches!(profile, "" | "runtime/default" | "unconfined")
            || profile.starts_with("localhost/");
        if !known {
            at.invalid(&format!("invalid AppArmor profile name: {profile:?}"));
        }
    }
}

/// The AppArmor profile that an annotation stands for; none when it names no profile.
pub fn app_armor_profile(annotation: &str) -> Option<Value> {
    match annotation {
        "unconfined" => Some(json!({"type": "Unconfined"})),
        "runtime/default" => Some(json!({"type": "RuntimeDefault"})),
        _ => {
            let profile = annotation.strip_prefix("localhost/").filter(|p| !p.is_empty())?;
            Some(json!({"type": "Localhost", "localhostProfile": profile}))
        }
    }
}

/// On creation, annotation and field of one thing must agree.
pub(super) fn agree_with_fields(annotations: &At<'_>, spec: &At<'_>) {
    if annotations.is_empty() {
        return;
    }
    let all = annotations.value();
    let context = spec.get("securityContext");
    let profile = context.get("seccompProfile");
    agree(&profile, profile.value(), all[SECCOMP_POD].as_str(), "seccomp");
    each_container(spec, |container| {
        let context = container.get("securityContext");
        let profile = context.get("seccompProfile");
        let key = format!("{SECCOMP_CONTAINER}{}", container.get("name").text());
        agree(&profile, profile.value(), all[&key].as_str(), "seccomp");
    });
    if spec.value()["os"]["name"] == "windows" {
        return;
    }
    let of_pod = context.value().get("appArmorProfile").unwrap_or(&Value::Null);
    each_container(spec, |container| {
        let context = container.get("securityContext");
        let profile = context.get("appArmorProfile");
        let meant = if profile.is_absent() { of_pod } else { profile.value() };
        let key = format!("{APP_ARMOR}{}", container.get("name").text());
        agree(&profile, meant, all[&key].as_str(), "apparmor");
    });
}

fn agree(at: &At<'_>, profile: &Value, annotation: Option<&str>, what: &str) {
    let Some(annotation) = annotation.filter(|_| !profile.is_null()) else { return };
    let types = format!("{what} type in annotation and field must match");
    let fits = match profile["type"].as_str() {
        Some("Unconfined") => annotation == "unconfined",
        Some("RuntimeDefault") => {
            annotation == "runtime/default" || (what == "seccomp" && annotation == "docker/default")
        }
        Some("Localhost") => match annotation.strip_prefix("localhost/") {
            None => false,
            Some(path) if profile["localhostProfile"] == path => true,
            Some(_) => {
                let detail = format!("{what} profile in annotation and field must match");
                return at.get("localhostProfile").forbidden(&detail);
            }
        },
        _ => true,
    };
    if !fits {
        at.get("type").forbidden(&types);
    }
}

/// Some annotations are for life.
pub(super) fn updates(annotations: &At<'_>) {
    let Some(old) = annotations.old() else { return };
    for (key, before) in old.as_object().into_iter().flatten() {
        if annotations.value().get(key) == Some(before) {
            continue;
        }
        tell(annotations, key, "remove or update");
    }
    for (key, at) in annotations.entries() {
        if old.get(key).is_none() {
            tell(&at, key, "add");
        }
    }
}

fn tell(at: &At<'_>, key: &str, what: &str) {
    let which = match key {
        MIRROR => "mirror pod annotation",
        _ if key.starts_with(APP_ARMOR) => "AppArmor annotations",
        _ => return,
    };
    let place = format!("metadata.annotations[{key}]");
    at.report_at(&place, "FieldValueForbidden", format!("Forbidden: may not {what} {which}"));
}
