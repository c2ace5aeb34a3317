//! Projected volumes, and the fields of a pod that files and variables may show.

use api::names;
use serde_json::Value;

use super::sources::{file_mode, key_to_path, not_reserved, take_path};
use crate::check::At;
use crate::shared::{LabelRules, label_selector, quantity, signer_name};

const VOLUME_FIELDS: [&str; 5] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
];

pub(super) fn downward_api(source: &At<'_>) {
    file_mode(&source.get("defaultMode"));
    for file in source.get("items").items() {
        // Upstream reports at the source, not at the file.
        file_of_fields(&source.with(file.value()));
    }
}

/// A file that shows a field.
fn file_of_fields(file: &At<'_>) {
    let path = file.get("path");
    path.need();
    not_reserved(&path);
    let (field, resource) = (file.get("fieldRef"), file.get("resourceFieldRef"));
    if !field.is_absent() {
        field_ref(&field, &VOLUME_FIELDS);
        if !resource.is_absent() {
            let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
            file.invalid_as(&"resource".into(), detail);
        }
    } else if !resource.is_absent() {
        resource_ref(&resource, true);
    } else {
        file.required("one of fieldRef and resourceFieldRef is required");
    }
    file_mode(&file.get("mode"));
}

/// What the downward API converts before it looks whether the field is allowed here.
const KNOWN: [&str; 15] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.serviceAccountName",
    "spec.schedulerName",
    "status.phase",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
    "spec.host",
];

pub(super) fn field_ref(reference: &At<'_>, allowed: &[&str]) {
    let (version, path) = (reference.get("apiVersion"), reference.get("fieldPath"));
    if !version.need() || !path.need() {
        return;
    }
    let text = path.text();
    let unknown = |why: String| path.invalid(&format!("error converting fieldPath: {why}"));
    if version.text() != "v1" {
        return unknown(format!("unsupported pod version: {}", version.text()));
    }
    if let Some((map, key)) = text.strip_suffix("']").and_then(|t| t.split_once("['")) {
        return match map {
            "metadata.annotations" => {
                for fault in names::qualified_name(&key.to_lowercase()) {
                    reference.invalid_as(&key.to_lowercase().into(), &fault);
                }
            }
            "metadata.labels" => {
                for fault in names::qualified_name(key) {
                    reference.invalid_as(&key.into(), &fault);
                }
            }
            _ => unknown(format!("field label does not support subscript: {text}")),
        };
    }
    if !KNOWN.contains(&text) {
        return unknown(format!("field label not supported: {text}"));
    }
    let converted = if text == "spec.host" { "spec.nodeName" } else { text };
    if !allowed.contains(&converted) {
        path.not_supported_as(&converted.into(), allowed);
    }
}

const RESOURCES: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

pub(super) fn resource_ref(reference: &At<'_>, in_volume: bool) {
    let (container, resource) = (reference.get("containerName"), reference.get("resource"));
    let name = resource.text();
    let huge = name.starts_with("requests.hugepages-") || name.starts_with("limits.hugepages-");
    if in_volume && container.is_empty() {
        container.required("");
    } else if resource.need() && !huge {
        resource.one_of(&RESOURCES);
    }
    divisor(&reference.get("divisor"), name, huge);
}

fn divisor(divisor: &At<'_>, resource: &str, huge: bool) {
    const BYTES: &str = "1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei";
    let Some(amount) = quantity::parse(divisor.value()).filter(|q| !q.is_zero()) else { return };
    let what = match resource.split_once('.').map_or("", |(_, r)| r) {
        "cpu" => "cpu",
        "memory" => "memory",
        "ephemeral-storage" => "local ephemeral storage",
        _ if huge => "hugepages",
        _ => return,
    };
    let supported = if what == "cpu" { "1m and 1" } else { BYTES };
    let separator = if what == "cpu" { " and " } else { ", " };
    let text = amount.to_string();
    if !supported.split(separator).any(|s| s == text) {
        let detail =
            format!("only divisor's values {supported} are supported with the {what} resource");
        divisor.invalid_as(&resource.into(), &detail);
    }
}

pub(super) fn projected(volume: &At<'_>) {
    file_mode(&volume.get("defaultMode"));
    let mut paths: Vec<&str> = Vec::new();
    let list = volume.value()["sources"].as_array().map_or(&[][..], Vec::as_slice);
    let sources = volume.get("sources");
    for (at, value) in list.iter().enumerate() {
        let source = sources.index(at);
        let mut kinds = 0;
        for (kind, check) in KINDS {
            if !value[kind].is_null() {
                kinds += 1;
                check(volume, &source.get(kind));
                collect_paths(volume, kind, &value[kind], &mut paths);
            }
        }
        if kinds > 1 {
            source.forbidden("may not specify more than 1 volume type per source");
        }
    }
}

type Check = fn(&At<'_>, &At<'_>);

const KINDS: [(&str, Check); 6] = [
    ("secret", |_, s| keys(s)),
    ("configMap", |_, s| keys(s)),
    ("downwardAPI", |_, s| {
        for file in s.get("items").items() {
            file_of_fields(&s.with(file.value()));
        }
    }),
    ("serviceAccountToken", token),
    ("clusterTrustBundle", |_, s| trust_bundle(s)),
    ("podCertificate", |_, s| certificate(s)),
];

fn keys(source: &At<'_>) {
    source.get("name").need();
    for item in source.get("items").items() {
        key_to_path(&item);
    }
}

/// Paths of one volume must differ, whatever they come from.
fn collect_paths<'a>(volume: &At<'_>, kind: &str, source: &'a Value, taken: &mut Vec<&'a str>) {
    let mut take = |path: &'a Value, shown: &Value| {
        if path.as_str().is_some_and(|p| !p.is_empty()) && !take_path(taken, path) {
            volume.invalid_as(shown, "conflicting duplicate paths");
        }
    };
    match kind {
        "secret" | "configMap" | "downwardAPI" => {
            for item in source["items"].as_array().into_iter().flatten() {
                let shown = if kind == "downwardAPI" { &item["path"] } else { &source["name"] };
                take(&item["path"], shown);
            }
        }
        "clusterTrustBundle" => take(&source["path"], &source["path"]),
        "podCertificate" => {
            for key in ["credentialBundlePath", "keyPath", "certificateChainPath"] {
                take(&source[key], &source[key]);
            }
        }
        _ => {}
    }
}

fn token(volume: &At<'_>, source: &At<'_>) {
    let expiration = source.get("expirationSeconds");
    if expiration.number() < 600 {
        expiration.invalid_number("may not specify a duration less than 10 minutes");
    }
    if expiration.number() > 1 << 32 {
        expiration.invalid("may not specify a duration larger than 2^32 seconds");
    }
    let path = volume.get("path");
    let path = path.with(source.value().get("path").unwrap_or(&Value::Null));
    if path.need() {
        not_reserved(&path);
    }
}

fn trust_bundle(source: &At<'_>) {
    let (name, signer, selector) =
        (source.get("name"), source.get("signerName"), source.get("labelSelector"));
    match (!name.is_absent(), !signer.is_absent()) {
        (true, true) => source.invalid("only one of name and signerName may be used"),
        (true, false) => {
            if name.is_empty() {
                name.required("must be a valid object name");
            }
            for fault in bundle_name(name.text()) {
                name.invalid(&format!("not a valid clustertrustbundlename: {fault}"));
            }
            if !selector.is_absent() {
                selector.invalid("labelSelector must be unset if name is specified");
            }
        }
        (false, true) => {
            if signer.is_empty() {
                signer.required("must be a valid signer name");
            }
            signer_name(&signer);
            label_selector(&selector, LabelRules::default());
        }
        (false, false) => source.required("either name or signerName must be specified"),
    }
    let path = source.get("path");
    path.need();
    not_reserved(&path);
}

/// A bundle is named for its signer, `example.com:signer:name`, or for none.
fn bundle_name(name: &str) -> Vec<String> {
    names::dns_subdomain(name.rsplit(':').next().unwrap_or(name))
}

fn certificate(source: &At<'_>) {
    signer_name(&source.get("signerName"));
    user_annotations(&source.get("userAnnotations"));
    source.get("keyType").one_of(&[
        "RSA3072",
        "RSA4096",
        "ECDSAP256",
        "ECDSAP384",
        "ECDSAP521",
        "ED25519",
    ]);
    let host = source.get("signerName");
    let host = host.text().split('/').next().unwrap_or("");
    let of_kubernetes = host == "kubernetes.io" || host.ends_with(".kubernetes.io");
    let longest = if of_kubernetes { 86_400 } else { 91 * 86_400 };
    let expiration = source.get("maxExpirationSeconds");
    if let Some(seconds) = expiration.int() {
        if seconds < 3600 {
            expiration.invalid("if provided, maxExpirationSeconds must be >= 3600");
        }
        if seconds > longest {
            expiration.invalid(&format!("if provided, maxExpirationSeconds must be <= {longest}"));
        }
    }
    let paths = ["credentialBundlePath", "keyPath", "certificateChainPath"];
    for key in paths.into_iter().filter(|key| !source.get(key).is_empty()) {
        not_reserved(&source.get(key));
    }
    if paths.iter().all(|key| source.get(key).is_empty()) {
        source.required(
            "specify at least one of credentialBundlePath, keyPath, and certificateChainPath",
        );
    }
}

fn user_annotations(annotations: &At<'_>) {
    for (key, _) in annotations.entries() {
        let key = key.to_lowercase();
        let shown = Value::from(key.as_str());
        let faults = names::qualified_name(&key);
        for fault in &faults {
            annotations.invalid_as(&shown, fault);
        }
        if faults.is_empty() && key.split('/').count() != 2 {
            let detail = "must be a domain-prefixed key (such as \"acme.io/foo\")";
            annotations.invalid_as(&shown, detail);
        }
    }
}
