//! Rules of single volume sources; persistent volumes share most of them.

use api::names;
use api::quantity::Quantity;
use serde_json::Value;

use crate::check::At;
use crate::formats::has_backsteps;
use crate::shared::csi_driver_name;

const MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";

/// Fields that must be there.
pub(crate) fn needs(source: &At<'_>, fields: &[&str]) {
    for field in fields {
        source.get(field).need();
    }
}

pub(super) fn empty_dir(source: &At<'_>) {
    let limit = source.get("sizeLimit");
    let negative = limit.value().as_str().and_then(|t| Quantity::parse(t).ok());
    if negative.is_some_and(|q| q.is_negative()) {
        limit.forbidden("SizeLimit field must be a valid resource quantity");
    }
}

pub(crate) fn host_path(source: &At<'_>) {
    let path = source.get("path");
    if !path.need() {
        return;
    }
    no_backsteps(&path);
    source.get("type").one_of_if_set(&[
        "",
        "BlockDevice",
        "CharDevice",
        "Directory",
        "DirectoryOrCreate",
        "File",
        "FileOrCreate",
        "Socket",
    ]);
}

pub(crate) fn no_backsteps(path: &At<'_>) {
    if has_backsteps(path.text()) {
        path.invalid("must not contain '..'");
    }
}

/// A path below something.
pub(crate) fn descending(path: &At<'_>) {
    if path.text().starts_with('/') {
        path.invalid("must be a relative path");
    }
    no_backsteps(path);
}

/// A path below a volume, where names that begin with two dots are the kubelet's.
pub(crate) fn not_reserved(path: &At<'_>) {
    descending(path);
    if path.text().starts_with("..") && !path.text().starts_with("../") {
        path.invalid("must not start with '..'");
    }
}

pub(crate) fn file_mode(mode: &At<'_>) {
    if mode.int().is_some_and(|mode| !(0..=0o777).contains(&mode)) {
        mode.invalid(MODE);
    }
}

pub(super) fn git_repo(source: &At<'_>) {
    source.get("repository").need();
    descending(&source.get("directory"));
}

fn partition(source: &At<'_>) {
    let partition = source.get("partition");
    if !(0..=255).contains(&partition.number()) {
        partition.invalid("must be between 1 and 255, inclusive");
    }
}

pub(crate) fn gce_disk(source: &At<'_>) {
    source.get("pdName").need();
    partition(source);
}

pub(crate) fn aws_disk(source: &At<'_>) {
    source.get("volumeID").need();
    partition(source);
}

/// Secrets and ConfigMaps as volumes.
pub(super) fn keyed(source: &At<'_>, name: &str) {
    source.get(name).need();
    file_mode(&source.get("defaultMode"));
    for item in source.get("items").items() {
        key_to_path(&item);
    }
}

pub(super) fn key_to_path(item: &At<'_>) {
    item.get("key").need();
    let path = item.get("path");
    path.need();
    not_reserved(&path);
    file_mode(&item.get("mode"));
}

pub(crate) fn nfs(source: &At<'_>) {
    source.get("server").need();
    let path = source.get("path");
    path.need();
    if !path.text().starts_with('/') {
        path.invalid_text("must be an absolute path");
    }
}

/// An initiator or target name; `inline` says which of upstream's two sentences it takes.
fn iscsi_name(at: &At<'_>, inline: bool) {
    let name = at.text();
    let alnum = |t: &str, n: usize| t.len() == n && t.bytes().all(|c| c.is_ascii_alphanumeric());
    let fits = match name.get(..3) {
        Some("iqn") => is_iqn(name),
        Some("eui") => name.len() > 4 && alnum(&name[4..], 16),
        Some("naa") => name.len() > 4 && alnum(&name[4..], 32),
        _ => {
            let detail = match inline {
                true => "must be valid format starting with iqn, eui, or naa",
                false => "must be valid format",
            };
            return at.invalid(detail);
        }
    };
    if !fits {
        at.invalid("must be valid format");
    }
}

/// `iqn.yyyy-mm.domain:identifier`
fn is_iqn(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("iqn.") else { return false };
    let digits = |t: Option<&str>| t.is_some_and(|t| t.bytes().all(|c| c.is_ascii_digit()));
    let dated = digits(rest.get(..4)) && rest.get(4..5) == Some("-") && digits(rest.get(5..7));
    let Some(domain) = rest.get(7..).and_then(|r| r.strip_prefix('.')).filter(|_| dated) else {
        return false;
    };
    let Some((domain, id)) = domain.split_once(':') else { return false };
    let in_domain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    let in_id = |c: char| !matches!(c, ',' | ';' | '*' | '&' | '$' | '|') && !c.is_whitespace();
    !domain.is_empty() && domain.chars().all(in_domain) && !id.is_empty() && id.chars().all(in_id)
}

pub(crate) fn iscsi(source: &At<'_>, inline: bool) {
    source.get("targetPortal").need();
    let iqn = source.get("iqn");
    if iqn.need() {
        iscsi_name(&iqn, inline);
    }
    let lun = source.get("lun");
    if !(0..=255).contains(&lun.number()) {
        lun.invalid("must be between 0 and 255, inclusive");
    }
    let secret = source.get("secretRef");
    let authenticated =
        source.get("chapAuthDiscovery").is_true() || source.get("chapAuthSession").is_true();
    if authenticated && secret.is_absent() {
        secret.required("");
    }
    if !inline && !secret.is_absent() {
        secret.get("name").need();
    }
    let initiator = source.get_as("initiatorName", "initiatorname");
    if !initiator.is_absent() {
        iscsi_name(&initiator, inline);
    }
}

pub(crate) fn flocker(source: &At<'_>) {
    let (name, uuid) = (source.get("datasetName"), source.get("datasetUUID"));
    if name.is_empty() && uuid.is_empty() {
        source.required("one of datasetName and datasetUUID is required");
    }
    if !name.is_empty() && !uuid.is_empty() {
        let detail = "datasetName and datasetUUID can not be specified simultaneously";
        source.invalid_as(&"resource".into(), detail);
    }
    if name.text().contains('/') {
        name.invalid("must not contain '/'");
    }
}

pub(crate) fn cinder(source: &At<'_>, persistent: bool) {
    source.get("volumeID").need();
    secret_ref(source, persistent);
}

fn secret_ref(source: &At<'_>, persistent: bool) {
    let secret = source.get("secretRef");
    if secret.is_absent() {
        return;
    }
    secret.get("name").need();
    if persistent {
        secret.get("namespace").need();
    }
}

pub(crate) fn quobyte(source: &At<'_>) {
    const PAIRS: &str = "must be a host:port pair or multiple pairs separated by commas";
    let (registry, tenant) = (source.get("registry"), source.get("tenant"));
    if registry.is_empty() {
        registry.required(PAIRS);
    } else if tenant.text().len() >= 65 {
        tenant.required("must be a UUID and may not exceed a length of 64 characters");
    } else {
        for pair in registry.text().split(',') {
            let bare = pair.rsplit_once(':').map(|(host, _)| host);
            let split =
                bare.is_some_and(|h| !h.contains(':') || (h.starts_with('[') && h.ends_with(']')));
            if !split {
                registry.invalid(PAIRS);
            }
        }
    }
    source.get("volume").need();
}

pub(crate) fn fibre_channel(source: &At<'_>) {
    let (targets, ids, lun) = (source.get("targetWWNs"), source.get("wwids"), source.get("lun"));
    if targets.is_empty() && ids.is_empty() {
        targets.required("must specify either targetWWNs or wwids, but not both");
    }
    if !targets.is_empty() && !ids.is_empty() {
        targets.invalid("targetWWNs and wwids can not be specified simultaneously");
    }
    if !targets.is_empty() {
        match lun.int() {
            None => lun.required("lun is required if targetWWNs is specified"),
            Some(0..=255) => {}
            Some(_) => lun.invalid("must be between 0 and 255, inclusive"),
        }
    }
}

pub(crate) fn flex(source: &At<'_>) {
    source.get("driver").need();
    let options = source.get("options");
    for (key, _) in options.entries() {
        let namespace = format!(".{}", key.split('/').next().unwrap_or("").to_lowercase());
        if namespace.ends_with(".kubernetes.io") || namespace.ends_with(".k8s.io") {
            let detail = "kubernetes.io and k8s.io namespaces are reserved";
            options.key(key).invalid_as(&key.into(), detail);
        }
    }
}

pub(crate) fn azure_disk(source: &At<'_>) {
    source.get("diskName").need();
    let uri = source.get("diskURI");
    uri.need();
    source.get("cachingMode").one_of_if_set(&["None", "ReadOnly", "ReadWrite"]);
    let kind = source.get("kind");
    kind.one_of_if_set(&["Dedicated", "Managed", "Shared"]);
    let managed = kind.text() == "Managed";
    if kind.is_absent() {
        return;
    }
    if managed && !uri.text().starts_with("/subscriptions/") {
        uri.not_supported(&["/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}"]);
    }
    if !managed && !uri.text().starts_with("https://") {
        uri.not_supported(&[
            "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd",
        ]);
    }
}

pub(crate) fn storageos(source: &At<'_>, persistent: bool) {
    let (name, namespace) = (source.get("volumeName"), source.get("volumeNamespace"));
    if name.need() {
        name.named(names::dns_label);
    }
    if !namespace.is_empty() {
        namespace.named(names::dns_label);
    }
    secret_ref(source, persistent);
}

pub(super) fn csi_inline(source: &At<'_>) {
    csi_driver_name(&source.get("driver"));
    let secret = source.get("nodePublishSecretRef");
    if secret.is_absent() {
        return;
    }
    let name = secret.get("name");
    if name.need() {
        for fault in names::dns_subdomain(name.text()) {
            source.get("name").invalid_as(name.value(), &fault);
        }
    }
}

/// A claim's, secret's or file's path that occurs twice in one volume.
pub(super) fn take_path<'a>(taken: &mut Vec<&'a str>, path: &'a Value) -> bool {
    let path = path.as_str().unwrap_or("");
    let fresh = !taken.contains(&path);
    taken.push(path);
    fresh
}
