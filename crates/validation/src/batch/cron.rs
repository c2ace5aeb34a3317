//! CronJobs.

use serde_json::Value;

use super::job;
use crate::check::At;
use crate::{Kind, PLAIN};

pub(crate) static KIND: Kind = Kind {
    default: |object| {
        if let Some(spec) = object.pointer_mut("/spec/jobTemplate/spec").filter(|s| s.is_object()) {
            job::default_spec(spec);
        }
    },
    create: |cron| {
        spec(&cron.get("spec"));
        let meta = cron.get("metadata");
        let name = meta.get("name");
        if name.text().len() > 52 {
            name.invalid("must be no more than 52 characters");
        }
    },
    update: |cron| spec(&cron.get("spec")),
    ..PLAIN
};

fn spec(spec: &At<'_>) {
    let at = spec.get("schedule");
    if at.need() {
        schedule_text(spec, &at);
    }
    spec.get("startingDeadlineSeconds").non_negative();
    let zone = spec.get("timeZone");
    if !zone.is_absent() && !zone.unchanged() {
        time_zone(&zone);
    }
    spec.get("concurrencyPolicy").need_one_of(&["Allow", "Forbid", "Replace"]);
    let template = spec.get("jobTemplate");
    let inner = template.get("spec");
    job::spec(&inner);
    let selector = inner.get("selector");
    if !selector.is_absent() {
        selector.invalid("`selector` will be auto-generated");
    }
    let manual = inner.get("manualSelector");
    if manual.is_true() {
        manual.report(
            "FieldValueNotSupported",
            "Unsupported value: true: supported values: \"nil\", \"false\"",
        );
    }
    spec.get("successfulJobsHistoryLimit").non_negative();
    spec.get("failedJobsHistoryLimit").non_negative();
}

fn schedule_text(spec: &At<'_>, at: &At<'_>) {
    if let Err(fault) = api::cron::Schedule::parse(at.text()) {
        at.invalid(&fault);
    }
    let zoned = at.text().contains("TZ");
    let before = at.old().and_then(Value::as_str).is_some_and(|old| old.contains("TZ"));
    if zoned && !before {
        at.invalid("cannot use TZ or CRON_TZ in schedule, use timeZone field instead");
    } else if zoned && !spec.get("timeZone").is_absent() {
        at.invalid("cannot use both timeZone field and TZ or CRON_TZ in schedule");
    }
}

fn time_zone(zone: &At<'_>) {
    let name = zone.text();
    if name.is_empty() {
        return zone.invalid("timeZone must be nil or non-empty string");
    }
    let part = |part: &str| {
        let allowed = |c: u8| c.is_ascii_alphanumeric() || b".-_+".contains(&c);
        !matches!(part, "." | "..")
            && !part.starts_with('-')
            && (1..=14).contains(&part.len())
            && part.bytes().all(allowed)
    };
    let unknown = format!("unknown time zone {name}");
    if !name.split('/').all(part) {
        return zone.invalid(&unknown);
    }
    if name.eq_ignore_ascii_case("local") {
        zone.invalid(
            "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
        );
    } else if name != "UTC" && !api::cron::is_time_zone(name) {
        zone.invalid(&unknown);
    }
}
