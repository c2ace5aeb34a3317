//! Deployments.

use serde_json::{Value, json};

use super::{counts, not_decremented, replicated, selector, within_replicas};
use crate::check::At;
use crate::core::pod;
use crate::shared::{at_most_hundred_percent, number_of, number_or_percent};
use crate::value::set_default;
use crate::{Kind, PLAIN};

pub(crate) static KIND: Kind = Kind {
    default,
    create: |d| spec(&d.get("spec")),
    update: |d| {
        let at = d.get("spec");
        spec(&at);
        at.get("selector").immutable();
    },
    status: |d| status(&d.get("status")),
    ..PLAIN
};

fn default(object: &mut Value) {
    let Some(spec) = object.get_mut("spec").filter(|s| s.is_object()) else { return };
    pod::default_template(&mut spec["template"]);
    let strategy = &mut spec["strategy"];
    if strategy["type"] == "RollingUpdate" {
        set_default(strategy, "rollingUpdate", json!({}));
        for field in ["maxUnavailable", "maxSurge"] {
            if strategy["rollingUpdate"][field].is_null() {
                strategy["rollingUpdate"][field] = "25%".into();
            }
        }
    }
}

fn spec(spec: &At<'_>) {
    spec.get("replicas").non_negative();
    selector(&spec.get("selector"), "deployment");
    replicated(spec);
    strategy(&spec.get("strategy"));
    spec.get("minReadySeconds").non_negative();
    spec.get("revisionHistoryLimit").non_negative();
    let deadline = spec.get("progressDeadlineSeconds");
    deadline.non_negative();
    if deadline.int().is_some_and(|d| d <= spec.get("minReadySeconds").number()) {
        deadline.invalid("must be greater than minReadySeconds");
    }
}

fn strategy(at: &At<'_>) {
    let rolling = at.get("rollingUpdate");
    match at.get("type").text() {
        "Recreate" if !rolling.is_absent() => {
            rolling.forbidden("may not be specified when strategy `type` is 'Recreate'");
        }
        "Recreate" => {}
        "RollingUpdate" if rolling.is_absent() => {
            rolling.required("this should be defaulted and never be nil");
        }
        "RollingUpdate" => {
            let (unavailable, surge) = (rolling.get("maxUnavailable"), rolling.get("maxSurge"));
            number_or_percent(&unavailable);
            number_or_percent(&surge);
            if number_of(unavailable.value()) == 0 && number_of(surge.value()) == 0 {
                unavailable.invalid("may not be 0 when `maxSurge` is 0");
            }
            at_most_hundred_percent(&unavailable);
        }
        _ => at.not_supported_struct("apps.DeploymentStrategy", &["Recreate", "RollingUpdate"]),
    }
}

fn status(status: &At<'_>) {
    counts(
        status,
        &[
            "observedGeneration",
            "replicas",
            "updatedReplicas",
            "readyReplicas",
            "availableReplicas",
            "unavailableReplicas",
            "terminatingReplicas",
            "collisionCount",
        ],
    );
    let parts = ["updatedReplicas", "readyReplicas", "availableReplicas"];
    within_replicas(status, &parts, "readyReplicas");
    not_decremented(&status.get("collisionCount"));
}
