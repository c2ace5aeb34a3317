//! Pod disruption budgets.

use crate::check::At;
use crate::shared::{
    LabelRules, at_most_hundred_percent, conditions, label_selector, number_or_percent,
};
use crate::{Kind, PLAIN};

pub(crate) static KIND: Kind = Kind {
    name: api::names::path_segment,
    create: |budget| spec(&budget.get("spec")),
    update: |budget| spec(&budget.get("spec")),
    status: |budget| {
        let status = budget.get("status");
        conditions(&status.get("conditions"));
        for field in ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"] {
            status.get(field).non_negative();
        }
    },
    ..PLAIN
};

fn spec(spec: &At<'_>) {
    let (min, max) = (spec.get("minAvailable"), spec.get("maxUnavailable"));
    if !min.is_absent() && !max.is_absent() {
        spec.invalid_struct(
            "policy.PodDisruptionBudgetSpec",
            "minAvailable and maxUnavailable cannot be both set",
        );
    }
    for at in [min, max] {
        if !at.is_absent() {
            number_or_percent(&at);
            at_most_hundred_percent(&at);
        }
    }
    label_selector(&spec.get("selector"), LabelRules::default());
    spec.get("unhealthyPodEvictionPolicy").one_of_if_set(&["AlwaysAllow", "IfHealthyBudget"]);
}
