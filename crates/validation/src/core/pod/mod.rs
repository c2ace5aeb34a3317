//! Pods and what a pod's spec must be, alone or in a template.

mod annotations;
mod containers;
mod defaults;
mod env;
mod mounts;
mod prepare;
mod probes;
mod projected;
mod resize;
mod resources;
mod scheduling;
mod security;
pub(crate) mod sources;
mod status;
mod system;
mod template;
mod update;
mod volumes;

#[cfg(test)]
mod tests;

use std::collections::HashMap;

use api::names;
use serde_json::Value;

use crate::check::At;
use crate::{Kind, PLAIN};

pub use annotations::app_armor_profile;
pub(crate) use defaults::default_template;
pub use prepare::{prepare_ephemeral, prepare_pod, prepare_pod_status, prepare_resize};
pub(crate) use resources::{aggregate, overhead};
pub(crate) use scheduling::{EFFECTS, tolerations};
pub(crate) use template::{template, template_metadata};

pub(crate) static KIND: Kind = Kind {
    default: defaults::default_pod,
    create,
    update: update::update,
    status: status::status,
    again: true,
    ..PLAIN
};

/// What the checks of a spec's parts ask about the whole.
pub(super) struct Pod<'a> {
    /// A pod, not a template: nothing will be filled in later.
    pub(super) is_pod: bool,
    /// The pod's name; empty in templates.
    pub(super) name: &'a str,
    pub(super) spec: &'a Value,
    pub(super) volumes: HashMap<&'a str, &'a Value>,
    pub(super) claims: Vec<&'a str>,
    pub(super) grace: Option<i64>,
    pub(super) host_users: bool,
    pub(super) restart: &'a str,
    pub(super) os: Option<&'a str>,
}

impl<'a> Pod<'a> {
    fn new(spec: &'a Value, name: Option<&'a str>) -> Pod<'a> {
        let claims = spec["resourceClaims"].as_array().into_iter().flatten();
        Pod {
            is_pod: name.is_some(),
            name: name.unwrap_or(""),
            spec,
            volumes: HashMap::new(),
            claims: claims.filter_map(|c| c["name"].as_str().filter(|n| !n.is_empty())).collect(),
            grace: spec["terminationGracePeriodSeconds"].as_i64(),
            host_users: spec["hostUsers"] != false,
            restart: spec["restartPolicy"].as_str().unwrap_or(""),
            os: spec["os"].get("name").map(|name| name.as_str().unwrap_or("")),
        }
    }

    /// A volume that containers may use.
    pub(super) fn volume(&self, name: &str) -> Option<&'a Value> {
        self.volumes.get(name).copied()
    }
}

fn create(pod: &At<'_>) {
    metadata_and_spec(pod);
    let spec = pod.get("spec");
    let ephemeral = spec.get("ephemeralContainers");
    if !ephemeral.is_empty() {
        ephemeral.forbidden("cannot be set on create");
    }
    let node = spec.get("nodeName");
    if !node.is_empty() && !spec.get("schedulingGates").is_empty() {
        node.forbidden("cannot be set until all schedulingGates have been cleared");
    }
    let meta = pod.get("metadata");
    annotations::agree_with_fields(&meta.get("annotations"), &spec);
}

/// What holds of a pod at any time.
pub(super) fn metadata_and_spec(pod: &At<'_>) {
    let (meta, spec) = (pod.get("metadata"), pod.get("spec"));
    let annotations = meta.get("annotations");
    annotations::specific(&annotations, &spec);
    let mirror = !annotations.get(annotations::MIRROR).is_absent();
    check_spec(&spec, Some(meta.get("name").text()), mirror);
    if spec.get("serviceAccountName").is_empty() && spec.get("serviceAccount").is_empty() {
        no_tokens(&spec);
    }
    for kind in ["containers", "initContainers"] {
        spec.get(kind).items().for_each(|container| containers::only_for_pod(&container));
    }
}

fn no_tokens(spec: &At<'_>) {
    for volume in spec.get("volumes").items() {
        let projected = volume.get("projected");
        for source in projected.get("sources").items() {
            let token = source.get("serviceAccountToken");
            if !token.is_absent() {
                token.forbidden("must not be specified when serviceAccountName is not set");
            }
        }
    }
}

/// A pod spec; `name` is the pod's, none in a template.
pub(super) fn check_spec(spec: &At<'_>, name: Option<&str>, mirror: bool) {
    let mut pod = Pod::new(spec.value(), name);
    spec.get("terminationGracePeriodSeconds").need_present();
    pod.volumes = volumes::volumes(&spec.get("volumes"), &pod);
    system::resource_claims(&spec.get("resourceClaims"), mirror);
    containers::containers(&spec.get("containers"), &pod);
    containers::init_containers(&spec.get("initContainers"), &pod);
    containers::ephemeral_containers(&spec.get("ephemeralContainers"), &pod);
    resources::of_pod(spec, &pod);
    system::host_network_ports(spec, &pod);
    spec.get("restartPolicy").need_one_of(&["Always", "OnFailure", "Never"]);
    spec.get("dnsPolicy").need_one_of(&[
        "ClusterFirstWithHostNet",
        "ClusterFirst",
        "Default",
        "None",
    ]);
    spec.get("nodeSelector").labels();
    security::pod(spec);
    scheduling::affinity(&spec.get("affinity"));
    scheduling::dns(spec);
    for gate in spec.get("readinessGates").items() {
        gate.get("conditionType").named(names::qualified_name);
    }
    scheduling::gates(&spec.get("schedulingGates"));
    scheduling::spread(&spec.get("topologySpreadConstraints"));
    system::host_process(spec);
    system::host_users(spec, &pod);
    system::host_name(spec);
    named_parts(spec);
    system::os(spec, &pod);
    system::file_key_volumes(spec);
}

/// Single fields with a syntax of their own.
fn named_parts(spec: &At<'_>) {
    let when_set = |field: &str, rule: fn(&str) -> Vec<String>| {
        let at = spec.get(field);
        if !at.is_empty() {
            at.named(rule);
        }
    };
    when_set("serviceAccountName", names::dns_subdomain);
    when_set("nodeName", names::dns_subdomain);
    let deadline = spec.get("activeDeadlineSeconds");
    if deadline.int().is_some_and(|s| !(1..=i64::from(i32::MAX)).contains(&s)) {
        deadline.invalid("must be between 1 and 2147483647, inclusive");
    }
    when_set("hostname", names::dns_label);
    when_set("subdomain", names::dns_label);
    tolerations(&spec.get("tolerations"));
    scheduling::host_aliases(&spec.get("hostAliases"));
    when_set("priorityClassName", names::dns_subdomain);
    let class = spec.get("runtimeClassName");
    if !class.is_absent() {
        class.named(names::dns_subdomain);
    }
    let preemption = spec.get("preemptionPolicy");
    if !preemption.is_absent() {
        preemption.need_one_of(&["PreemptLowerPriority", "Never"]);
    }
    let overhead = spec.get("overhead");
    if !overhead.is_absent() {
        resources::overhead(&overhead, overhead.value());
    }
}
