//! What depends on the operating system, on the node's own namespaces and on user namespaces.

use std::collections::HashSet;

use api::names;
use serde_json::Value;

use super::Pod;
use crate::check::At;

/// Every container of a spec with its place, init containers first.
pub(super) fn each_container(spec: &At<'_>, mut visit: impl FnMut(&At<'_>)) {
    for kind in ["initContainers", "containers", "ephemeralContainers"] {
        spec.get(kind).items().for_each(|container| visit(&container));
    }
}

pub(super) fn os(spec: &At<'_>, pod: &Pod<'_>) {
    let os = spec.get("os");
    if os.is_absent() {
        return;
    }
    let name = os.get("name");
    if name.is_empty() {
        return name.required("");
    }
    match pod.os {
        Some("linux") => linux(spec),
        Some("windows") => windows(spec),
        _ => os.not_supported_as(name.value(), &["linux", "windows"]),
    }
}

fn linux(spec: &At<'_>) {
    let refuse = |context: &At<'_>| {
        let options = context.get("windowsOptions");
        if !options.is_absent() {
            options.forbidden("windows options cannot be set for a linux pod");
        }
    };
    refuse(&spec.get("securityContext"));
    each_container(spec, |container| refuse(&container.get("securityContext")));
}

/// Field in upstream's order; those that stand in the spec are told there.
const WINDOWS_POD: [(&str, bool); 15] = [
    ("appArmorProfile", false),
    ("seLinuxOptions", false),
    ("hostUsers", true),
    ("hostPID", true),
    ("hostIPC", true),
    ("seccompProfile", false),
    ("fsGroup", false),
    ("fsGroupChangePolicy", false),
    ("sysctls", false),
    ("shareProcessNamespace", true),
    ("runAsUser", false),
    ("runAsGroup", false),
    ("supplementalGroups", false),
    ("supplementalGroupsPolicy", false),
    ("seLinuxChangePolicy", false),
];

const WINDOWS_CONTAINER: [&str; 10] = [
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "capabilities",
    "readOnlyRootFilesystem",
    "privileged",
    "allowPrivilegeEscalation",
    "procMount",
    "runAsUser",
    "runAsGroup",
];

fn windows(spec: &At<'_>) {
    const WHY: &str = "cannot be set for a windows pod";
    let context = spec.get("securityContext");
    for (field, in_spec) in WINDOWS_POD {
        let at = if in_spec { spec.get(field) } else { context.get(field) };
        let plain = matches!(field, "hostPID" | "hostIPC");
        let set = if plain { at.is_true() } else { !at.is_absent() };
        if set && !(field == "sysctls" && at.is_empty()) {
            at.forbidden(WHY);
        }
    }
    each_container(spec, |container| {
        let context = container.get("securityContext");
        for field in WINDOWS_CONTAINER {
            if !context.get(field).is_absent() {
                context.get(field).forbidden(WHY);
            }
        }
    });
}

/// HostProcess containers are all or none, and on the host's network.
pub(super) fn host_process(spec: &At<'_>) {
    let flag = |context: &Value| context["windowsOptions"]["hostProcess"].as_bool();
    let of_pod = flag(&spec.value()["securityContext"]);
    let (mut all, mut host) = (0, 0);
    each_container(spec, |container| {
        all += 1;
        let context = container.get("securityContext");
        let own = flag(context.value());
        if let (Some(pod), Some(own)) = (of_pod, own)
            && pod != own
        {
            let detail =
                format!("pod hostProcess value must be identical if both are specified, was {pod}");
            let options = context.get("windowsOptions");
            options.get("hostProcess").invalid(&detail);
        }
        host += usize::from(own.or(of_pod) == Some(true));
    });
    if host == 0 {
        return;
    }
    if host != all {
        spec.invalid_as(&"".into(), "If pod contains any hostProcess containers then all containers must be HostProcess containers");
    }
    let network = spec.get("hostNetwork");
    if !network.is_true() {
        let detail = "hostNetwork must be true if pod contains any hostProcess containers";
        network.invalid_as(&false.into(), detail);
    }
}

/// A pod with users of its own shares no namespace of the node.
pub(super) fn host_users(spec: &At<'_>, pod: &Pod<'_>) {
    const WHY: &str = "when `hostUsers` is false";
    if pod.host_users {
        return;
    }
    for (field, shown) in
        [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")]
    {
        if spec.get(field).is_true() {
            spec.get(shown).forbidden(WHY);
        }
    }
    each_container(spec, |container| {
        let devices = container.get("volumeDevices");
        if !devices.is_empty() {
            devices.forbidden(WHY);
        }
    });
}

pub(super) fn host_name(spec: &At<'_>) {
    let name = spec.get("hostnameOverride");
    if name.is_absent() {
        return;
    }
    if spec.get("setHostnameAsFQDN").is_true() {
        name.forbidden("may not be specified when setHostnameAsFQDN is true");
    }
    if spec.get("hostNetwork").is_true() {
        name.forbidden("may not be specified when hostNetwork is true");
    }
    if name.text().len() > 64 {
        name.too_long(64);
    }
    name.named(names::dns_subdomain);
}

/// On the host's network a container's port is the node's.
pub(super) fn host_network_ports(spec: &At<'_>, pod: &Pod<'_>) {
    if !spec.get("hostNetwork").is_true() {
        return;
    }
    for container in spec.get("containers").items() {
        for port in container.get("ports").items() {
            let (host, own) = (port.get("hostPort"), port.get("containerPort"));
            if (pod.is_pod || host.number() != 0) && host.number() != own.number() {
                let detail = "must match `containerPort` when `hostNetwork` is true";
                host.invalid_number(detail);
            }
        }
    }
}

/// A file with variables lies in an emptyDir of the pod.
pub(super) fn file_key_volumes(spec: &At<'_>) {
    let volumes = spec.value()["volumes"].as_array().map_or(&[][..], Vec::as_slice);
    each_container(spec, |container| {
        for variable in container.get("env").items() {
            let from = variable.get("valueFrom");
            let file = from.get("fileKeyRef");
            if file.is_absent() {
                continue;
            }
            let name = file.get("volumeName");
            match volumes.iter().rfind(|v| v["name"].as_str().unwrap_or("") == name.text()) {
                None => name.not_found(),
                Some(volume) if volume["emptyDir"].is_null() => {
                    name.invalid_text("referenced volume must be of type emptyDir");
                }
                Some(_) => {}
            }
        }
    });
}

pub(super) fn resource_claims(list: &At<'_>, is_mirror: bool) {
    let mut seen: HashSet<String> = HashSet::new();
    for claim in list.items() {
        if is_mirror {
            list.report_at(
                "",
                "FieldValueForbidden",
                "Forbidden: static pods do not support resource claims",
            );
            continue;
        }
        let name = claim.get("name");
        if name.need() {
            if seen.contains(name.text()) {
                name.duplicate();
            } else {
                name.named(names::dns_label);
                seen.insert(name.text().to_owned());
            }
        }
        let (of, from) = (claim.get("resourceClaimName"), claim.get("resourceClaimTemplateName"));
        match (of.is_absent(), from.is_absent()) {
            (false, false) => claim.invalid_struct("core.PodResourceClaim", "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified"),
            (true, true) => claim.invalid_struct("core.PodResourceClaim", "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"),
            _ => {}
        }
        for at in [of, from] {
            if !at.is_absent() {
                at.named(names::dns_subdomain);
            }
        }
    }
}
