//! Which times are due, which Jobs they make, and which Jobs are kept.

use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use serde_json::{Value, json};

use super::history::surplus;
use super::plan::{Plan, Refusal, rfc1123};
use crate::meta::name;

fn cron(spec: Value, last: Value) -> CronJob {
    let mut full = json!({"schedule": "0 * * * *", "jobTemplate": {
        "metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}},
        "spec": {"template": {}}}});
    for (key, value) in spec.as_object().unwrap() {
        full[key] = value.clone();
    }
    serde_json::from_value(json!({"metadata": {"name": "c", "namespace": "n", "uid": "u",
        "creationTimestamp": "2026-05-19T09:30:00Z"}, "spec": full,
        "status": {"lastScheduleTime": last}}))
    .unwrap()
}

fn at(text: &str) -> Timestamp {
    format!("2026-05-19T{text}Z").parse().unwrap()
}

/// The time that is due at `now`, whether many were missed, and the seconds until the next look.
fn due(cron: &CronJob, now: &str) -> (Option<String>, bool, u64) {
    let plan = Plan::new(cron, &TimeZone::UTC, at(now)).unwrap();
    let missed = plan.due().unwrap();
    (missed.last.map(|t| t.to_string()), missed.many, plan.wait().as_secs())
}

#[test]
fn the_last_time_that_passed_is_due() {
    let hourly = cron(json!({}), Value::Null);
    assert_eq!(due(&hourly, "09:59:00"), (None, false, 60));
    let ten = Some("2026-05-19T10:00:00Z".to_owned());
    assert_eq!(due(&hourly, "10:00:00"), (ten.clone(), false, 3600));
    assert_eq!(due(&hourly, "10:59:00"), (ten, false, 60));
    let twelve = Some("2026-05-19T12:00:00Z".to_owned());
    assert_eq!(due(&hourly, "12:30:00"), (twelve.clone(), false, 1800));
    let ran = cron(json!({}), json!("2026-05-19T12:00:00Z"));
    assert_eq!(due(&ran, "12:30:00"), (None, false, 1800));
    let often = cron(json!({"schedule": "* * * * *"}), Value::Null);
    let (last, many, _) = due(&often, "12:00:30");
    assert_eq!((last, many), (twelve, true));
}

#[test]
fn a_starting_deadline_limits_what_is_made_up_for() {
    let deadline = cron(json!({"startingDeadlineSeconds": 600}), Value::Null);
    assert_eq!(due(&deadline, "12:05:00").0.as_deref(), Some("2026-05-19T12:00:00Z"));
    assert_eq!(due(&deadline, "12:15:00").0, None);
    let plan = Plan::new(&deadline, &TimeZone::UTC, at("12:15:00")).unwrap();
    assert!(plan.is_too_late(at("12:00:00")) && !plan.is_too_late(at("12:05:00")));
    assert_eq!(rfc1123(at("12:00:00")), "Tue, 19 May 2026 12:00:00 +0000");
}

#[test]
fn time_zones_are_the_cron_jobs_own() {
    let zoned = cron(json!({"schedule": "0 9 * * *", "timeZone": "Asia/Seoul"}), Value::Null);
    let plan = Plan::new(&zoned, &TimeZone::UTC, "2026-05-20T00:30:00Z".parse().unwrap()).unwrap();
    let time = plan.due().unwrap().last.unwrap();
    assert_eq!(time.to_string(), "2026-05-20T00:00:00Z");
    let job = plan.job(time);
    let annotations = job.metadata.annotations.unwrap();
    let noted = &annotations["batch.kubernetes.io/cronjob-scheduled-timestamp"];
    assert_eq!((noted.as_str(), annotations["c"].as_str()), ("2026-05-20T09:00:00+09:00", "d"));
    assert_eq!(job.metadata.labels.unwrap()["a"], "b");
    assert_eq!(job.metadata.name.unwrap(), format!("c-{}", time.as_second() / 60));
}

#[test]
fn senseless_schedules_are_told() {
    let refusal = |spec: Value| {
        let cron = cron(spec, Value::Null);
        match Plan::new(&cron, &TimeZone::UTC, at("10:00:00")) {
            Err(refusal) => refusal,
            Ok(plan) => plan.due().unwrap_err(),
        }
    };
    let told = |reason, message: &str| Refusal { reason, message: message.into() };
    assert_eq!(
        refusal(json!({"timeZone": "Mars/Base"})),
        told("UnknownTimeZone", "invalid timeZone: \"Mars/Base\": unknown time zone Mars/Base")
    );
    assert_eq!(
        refusal(json!({"schedule": "x"})),
        told(
            "UnparseableSchedule",
            "unparseable schedule: \"x\" : expected exactly 5 fields, found 1: [x]"
        )
    );
    assert_eq!(
        refusal(json!({"schedule": "59 23 31 2 *"})),
        told(
            "InvalidSchedule",
            "invalid schedule: 59 23 31 2 * : time difference between two schedules is less \
             than 1 second"
        )
    );
}

#[test]
fn the_oldest_jobs_go() {
    let job = |own: &str, condition: &str, start: Value| -> Arc<Job> {
        Arc::new(
            serde_json::from_value(json!({"metadata": {"name": own}, "status": {
                "startTime": start, "conditions": [{"type": condition, "status": "True"}]}}))
            .unwrap(),
        )
    };
    let jobs = [
        job("new", "Complete", json!("2026-05-19T12:00:00Z")),
        job("old", "Complete", json!("2026-05-19T10:00:00Z")),
        job("never", "Complete", Value::Null),
        job("failed", "Failed", json!("2026-05-19T10:00:00Z")),
        job("running", "Suspended", json!("2026-05-19T09:00:00Z")),
    ];
    let gone = |spec: Value| {
        let gone = surplus(&cron(spec, Value::Null), &jobs);
        gone.iter().map(|j| name(&j.metadata).to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(gone(json!({"successfulJobsHistoryLimit": 2})), ["old"]);
    assert_eq!(
        gone(json!({"successfulJobsHistoryLimit": 0, "failedJobsHistoryLimit": 0})),
        ["old", "new", "never", "failed"]
    );
    assert!(gone(json!({})).is_empty());
}
