//! Secrets, accounts, quotas, ingresses, names and finalizers.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Warnings, pair};
use crate::check::At;
use crate::shared::quantity;
use crate::value::text;

pub(super) fn ingress(warnings: &Warnings, ingress: &At<'_>) {
    let class = "kubernetes.io/ingress.class";
    let annotations = &ingress.value()["metadata"]["annotations"];
    let unset = ingress.get("spec").get("ingressClassName").is_absent();
    if ingress.old().is_none() && unset && annotations.get(class).is_some() {
        warnings.add(format!(
            "annotation {class:?} is deprecated, please use 'spec.ingressClassName' instead"
        ));
    }
}

/// Requests that a quota allows should fit into the limits that it allows.
pub(super) fn quota(warnings: &Warnings, quota: &At<'_>) {
    if quota.old().is_some() {
        return;
    }
    let hard = &quota.value()["spec"]["hard"];
    for name in ["cpu", "memory", "storage", "ephemeral-storage"] {
        let mut request_name = format!("requests.{name}");
        if hard.get(&request_name).is_none() && matches!(name, "cpu" | "memory") {
            name.clone_into(&mut request_name);
        }
        let limit_name = format!("limits.{name}");
        let (request, limit) = (&hard[&request_name], &hard[&limit_name]);
        let (Some(asked), Some(allowed)) = (quantity::parse(request), quantity::parse(limit))
        else {
            continue;
        };
        if asked > allowed {
            let (request, limit) = (shown(request), shown(limit));
            warnings.add(format!("ResourceQuota {request_name} ({request}) should be less than {limit_name} ({limit})"));
        }
    }
}

fn shown(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

pub(super) fn service_account(warnings: &Warnings, account: &At<'_>) {
    let key = "kubernetes.io/enforce-mountable-secrets";
    let has = |object: &serde_json::Value| object["metadata"]["annotations"].get(key).is_some();
    if has(account.value()) && !account.old().is_some_and(has) {
        warnings.add(format!("metadata.annotations[{key}]: deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets"));
    }
}

/// A pair that no TLS server could load. Texts are those of Go's `tls.X509KeyPair`.
pub(super) fn secret(warnings: &Warnings, secret: &At<'_>) {
    if secret.get("type").text() != "kubernetes.io/tls" {
        return;
    }
    let data = secret.get("data");
    let part = |key: &str| STANDARD.decode(text(&data.value()[key])).unwrap_or_default();
    if let Some(fault) = pair::fault(&part("tls.crt"), &part("tls.key")) {
        warnings.add(fault);
    }
}

pub(super) fn resource_slice(warnings: &Warnings, slice: &At<'_>) {
    let spec = slice.get("spec");
    let driver = spec.get("driver").text();
    if driver != driver.to_lowercase() {
        warnings.add(format!("spec.driver: driver names should be lowercase; {driver:?} contains uppercase characters"));
    }
}

/// Names that files may take one day.
pub(super) fn static_name(warnings: &Warnings, object: &At<'_>) {
    let suffix = ".static.k8s.io";
    if object.get("metadata").get("name").text().ends_with(suffix) {
        warnings.add(format!("metadata.name: names ending with {suffix:?} are reserved for static manifest-based configurations and cannot be managed via the API"));
    }
}

pub(super) fn finalizers(warnings: &Warnings, list: &At<'_>) {
    let before = crate::shared::texts(list.old(), None);
    let new: BTreeSet<&str> = crate::shared::texts(Some(list.value()), None).into_iter().collect();
    for name in new.into_iter().filter(|name| !before.contains(name)) {
        for fault in api::names::qualified_name(name) {
            warnings.at(list, format!("{name:?}: {fault}"));
        }
        if name.contains('/') || crate::meta::STANDARD_FINALIZERS.contains(&name) {
            continue;
        }
        let path = if name.contains('.') { " including a path (/)" } else { "" };
        warnings.at(list, format!("{name:?}: prefer a domain-qualified finalizer name{path} to avoid accidental conflicts with other finalizer writers"));
    }
}
