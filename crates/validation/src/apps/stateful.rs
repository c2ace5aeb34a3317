//! StatefulSets.

use api::names;
use serde_json::{Value, json};

use super::{counts, is_empty, not_decremented, runs_always, selects_template, within_replicas};
use crate::check::{At, Check};
use crate::core::{claim, pod};
use crate::golang;
use crate::shared::{
    LabelRules, at_most_hundred_percent, label_selector, number_of, number_or_percent,
};
use crate::value::{items_mut, set_default};
use crate::{Kind, PLAIN};

pub(crate) static KIND: Kind = Kind {
    name: names::dns_label,
    default,
    create: |set| spec(&set.get("spec"), Skip::default()),
    update,
    status: |set| status(&set.get("status")),
    ..PLAIN
};

/// What an update does not check again.
#[derive(Clone, Copy, Default)]
struct Skip {
    service_name: bool,
    claims: bool,
    template: bool,
}

fn default(object: &mut Value) {
    let Some(spec) = object.get_mut("spec").filter(|s| s.is_object()) else { return };
    pod::default_template(&mut spec["template"]);
    set_default(spec, "updateStrategy", json!({}));
    let strategy = &mut spec["updateStrategy"];
    if strategy["type"].as_str().is_none_or(str::is_empty) {
        strategy["type"] = "RollingUpdate".into();
        set_default(strategy, "rollingUpdate", json!({}));
    }
    if strategy["type"] == "RollingUpdate" && strategy["rollingUpdate"].is_object() {
        set_default(&mut strategy["rollingUpdate"], "partition", 0);
    }
    set_default(spec, "persistentVolumeClaimRetentionPolicy", json!({}));
    for when in ["whenDeleted", "whenScaled"] {
        set_default(&mut spec["persistentVolumeClaimRetentionPolicy"], when, "Retain");
    }
    for template in items_mut(spec, "volumeClaimTemplates") {
        set_default(template, "apiVersion", "v1");
        set_default(template, "kind", "PersistentVolumeClaim");
        set_default(template, "status", json!({}));
        set_default(&mut template["status"], "phase", "Pending");
        claim::default_data_source(&mut template["spec"]);
    }
}

fn spec(spec: &At<'_>, skip: Skip) {
    let policy = spec.get("podManagementPolicy");
    if policy.need() && !matches!(policy.text(), "OrderedReady" | "Parallel") {
        policy.invalid("must be 'OrderedReady' or 'Parallel'");
    }
    strategy(&spec.get("updateStrategy"));
    let retention = spec.get("persistentVolumeClaimRetentionPolicy");
    if !retention.is_absent() {
        retention.get("whenDeleted").one_of(&["Retain", "Delete"]);
        retention.get("whenScaled").one_of(&["Retain", "Delete"]);
    }
    if !skip.claims {
        for template in spec.get("volumeClaimTemplates").items() {
            claim::spec(&template.get("spec"), claim::Rules::default());
        }
    }
    counts(spec, &["replicas", "minReadySeconds"]);
    let ordinals = spec.get("ordinals");
    let start = ordinals.get("start");
    if start.number() < 0 {
        spec.get("ordinals.start").invalid_as(start.value(), "must be greater than or equal to 0");
    }
    let service = spec.get("serviceName");
    if !skip.service_name && !service.is_empty() {
        service.named(names::dns_label);
    }
    selected(spec, skip);
}

fn selected(spec: &At<'_>, skip: Skip) {
    let (at, template) = (spec.get("selector"), spec.get("template"));
    if at.is_absent() {
        at.required("");
    } else {
        label_selector(&at, LabelRules::default());
        if is_empty(at.value()) {
            at.invalid("empty selector is invalid for statefulset");
        }
    }
    if selects_template(&at, &template) {
        let filled = with_claims(spec.value());
        let template = template.with(&filled);
        if !skip.template {
            pod::template(&template);
        }
        // Upstream looks at the template's metadata once more.
        pod::template_metadata(&template);
    } else {
        at.invalid("");
    }
    runs_always(&template, "StatefulSet");
}

/// The template with the volumes that the claims will be, without the names that are per pod.
fn with_claims(spec: &Value) -> Value {
    let mut template = spec["template"].clone();
    let Some(pod) = template.get_mut("spec").and_then(Value::as_object_mut) else {
        return template;
    };
    pod.remove("subdomain");
    pod.remove("hostname");
    let claims = spec["volumeClaimTemplates"].as_array().map_or(&[][..], Vec::as_slice);
    if claims.is_empty() {
        return template;
    }
    let mut volumes: Vec<Value> = Vec::new();
    for name in claims.iter().map(|claim| &claim["metadata"]["name"]) {
        let name = name.as_str().unwrap_or("");
        if !volumes.iter().any(|v| v["name"] == name) {
            volumes.push(json!({"name": name, "persistentVolumeClaim": {"claimName": name}}));
        }
    }
    let made = volumes.clone();
    if let Some(Value::Array(own)) = pod.get("volumes") {
        volumes
            .extend(own.iter().filter(|v| !made.iter().any(|m| m["name"] == v["name"])).cloned());
    }
    pod.insert("volumes".into(), volumes.into());
    template
}

fn strategy(at: &At<'_>) {
    let rolling = at.get("rollingUpdate");
    match at.get("type").text() {
        "" => at.required(""),
        "OnDelete" => {
            if !rolling.is_absent() {
                rolling.invalid_struct(
                    "apps.RollingUpdateStatefulSetStrategy",
                    "only allowed for updateStrategy 'RollingUpdate'",
                );
            }
        }
        "RollingUpdate" => {
            rolling.get("partition").non_negative();
            let most = rolling.get("maxUnavailable");
            if !most.is_absent() {
                number_or_percent(&most);
                if number_of(most.value()) == 0 {
                    most.invalid("cannot be 0");
                }
                at_most_hundred_percent(&most);
            }
        }
        _ => at.invalid_struct(
            "apps.StatefulSetUpdateStrategy",
            "must be 'RollingUpdate' or 'OnDelete'",
        ),
    }
}

const MUTABLE: [&str; 7] = [
    "replicas",
    "template",
    "updateStrategy",
    "minReadySeconds",
    "ordinals",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
];

fn update(set: &At<'_>) {
    let at = set.get("spec");
    let Some(old) = at.old() else { return };
    let skip = Skip { service_name: true, claims: true, template: false };
    let template = !is_sound(old, skip);
    spec(&at, Skip { template, ..skip });
    let (Some(mut now), Some(mut before)) =
        (at.value().as_object().cloned(), old.as_object().cloned())
    else {
        return;
    };
    for field in MUTABLE {
        now.remove(field);
        before.remove(field);
    }
    if !golang::same(&now.into(), &before.into()) {
        at.forbidden("updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden");
    }
}

/// Would the former state pass today?
fn is_sound(old: &Value, skip: Skip) -> bool {
    let check = Check::default();
    spec(&check.root(old, None), skip);
    check.into_causes().is_empty()
}

fn status(status: &At<'_>) {
    counts(
        status,
        &[
            "replicas",
            "readyReplicas",
            "currentReplicas",
            "updatedReplicas",
            "availableReplicas",
            "observedGeneration",
            "collisionCount",
        ],
    );
    let parts = ["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"];
    within_replicas(status, &parts, "status.readyReplicas");
    not_decremented(&status.get("collisionCount"));
}
