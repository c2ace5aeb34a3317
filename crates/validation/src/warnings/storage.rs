//! Volumes, claims, and the classes and drivers behind them.

use super::{Warnings, nodes};
use crate::check::At;
use crate::shared::quantity;

const OLD_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
const INSTEAD_OF_CLASS: &str = r#"deprecated since v1.8; use "storageClassName" attribute instead"#;

/// An amount of bytes that is no whole number.
pub(super) fn fraction(warnings: &Warnings, amount: &At<'_>) {
    let parsed = quantity::parse(amount.value());
    if parsed.is_some_and(|q| q.milli_value() % 1000 != 0) {
        let shown = match amount.value() {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        warnings
            .at(amount, format!("fractional byte value {shown:?} is invalid, must be an integer"));
    }
}

pub(super) fn claim_spec(warnings: &Warnings, spec: &At<'_>) {
    let resources = spec.get("resources");
    for part in ["requests", "limits"] {
        fraction(warnings, &resources.get(part).key("storage"));
    }
}

pub(super) fn claim(warnings: &Warnings, claim: &At<'_>) {
    let meta = claim.get("metadata");
    let old = meta.get("annotations");
    if !old.key(OLD_CLASS).is_absent() {
        warnings.at(&old.key(OLD_CLASS), INSTEAD_OF_CLASS);
    }
    claim_spec(warnings, &claim.get("spec"));
}

pub(super) fn volume(warnings: &Warnings, volume: &At<'_>) {
    const RECYCLE: &str = "The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.";
    let (meta, spec) = (volume.get("metadata"), volume.get("spec"));
    let annotations = meta.get("annotations");
    for (key, instead) in [
        (OLD_CLASS, INSTEAD_OF_CLASS),
        (
            "volume.beta.kubernetes.io/mount-options",
            r#"deprecated since v1.31; use "mountOptions" attribute instead"#,
        ),
    ] {
        if !annotations.key(key).is_absent() {
            warnings.at(&annotations.key(key), instead);
        }
    }
    let policy = spec.get("persistentVolumeReclaimPolicy");
    if policy.text() == "Recycle" {
        warnings.at(&policy, RECYCLE);
    }
    let required = spec.get("nodeAffinity");
    let required = required.get("required");
    for term in required.get("nodeSelectorTerms").items() {
        nodes::term(warnings, &term, false);
    }
    for (field, shown, state) in [
        ("cephfs", "cephfs", "deprecated in v1.28, non-functional in v1.31+"),
        (
            "photonPersistentDisk",
            "photonPersistentDisk",
            "deprecated in v1.11, non-functional in v1.16+",
        ),
        ("scaleIO", "scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
        ("storageos", "storageOS", "deprecated in v1.22, non-functional in v1.25+"),
        ("glusterfs", "glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
        ("rbd", "rbd", "deprecated in v1.28, non-functional in v1.31+"),
    ] {
        let source = spec.get_as(field, shown);
        if !source.is_absent() {
            warnings.at(&source, state);
        }
    }
}

pub(super) fn class(warnings: &Warnings, class: &At<'_>) {
    for topology in class.get("allowedTopologies").items() {
        for expression in topology.get("matchLabelExpressions").items() {
            let key = expression.get("key");
            if let Some(instead) = nodes::deprecated_label(key.text()) {
                warnings.at(&key, instead);
            }
        }
    }
}

pub(super) fn capacity(warnings: &Warnings, capacity: &At<'_>) {
    nodes::selector(warnings, &capacity.get("nodeTopology"));
}

pub(super) fn driver(warnings: &Warnings, driver: &At<'_>) {
    let spec = driver.get("spec");
    let tokens = spec.get("tokenRequests");
    let changed = driver.old().is_none() || !tokens.unchanged();
    if changed && !tokens.is_empty() && spec.get("serviceAccountTokenInSecrets").is_absent() {
        warnings.add("spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent possible logging of tokens in volume attributes");
    }
}
