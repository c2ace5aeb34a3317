//! Jobs.

use api::names;
use serde_json::{Value, json};

use super::{policies, status};
use crate::check::At;
use crate::core::pod;
use crate::golang;
use crate::shared::{LabelRules, domain_prefixed_path, label_selector, selector_matches};
use crate::value::{items_mut, set_default, text};
use crate::{Kind, PLAIN};

pub(crate) static KIND: Kind =
    Kind { default, create, update, status: status::status, anew: true, ..PLAIN };

const INDEXED_MAX: i64 = 100_000;
const HIGH_PARALLELISM: i64 = 10_000;

fn default(object: &mut Value) {
    if !object["spec"].is_object() {
        return;
    }
    default_spec(&mut object["spec"]);
    let spec = &mut object["spec"];
    if spec["completions"].is_null() && spec["parallelism"].is_null() {
        spec["completions"] = 1.into();
    }
    if spec["parallelism"].is_null() {
        spec["parallelism"] = 1.into();
    }
    let backoff = if spec["backoffLimitPerIndex"].is_null() { 6 } else { i32::MAX };
    set_default(spec, "backoffLimit", backoff);
    if spec["completionMode"].is_null() {
        spec["completionMode"] = "NonIndexed".into();
    }
    set_default(spec, "suspend", false);
    set_default(spec, "manualSelector", false);
    let policy = if spec["podFailurePolicy"].is_null() { "TerminatingOrFailed" } else { "Failed" };
    set_default(spec, "podReplacementPolicy", policy);
    drop_nulls(spec);
    let labels = spec.pointer("/template/metadata/labels").cloned().unwrap_or_default();
    let own = object.pointer("/metadata/labels").and_then(Value::as_object);
    if labels.is_object() && own.is_none_or(|m| m.is_empty()) {
        object["metadata"]["labels"] = labels;
    }
}

/// What holds of a job's spec in a CronJob, too.
pub(super) fn default_spec(spec: &mut Value) {
    pod::default_template(&mut spec["template"]);
    for rule in items_mut(&mut spec["podFailurePolicy"], "rules") {
        for pattern in items_mut(rule, "onPodConditions") {
            set_default(pattern, "status", "True");
        }
    }
    drop_nulls(spec);
}

/// Looking at a path that is absent makes it null.
fn drop_nulls(spec: &mut Value) {
    if let Some(map) = spec.as_object_mut() {
        map.retain(|_, value| !value.is_null());
    }
}

/// A new job selects its own pods, unless it selects by hand.
pub fn generate_selector(job: &mut Value) {
    let (uid, name) =
        (text(&job["metadata"]["uid"]).to_owned(), text(&job["metadata"]["name"]).to_owned());
    if job["spec"]["manualSelector"] == true || !job["spec"].is_object() {
        return;
    }
    // Labels that were the template's stay so.
    if !job["metadata"]["labels"].is_object()
        || job["metadata"]["labels"] == job["spec"]["template"]["metadata"]["labels"]
    {
        job["metadata"].as_object_mut().map(|m| m.remove("labels"));
    }
    let spec = &mut job["spec"];
    let template = &mut spec["template"]["metadata"];
    set_default(template, "labels", json!({}));
    for (key, value) in own_labels(&uid, &name) {
        set_default(&mut template["labels"], key, value);
    }
    let selector = &mut spec["selector"];
    if !selector["matchLabels"].is_object() {
        selector["matchLabels"] = json!({});
    }
    set_default(&mut selector["matchLabels"], UID_LABEL, uid);
}

const UID_LABEL: &str = "batch.kubernetes.io/controller-uid";

/// Labels of a job's pods, old names first.
fn own_labels<'a>(uid: &'a str, name: &'a str) -> [(&'static str, &'a str); 4] {
    [
        ("controller-uid", uid),
        ("job-name", name),
        (UID_LABEL, uid),
        ("batch.kubernetes.io/job-name", name),
    ]
}

fn create(job: &At<'_>) {
    generated_selector(job);
    let at = job.get("spec");
    selected_spec(&at);
    let completions = at.get("completions");
    if at.get("completionMode").text() == "Indexed" && completions.number() > 0 {
        let meta = job.get("metadata");
        let name = meta.get("name");
        let last = format!("{}-{}", name.text(), completions.number() - 1);
        if !names::dns_label(&last).is_empty() {
            let detail = format!("will not able to create pod with invalid DNS label: {last}");
            name.invalid_text(&detail);
        }
    }
}

fn generated_selector(job: &At<'_>) {
    let (meta, spec) = (job.get("metadata"), job.get("spec"));
    let selector = spec.get("selector");
    if spec.get("manualSelector").is_true() || selector.is_absent() {
        return;
    }
    let (uid, name) = (meta.get("uid"), meta.get("name"));
    uid.need();
    let template = spec.get("template");
    let template_meta = template.get("metadata");
    let labels = template_meta.get("labels");
    let own = own_labels(uid.text(), name.text());
    for (key, value) in own {
        let at = labels.key(key);
        let detail = format!("must be '{value}'");
        match at.value().as_str() {
            None => at.required(&detail),
            Some(found) if found != value => at.invalid_as(labels.value(), &detail),
            Some(_) => {}
        }
    }
    let expected: serde_json::Map<String, Value> =
        own.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect();
    if selector_matches(selector.value(), &expected.into()) == Some(false) {
        selector.invalid("`selector` not auto-generated");
    }
}

/// The spec of a job of its own, which has a selector.
fn selected_spec(at: &At<'_>) {
    spec(at);
    let selector = at.get("selector");
    if selector.is_absent() {
        selector.required("");
    } else {
        label_selector(&selector, LabelRules::default());
    }
    let template = at.get("template");
    let meta = template.get("metadata");
    let labels = meta.get("labels");
    let selected = match selector.is_absent() {
        true => Some(false),
        false => selector_matches(selector.value(), labels.value()),
    };
    if selected == Some(false) {
        labels.invalid("`selector` does not match template `labels`");
    }
}

pub(super) fn spec(spec: &At<'_>) {
    for field in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        spec.get(field).non_negative();
    }
    let per_index = spec.get("backoffLimitPerIndex");
    if !spec.get("maxFailedIndexes").is_absent() && per_index.is_absent() {
        per_index.required("when maxFailedIndexes is specified");
    }
    let manager = spec.get("managedBy");
    if !manager.is_absent() {
        domain_prefixed_path(&manager);
        if manager.text().len() > 63 {
            manager.too_long(63);
        }
    }
    completion(spec);
    let failure = spec.get("podFailurePolicy");
    if !failure.is_absent() {
        policies::failure(spec, &failure);
    }
    let success = spec.get("successPolicy");
    if !success.is_absent() {
        if spec.get("completionMode").text() == "Indexed" {
            policies::success(spec, &success);
        } else {
            success.invalid_struct("batch.SuccessPolicy", "requires indexed completion mode");
        }
    }
    let replacement = spec.get("podReplacementPolicy");
    if failure.is_absent() {
        replacement.one_of_if_set(&["Failed", "TerminatingOrFailed"]);
    } else {
        replacement.one_of_if_set(&["Failed"]);
    }
    template(spec);
}

fn template(spec: &At<'_>) {
    let template = spec.get("template");
    pod::template(&template);
    let pod = template.get("spec");
    let policy = pod.get("restartPolicy");
    match policy.text() {
        "" | "Always" => policy.required("valid values: \"OnFailure\", \"Never\""),
        "Never" => {}
        "OnFailure" if spec.get("podFailurePolicy").is_absent() => {}
        "OnFailure" => {
            policy.invalid("only \"Never\" is supported when podFailurePolicy is specified");
        }
        _ => policy.not_supported(&["OnFailure", "Never"]),
    }
}

fn completion(spec: &At<'_>) {
    let mode = spec.get("completionMode");
    mode.one_of_if_set(&["NonIndexed", "Indexed"]);
    let (per_index, failed) = (spec.get("backoffLimitPerIndex"), spec.get("maxFailedIndexes"));
    if mode.text() == "Indexed" {
        return indexed(spec, &per_index, &failed);
    }
    if mode.is_absent() || mode.text() == "NonIndexed" {
        for at in [per_index, failed] {
            if !at.is_absent() {
                at.invalid("requires indexed completion mode");
            }
        }
    }
}

fn indexed(spec: &At<'_>, per_index: &At<'_>, failed: &At<'_>) {
    let (completions, parallelism) = (spec.get("completions"), spec.get("parallelism"));
    if completions.is_absent() {
        completions.required("when completion mode is Indexed");
    }
    if parallelism.number() > INDEXED_MAX {
        parallelism.invalid(&format!(
            "must be less than or equal to {INDEXED_MAX} when completion mode is Indexed"
        ));
    }
    if !completions.is_absent() && failed.int().is_some_and(|f| f > completions.number()) {
        failed.invalid("must be less than or equal to completions");
    }
    if failed.number() > INDEXED_MAX {
        failed.invalid(&format!("must be less than or equal to {INDEXED_MAX}"));
    }
    if completions.number() > INDEXED_MAX && !per_index.is_absent() {
        if failed.is_absent() {
            failed.required(&format!("must be specified when completions is above {INDEXED_MAX}"));
        }
        for at in [&parallelism, failed] {
            if at.number() > HIGH_PARALLELISM {
                at.invalid(&format!("must be less than or equal to {HIGH_PARALLELISM} when completions are above {INDEXED_MAX} and used with backoff limit per index"));
            }
        }
    }
}

fn update(job: &At<'_>) {
    let at = job.get("spec");
    selected_spec(&at);
    let Some(old) = at.old() else { return };
    completions_change(&at);
    let selector = at.get("selector");
    selector.immutable();
    template_change(job, &at, old);
    let mode = at.get("completionMode");
    mode.immutable();
    for (field, ty) in [
        ("podFailurePolicy", "batch.PodFailurePolicy"),
        ("backoffLimitPerIndex", ""),
        ("managedBy", ""),
        ("successPolicy", "batch.SuccessPolicy"),
    ] {
        let at = at.get(field);
        if at.old().is_some_and(|old| !golang::same(at.value(), old)) {
            match at.is_absent() || ty.is_empty() {
                true => at.invalid("field is immutable"),
                false => at.invalid_struct(ty, "field is immutable"),
            }
        }
    }
}

fn completions_change(spec: &At<'_>) {
    let completions = spec.get("completions");
    if spec.get("completionMode").text() != "Indexed" {
        return completions.immutable();
    }
    let changed = !completions.unchanged() && !completions.is_absent();
    if changed && completions.number() != spec.get("parallelism").number() {
        completions.invalid("can only be modified in tandem with spec.parallelism");
    }
}

/// A suspended job's pods may be told where to run, and with how much.
fn template_change(job: &At<'_>, spec: &At<'_>, old: &Value) {
    let template = spec.get("template");
    let was_suspended = old["suspend"] == true;
    let status = job.get("status");
    let before = status.old().unwrap_or(&Value::Null);
    let suspended = |c: &Value| c["type"] == "Suspended" && c["status"] == "True";
    let told = before["conditions"].as_array().is_some_and(|l| l.iter().any(suspended));
    let not_started = before["startTime"].is_null();
    let mut expected = old["template"].clone();
    let may_schedule = was_suspended && (told || not_started);
    if may_schedule {
        allow_directives(&mut expected, template.value());
    }
    if was_suspended && may_schedule {
        allow_resources(&mut expected["spec"], &template.value()["spec"]);
        if !golang::same(&template.value()["spec"], &expected["spec"]) {
            let place = spec.get("template.spec");
            place
                .with(&template.value()["spec"])
                .invalid_struct("core.PodSpec", "field is immutable");
        }
    } else if !golang::same(template.value(), &expected) {
        template.invalid_template("field is immutable");
    }
}

fn allow_directives(expected: &mut Value, new: &Value) {
    let take = |into: &mut Value, from: &Value, key: &str| {
        let Some(map) = into.as_object_mut() else { return };
        match from.get(key) {
            Some(value) => drop(map.insert(key.into(), value.clone())),
            None => drop(map.remove(key)),
        }
    };
    let affinity = &new["spec"]["affinity"];
    if affinity.is_null() {
        take(&mut expected["spec"]["affinity"], &Value::Null, "nodeAffinity");
        if expected["spec"]["affinity"].as_object().is_some_and(|a| a.is_empty()) {
            expected["spec"].as_object_mut().map(|s| s.remove("affinity"));
        }
    } else {
        set_default(&mut expected["spec"], "affinity", json!({}));
        take(&mut expected["spec"]["affinity"], affinity, "nodeAffinity");
    }
    for key in ["nodeSelector", "tolerations", "schedulingGates"] {
        take(&mut expected["spec"], &new["spec"], key);
    }
    for key in ["annotations", "labels"] {
        take(&mut expected["metadata"], &new["metadata"], key);
    }
}

fn allow_resources(expected: &mut Value, new: &Value) {
    for kind in ["containers", "initContainers"] {
        let now = new[kind].as_array().map_or(&[][..], Vec::as_slice);
        let before = expected[kind].as_array().map_or(0, Vec::len);
        if now.len() != before {
            continue;
        }
        for (container, new) in items_mut(expected, kind).zip(now) {
            if container["name"] == new["name"] {
                container["resources"] = new["resources"].clone();
            }
        }
    }
}
