//! Kinds that make pods: their templates, and names that become hostnames.

use super::{Warnings, listed, pod, storage};
use crate::check::At;

const COMPLETIONS_SOFT_LIMIT: i64 = 100_000;
const PARALLELISM_SOFT_LIMIT: i64 = 10_000;

/// Pods' names begin with the object's.
fn name(warnings: &Warnings, object: &At<'_>) {
    let meta = object.get("metadata");
    let faults = api::names::dns_label(meta.get("name").text());
    if object.old().is_none() && !faults.is_empty() {
        warnings.add(format!("metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: {}", listed(&faults)));
    }
}

/// Templates are looked at once for each generation.
fn is_new_generation(object: &At<'_>) -> bool {
    let meta = object.get("metadata");
    object.old().is_none() || !meta.get("generation").unchanged()
}

pub(super) fn pod_template(warnings: &Warnings, template: &At<'_>) {
    if is_new_generation(template) {
        pod::template(warnings, &template.get("template"));
    }
}

fn template(warnings: &Warnings, object: &At<'_>) {
    if is_new_generation(object) {
        pod::template(warnings, &object.get("spec").get("template"));
    }
}

/// Upstream looks at the former template of a changed controller.
pub(super) fn controller(warnings: &Warnings, controller: &At<'_>) {
    name(warnings, controller);
    match controller.old() {
        Some(old) if is_new_generation(controller) => {
            pod::template(warnings, &controller.with(old).get("spec").get("template"));
        }
        Some(_) => {}
        None => template(warnings, controller),
    }
}

pub(super) fn named(warnings: &Warnings, object: &At<'_>) {
    name(warnings, object);
    template(warnings, object);
}

pub(super) fn daemon_set(warnings: &Warnings, set: &At<'_>) {
    let spec = set.get("spec");
    if set.old().is_none() || !spec.get("template").unchanged() {
        pod::template(warnings, &spec.get("template"));
    }
}

pub(super) fn stateful_set(warnings: &Warnings, set: &At<'_>) {
    template(warnings, set);
    let spec = set.get("spec");
    for claim in spec.get("volumeClaimTemplates").items() {
        // Upstream's paths: the spec's fields stand beside the item's when it is created, and below
        // `Spec` afterwards.
        let value = &claim.value()["spec"];
        match set.old() {
            None => storage::claim_spec(warnings, &claim.with(value)),
            Some(_) => storage::claim_spec(warnings, &claim.get_as("spec", "Spec")),
        }
    }
    if spec.get("revisionHistoryLimit").number() < 0 {
        warnings.add("spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended");
    }
}

fn job_spec(warnings: &Warnings, spec: &At<'_>) {
    let (completions, parallelism) = (spec.get("completions"), spec.get("parallelism"));
    if spec.get("completionMode").text() == "Indexed"
        && completions.number() > COMPLETIONS_SOFT_LIMIT
        && parallelism.number() > PARALLELISM_SOFT_LIMIT
    {
        warnings.at(spec, "In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail");
    }
    pod::template(warnings, &spec.get("template"));
}

pub(super) fn job(warnings: &Warnings, job: &At<'_>) {
    name(warnings, job);
    if is_new_generation(job) {
        job_spec(warnings, &job.get("spec"));
    }
}

pub(super) fn cron_job(warnings: &Warnings, job: &At<'_>) {
    name(warnings, job);
    let spec = job.get("spec");
    if is_new_generation(job) {
        job_spec(warnings, &spec.get("jobTemplate").get("spec"));
    }
    if job.old().is_some() && spec.get("schedule").text().contains("TZ") {
        warnings.add("cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details");
    }
}
