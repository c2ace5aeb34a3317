//! Pods and pod templates.

use std::collections::HashSet;

use serde_json::Value;

use super::{Warnings, addresses, listed, nodes, paths, ports, storage};
use crate::check::At;
use crate::value::text;

const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
const LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

pub(super) fn pod(warnings: &Warnings, pod: &At<'_>) {
    // An update of a pod changes little of it.
    if pod.old().is_some() {
        return;
    }
    let meta = pod.get("metadata");
    let faults = api::names::dns_label(meta.get("name").text());
    if !faults.is_empty() {
        warnings.add(format!("metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: {}", listed(&faults)));
    }
    both(warnings, pod, false);
}

pub(super) fn template(warnings: &Warnings, template: &At<'_>) {
    if !template.is_absent() {
        both(warnings, template, true);
    }
}

/// Metadata and spec of a pod or a template.
fn both(warnings: &Warnings, pod: &At<'_>, is_template: bool) {
    let (meta, spec) = (pod.get("metadata"), pod.get("spec"));
    let annotations = meta.get("annotations");
    selectors(warnings, &spec);
    old_annotations(warnings, &annotations);
    for volume in spec.get("volumes").items() {
        old_volume(warnings, &volume);
        let ephemeral = volume.get("ephemeral");
        storage::claim_spec(warnings, &ephemeral.get("volumeClaimTemplate").get("spec"));
    }
    paths::overlaps(warnings, &spec.get("volumes"));
    lists(warnings, &spec);
    let overhead = spec.get("overhead");
    for name in ["memory", "ephemeral-storage"] {
        storage::fraction(warnings, &overhead.key(name));
    }
    let security = spec.get("securityContext");
    let seccomp = annotations.key(SECCOMP_POD);
    if security.get("seccompProfile").is_absent() && !seccomp.is_absent() {
        warnings
            .at(&seccomp, r#"non-functional in v1.27+; use the "seccompProfile" field instead"#);
    }
    let profile = is_template.then(|| security.get("appArmorProfile").value());
    for list in LISTS {
        for container in spec.get(list).items() {
            self::annotations(warnings, (&annotations, profile), &container);
            amounts(warnings, &container);
            env(warnings, &container);
        }
    }
    ports::ports(warnings, &spec);
    let grace = spec.get("terminationGracePeriodSeconds");
    if grace.number() < 0 {
        warnings.at(&grace, "must be >= 0; negative values are invalid and will be treated as 1");
    }
    affinity(warnings, &spec.get("affinity"));
    let dns = spec.get("dnsConfig");
    dns.get("nameservers").items().for_each(|server| addresses::ip(warnings, &server));
    spec.get("hostAliases").items().for_each(|alias| addresses::ip(warnings, &alias.get("ip")));
}

/// What selects nodes.
fn selectors(warnings: &Warnings, spec: &At<'_>) {
    let selector = spec.get("nodeSelector");
    for (key, at) in selector.entries() {
        if let Some(instead) = nodes::deprecated_label(key) {
            warnings.at(&at, instead);
        }
    }
    let affinity = spec.get("affinity");
    let affinity = affinity.get("nodeAffinity");
    let required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution");
    for term in required.get("nodeSelectorTerms").items() {
        nodes::term(warnings, &term, false);
    }
    for term in affinity.get("preferredDuringSchedulingIgnoredDuringExecution").items() {
        nodes::term(warnings, &term.get("preference"), true);
    }
    for constraint in spec.get("topologySpreadConstraints").items() {
        let key = constraint.get("topologyKey");
        if let Some(instead) = nodes::deprecated_label(key.text()) {
            warnings.at(&key, format!("{} is {instead}", key.text()));
        }
        null_selector(warnings, &constraint);
    }
}

fn null_selector(warnings: &Warnings, term: &At<'_>) {
    let selector = term.get("labelSelector");
    if selector.is_absent() {
        warnings.at(&selector, "a null labelSelector results in matching no pod");
    }
}

fn affinity(warnings: &Warnings, affinity: &At<'_>) {
    for kind in ["podAffinity", "podAntiAffinity"] {
        let terms = affinity.get(kind);
        for term in terms.get("requiredDuringSchedulingIgnoredDuringExecution").items() {
            null_selector(warnings, &term);
        }
        for term in terms.get("preferredDuringSchedulingIgnoredDuringExecution").items() {
            null_selector(warnings, &term.get("podAffinityTerm"));
        }
    }
}

fn old_annotations(warnings: &Warnings, annotations: &At<'_>) {
    for (key, instead) in [
        (
            "scheduler.alpha.kubernetes.io/critical-pod",
            "non-functional in v1.16+; use the \"priorityClassName\" field instead",
        ),
        (
            "security.alpha.kubernetes.io/sysctls",
            "non-functional in v1.11+; use the \"sysctls\" field instead",
        ),
        (
            "security.alpha.kubernetes.io/unsafe-sysctls",
            "non-functional in v1.11+; use the \"sysctls\" field instead",
        ),
    ] {
        let at = annotations.key(key);
        if !at.is_absent() {
            warnings.at(&at, instead);
        }
    }
}

fn old_volume(warnings: &Warnings, volume: &At<'_>) {
    for (field, shown, state) in [
        (
            "photonPersistentDisk",
            "photonPersistentDisk",
            "deprecated in v1.11, non-functional in v1.16+",
        ),
        ("gitRepo", "gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
        ("scaleIO", "scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
        ("flocker", "flocker", "deprecated in v1.22, non-functional in v1.25+"),
        ("storageos", "storageOS", "deprecated in v1.22, non-functional in v1.25+"),
        ("quobyte", "quobyte", "deprecated in v1.22, non-functional in v1.25+"),
        ("glusterfs", "glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
        ("cephfs", "cephfs", "deprecated in v1.28, non-functional in v1.31+"),
        ("rbd", "rbd", "deprecated in v1.28, non-functional in v1.31+"),
    ] {
        let source = volume.get_as(field, shown);
        if !source.is_absent() {
            warnings.at(&source, state);
        }
    }
}

/// Items of lists that should be there once.
fn lists(warnings: &Warnings, spec: &At<'_>) {
    for (list, field) in [("hostAliases", "ip"), ("imagePullSecrets", "name")] {
        let mut seen = HashSet::new();
        for item in spec.get(list).items() {
            let at = item.get(field);
            if !seen.insert(text(&item.value()[field])) {
                warnings.at(&at, format!("duplicate {field} {:?}", at.text()));
            }
        }
    }
    for secret in spec.get("imagePullSecrets").items() {
        let name = secret.get("name");
        if name.is_empty() {
            warnings.at(&name, "invalid empty name \"\"");
        }
    }
}

/// Annotations about a container that fields have replaced. A template's own AppArmor profile says
/// the same as an equal annotation; annotations of pods are told when they become fields.
fn annotations(warnings: &Warnings, (all, profile): (&At<'_>, Option<&Value>), container: &At<'_>) {
    let name = container.get("name").text();
    let security = container.get("securityContext");
    let (seccomp, armor) = (format!("{SECCOMP_CONTAINER}{name}"), format!("{APP_ARMOR}{name}"));
    if security.get("seccompProfile").is_absent() && !all.key(&seccomp).is_absent() {
        let instead = r#"non-functional in v1.27+; use the "seccompProfile" field instead"#;
        warnings.at(&all.key(&seccomp), instead);
    }
    let Some(profile) = profile else { return };
    let at = all.key(&armor);
    if at.is_absent() || !security.get("appArmorProfile").is_absent() {
        return;
    }
    if profile.is_null() || crate::app_armor_profile(at.text()).as_ref() != Some(profile) {
        warnings.at(&at, r#"deprecated since v1.30; use the "appArmorProfile" field instead"#);
    }
}

fn amounts(warnings: &Warnings, container: &At<'_>) {
    let resources = container.get("resources");
    for name in ["memory", "ephemeral-storage"] {
        for part in ["limits", "requests"] {
            storage::fraction(warnings, &resources.get(part).key(name));
        }
    }
}

/// A later variable may extend an earlier one of its name, but not replace it.
fn env(warnings: &Warnings, container: &At<'_>) {
    let mut seen = HashSet::new();
    for item in container.get("env").items() {
        let name = text(&item.value()["name"]);
        if seen.insert(name) {
            continue;
        }
        let (value, reference) = (text(&item.value()["value"]), format!("$({name})"));
        let extends = value.contains(&reference) && value != reference;
        if !extends || !item.get("valueFrom").is_absent() {
            warnings.at(
                &item,
                format!(
                    "hides previous definition of {name:?}, which may be dropped when using apply"
                ),
            );
        }
    }
}
