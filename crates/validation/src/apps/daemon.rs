//! DaemonSets.

use serde_json::{Value, json};

use super::{counts, is_empty, not_decremented, runs_always, selects_template};
use crate::check::At;
use crate::core::pod;
use crate::shared::{
    LabelRules, at_most_hundred_percent, label_selector, number_of, number_or_percent,
};
use crate::value::set_default;
use crate::{Kind, PLAIN};

pub(crate) static KIND: Kind = Kind {
    default,
    create: |set| spec(&set.get("spec")),
    update: |set| {
        let at = set.get("spec");
        at.get("selector").immutable();
        spec(&at);
    },
    status: |set| status(&set.get("status")),
    ..PLAIN
};

/// Where version 1 keeps the number of changes of the template.
const GENERATION: &str = "deprecated.daemonset.template.generation";

fn default(object: &mut Value) {
    if let Some(meta) = object.get_mut("metadata").filter(|m| m.is_object()) {
        set_default(meta, "annotations", json!({}));
        set_default(&mut meta["annotations"], GENERATION, "0");
    }
    let Some(spec) = object.get_mut("spec").filter(|s| s.is_object()) else { return };
    pod::default_template(&mut spec["template"]);
    let strategy = &mut spec["updateStrategy"];
    if strategy["type"] == "RollingUpdate" {
        set_default(strategy, "rollingUpdate", json!({}));
        for (field, value) in [("maxUnavailable", 1), ("maxSurge", 0)] {
            if strategy["rollingUpdate"][field].is_null() {
                strategy["rollingUpdate"][field] = value.into();
            }
        }
    }
}

fn spec(spec: &At<'_>) {
    let (at, template) = (spec.get("selector"), spec.get("template"));
    label_selector(&at, LabelRules::default());
    selects_template(&at, &template);
    if !at.is_absent() && is_empty(at.value()) {
        at.invalid("empty selector is invalid for daemonset");
    }
    pod::template(&template);
    runs_always(&template, "DaemonSet");
    spec.get("minReadySeconds").non_negative();
    strategy(&spec.get("updateStrategy"));
    spec.get("revisionHistoryLimit").non_negative();
}

fn strategy(at: &At<'_>) {
    match at.get("type").text() {
        "OnDelete" => {}
        "RollingUpdate" if at.get("rollingUpdate").is_absent() => {
            at.get("rollingUpdate").required("");
        }
        "RollingUpdate" => rolling(&at.get("rollingUpdate")),
        _ => {
            at.not_supported_struct("apps.DaemonSetUpdateStrategy", &["RollingUpdate", "OnDelete"])
        }
    }
}

fn rolling(at: &At<'_>) {
    let (unavailable, surge) = (at.get("maxUnavailable"), at.get("maxSurge"));
    number_or_percent(&unavailable);
    number_or_percent(&surge);
    at_most_hundred_percent(&unavailable);
    at_most_hundred_percent(&surge);
    match (number_of(unavailable.value()) != 0, number_of(surge.value()) != 0) {
        (true, true) => surge.invalid("may not be set when maxUnavailable is non-zero"),
        (false, false) => unavailable.required("cannot be 0 when maxSurge is 0"),
        _ => {}
    }
}

fn status(status: &At<'_>) {
    counts(
        status,
        &[
            "currentNumberScheduled",
            "numberMisscheduled",
            "desiredNumberScheduled",
            "numberReady",
            "observedGeneration",
            "updatedNumberScheduled",
            "numberAvailable",
            "numberUnavailable",
            "collisionCount",
        ],
    );
    not_decremented(&status.get("collisionCount"));
}

/// Sets the number of the template: 1, or the former and one more for each change.
pub fn count_template(set: &mut Value, old: Option<&Value>) {
    let count = old.map_or(1, |old| {
        let text = old["metadata"]["annotations"][GENERATION].as_str().unwrap_or("");
        let changed = !crate::golang::same(&old["spec"]["template"], &set["spec"]["template"]);
        text.parse::<i64>().unwrap_or(0) + i64::from(changed)
    });
    set["metadata"]["annotations"][GENERATION] = count.to_string().into();
}
