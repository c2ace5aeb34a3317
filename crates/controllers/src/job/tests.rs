//! Golden cases of Jobs: which pods are created and deleted, when the Job ends and why, and how pods are
//! counted.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::batch::v1::{Job, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::backoff::{Backoff, finish_time};
use super::conditions::Ending;
use super::facts::State;
use super::indexes::{Indexes, index_of};
use super::plan::{Outcome, Plan, Step, conclude, plan};
use super::track;
use crate::harness::Pending;
use crate::meta::name;

const NOW: &str = "2026-01-01T01:00:00Z";

fn now() -> Time {
    Time(NOW.parse().unwrap())
}

fn job(spec: Value, status: Value) -> Job {
    let mut full = json!({"parallelism": 2, "completions": 4, "backoffLimit": 6,
        "selector": {"matchLabels": {"j": "j"}},
        "template": {"metadata": {"labels": {"j": "j"}},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "c"}]}}});
    merge(&mut full, spec);
    let mut running = json!({"startTime": "2026-01-01T00:59:00Z"});
    merge(&mut running, status);
    serde_json::from_value(json!({"metadata": {"name": "j", "namespace": "n", "uid": "u"},
        "spec": full, "status": running}))
    .unwrap()
}

fn merge(into: &mut Value, from: Value) {
    for (key, value) in from.as_object().unwrap() {
        into[key] = value.clone();
    }
}

/// A pod with the finalizer; `more` replaces fields of its metadata or status.
fn pod(name: &str, phase: &str, more: Value) -> Arc<Pod> {
    let mut meta = json!({"name": name, "uid": name, "namespace": "n", "labels": {"j": "j"},
        "finalizers": ["batch.kubernetes.io/job-tracking"],
        "creationTimestamp": "2026-01-01T00:59:00Z", "annotations": {}});
    let mut status = json!({"phase": phase});
    if let Some(index) = more["index"].as_i64() {
        meta["annotations"]["batch.kubernetes.io/job-completion-index"] = index.to_string().into();
    }
    if let Some(failures) = more["failures"].as_i64() {
        meta["annotations"]["batch.kubernetes.io/job-index-failure-count"] =
            failures.to_string().into();
    }
    if more["bare"] == true {
        meta["finalizers"] = json!([]);
    }
    if more["ends"] == true {
        meta["deletionTimestamp"] = NOW.into();
    }
    if let Some(code) = more["exit"].as_i64() {
        let at = more["at"].as_str().unwrap_or("2026-01-01T00:00:00Z");
        status["containerStatuses"] = json!([{"name": "c", "image": "", "imageID": "",
            "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": code, "finishedAt": at}}}]);
    }
    if let Some(condition) = more["condition"].as_str() {
        status["conditions"] = json!([{"type": condition, "status": "True"}]);
    }
    if let Some(restarts) = more["restarts"].as_i64() {
        status["containerStatuses"] = json!([{"name": "c", "image": "", "imageID": "",
            "ready": true, "restartCount": restarts}]);
    }
    Arc::new(
        serde_json::from_value(
            json!({"metadata": meta, "spec": {"containers": []}, "status": status}),
        )
        .unwrap(),
    )
}

fn running(name: &str) -> Arc<Pod> {
    pod(name, "Running", json!({}))
}

fn run(job: &Job, pods: &[Arc<Pod>]) -> Plan {
    let pending = Pending::default();
    plan(&State { job, pods, pending: &pending, backoff: Backoff::default(), now: &now() })
}

fn created(plan: &Plan) -> usize {
    match &plan.step {
        Step::Create(pods) => pods.len(),
        _ => 0,
    }
}

fn deleted(plan: &Plan) -> Vec<&str> {
    match &plan.step {
        Step::Delete(pods) => pods.iter().map(|p| name(&p.metadata)).collect(),
        _ => Vec::new(),
    }
}

fn created_indexes(plan: &Plan) -> Vec<i32> {
    match &plan.step {
        Step::Create(pods) => pods.iter().filter_map(index_of).collect(),
        _ => Vec::new(),
    }
}

fn reason(plan: &Plan) -> &str {
    plan.ending.as_ref().map_or("", |e| &e.reason)
}

/// A pass that succeeds in everything: the status, and the ending if there is one.
fn pass(job: &Job, pods: &[Arc<Pod>]) -> (JobStatus, Option<Ending>) {
    let pending = Pending::default();
    let now = now();
    let state = State { job, pods, pending: &pending, backoff: Backoff::default(), now: &now };
    let plan = plan(&state);
    let outcome = match &plan.step {
        Step::Nothing => Outcome::default(),
        Step::Create(pods) => Outcome { created: pods.len() as i32, ..Outcome::default() },
        Step::Delete(pods) => Outcome { deleted: pods.len() as i32, ..Outcome::default() },
        Step::DeleteActive => {
            Outcome { deleted: plan.facts.active.len() as i32, ..Outcome::default() }
        }
    };
    let (status, ending, _) = conclude(&state, &plan, outcome);
    let mut tracking = track::count(&state, &plan.facts, status, ending);
    let removed = tracking.remove.clone();
    tracking.let_go(tracking.status.clone(), &removed);
    let ended = tracking.finish(&now);
    (tracking.status, ended)
}

fn conditions(status: &JobStatus) -> Vec<(&str, &str)> {
    let all = status.conditions.iter().flatten();
    all.map(|c| (c.type_.as_str(), c.reason.as_deref().unwrap_or(""))).collect()
}

#[test]
fn pods_are_created_up_to_parallelism_and_completions() {
    assert_eq!(created(&run(&job(json!({}), json!({})), &[])), 2);
    assert_eq!(created(&run(&job(json!({}), json!({"succeeded": 3})), &[])), 1);
    assert_eq!(created(&run(&job(json!({}), json!({})), &[running("a")])), 1);
    let surplus = [running("a"), running("b"), running("c")];
    assert_eq!(deleted(&run(&job(json!({}), json!({})), &surplus)).len(), 1);
    let none = job(json!({"parallelism": 0}), json!({}));
    assert_eq!(deleted(&run(&none, &[running("a")])), ["a"]);
}

#[test]
fn a_work_queue_adds_no_pod_after_a_success() {
    let queue = job(json!({"completions": null, "parallelism": 3}), json!({}));
    assert_eq!(created(&run(&queue, &[running("a")])), 2);
    let pods = [running("a"), pod("b", "Succeeded", json!({}))];
    let plan = run(&queue, &pods);
    assert_eq!(plan.step, Step::Nothing);
    assert!(pass(&queue, &pods).1.is_none());
    let done = [pod("b", "Succeeded", json!({}))];
    assert_eq!(pass(&queue, &done).1.unwrap().reason, "CompletionsReached");
}

#[test]
fn nothing_is_created_or_deleted_before_earlier_writes_show() {
    let job = job(json!({}), json!({}));
    let pending = Pending { creations: 1, ..Pending::default() };
    let state = |pending| State {
        job: &job,
        pods: &[],
        pending,
        backoff: Backoff::default(),
        now: Box::leak(Box::new(now())),
    };
    assert_eq!(plan(&state(&pending)).step, Step::Nothing);
    let deletions = HashSet::from(["a".to_owned()]);
    let pending = Pending { deletions, ..Pending::default() };
    assert_eq!(plan(&state(&pending)).step, Step::Nothing);
}

#[test]
fn success_is_counted_once_and_completes() {
    let job = job(json!({"completions": 2}), json!({"succeeded": 1}));
    let (status, ended) = pass(&job, &[pod("b", "Succeeded", json!({}))]);
    assert_eq!(status.succeeded, Some(2));
    assert_eq!(
        conditions(&status),
        [("SuccessCriteriaMet", "CompletionsReached"), ("Complete", "CompletionsReached")]
    );
    assert!(ended.unwrap().succeeds && status.completion_time.is_some());
    // A pod without the finalizer was counted before.
    let (status, _) = pass(&job, &[pod("b", "Succeeded", json!({"bare": true}))]);
    assert_eq!(status.succeeded, Some(1));
}

#[test]
fn pods_are_named_before_they_are_counted() {
    let job = job(json!({}), json!({}));
    let pods = [pod("a", "Succeeded", json!({})), pod("b", "Failed", json!({}))];
    let pending = Pending::default();
    let state = State {
        job: &job,
        pods: &pods,
        pending: &pending,
        backoff: Backoff::default(),
        now: &now(),
    };
    let plan = plan(&state);
    let (status, ending, _) = conclude(&state, &plan, Outcome::default());
    let tracking = track::count(&state, &plan.facts, status, ending);
    let uncounted = tracking.status.uncounted_terminated_pods.clone().unwrap();
    assert_eq!(uncounted.succeeded, Some(vec!["a".to_owned()]));
    assert_eq!(uncounted.failed, Some(vec!["b".to_owned()]));
    assert_eq!((tracking.status.succeeded, tracking.remove.len()), (None, 2));
    // A pass after a crash here: named already, still with the finalizer.
    let again = Job { status: Some(tracking.status), ..job.clone() };
    let (status, _) = pass(&again, &pods);
    assert_eq!((status.succeeded, status.failed), (Some(1), Some(1)));
    let uncounted = status.uncounted_terminated_pods.unwrap();
    assert_eq!((uncounted.succeeded, uncounted.failed), (None, None));
}

#[test]
fn too_many_failures_end_the_job() {
    let job = job(json!({"backoffLimit": 1}), json!({"failed": 1}));
    let plan = run(&job, &[pod("a", "Failed", json!({})), running("b")]);
    assert_eq!((reason(&plan), &plan.step), ("BackoffLimitExceeded", &Step::DeleteActive));
    let (status, ended) = pass(&job, &[pod("a", "Failed", json!({})), running("b")]);
    // The running pod counts as failed, and the end waits until it is gone.
    assert_eq!((status.failed, ended), (Some(3), None));
    assert_eq!(conditions(&status), [("FailureTarget", "BackoffLimitExceeded")]);
    assert_eq!(status.terminating, Some(1));
    let after = Job { status: Some(status), ..job };
    let (status, ended) = pass(&after, &[]);
    assert!(!ended.unwrap().succeeds && status.completion_time.is_none());
    assert_eq!(conditions(&status)[1], ("Failed", "BackoffLimitExceeded"));
}

#[test]
fn restarts_are_retries_with_on_failure() {
    let template = json!({"metadata": {"labels": {"j": "j"}},
        "spec": {"restartPolicy": "OnFailure", "containers": [{"name": "c"}]}});
    let limited = |limit: i32| job(json!({"backoffLimit": limit, "template": template}), json!({}));
    let restarted = [pod("a", "Running", json!({"restarts": 2}))];
    assert_eq!(reason(&run(&limited(2), &restarted)), "BackoffLimitExceeded");
    assert_eq!(reason(&run(&limited(3), &restarted)), "");
    assert_eq!(reason(&run(&limited(0), &restarted)), "BackoffLimitExceeded");
}

#[test]
fn pods_come_back_later_after_each_failure() {
    let fresh = |at: &str| [pod("a", "Failed", json!({"exit": 1, "at": at}))];
    let job = job(json!({}), json!({}));
    let plan = run(&job, &fresh("2026-01-01T00:59:58Z"));
    assert_eq!((created(&plan), plan.recheck), (0, Some(Duration::from_secs(8))));
    assert_eq!(created(&run(&job, &fresh("2026-01-01T00:59:50Z"))), 2);
    let last = "2026-01-01T01:00:00Z".parse().unwrap();
    let after = |failures| Backoff { failures, last: Some(last) }.remaining(now().0).as_secs();
    assert_eq!([1, 2, 3, 4, 7, 30].map(after), [10, 20, 40, 80, 600, 600]);
}

#[test]
fn a_success_forgives_earlier_failures() {
    let at = |t: &str, phase: &str| pod(t, phase, json!({"exit": 1, "at": t}));
    let (one, two, three) =
        ("2026-01-01T00:00:01Z", "2026-01-01T00:00:02Z", "2026-01-01T00:00:03Z");
    let known = Backoff { failures: 5, last: Some("2026-01-01T00:00:00Z".parse().unwrap()) };
    let failed = [at(one, "Failed"), at(three, "Failed")];
    let after = known.after(&[at(two, "Succeeded")], &failed);
    assert_eq!(after, Backoff { failures: 1, last: Some(three.parse().unwrap()) });
    assert_eq!(known.after(&[at(three, "Succeeded")], &[]), Backoff::default());
    assert_eq!(known.after(&[], &failed).failures, 7);
    assert_eq!(finish_time(&at(two, "Failed")), two.parse().unwrap());
}

#[test]
fn a_deadline_ends_the_job_and_wakes_it() {
    let limited = |seconds: i64| job(json!({"activeDeadlineSeconds": seconds}), json!({}));
    assert_eq!(reason(&run(&limited(60), &[running("a")])), "DeadlineExceeded");
    let plan = run(&limited(61), &[running("a"), running("b")]);
    assert_eq!((reason(&plan), plan.recheck.unwrap().as_secs()), ("", 1));
    let suspended = job(json!({"activeDeadlineSeconds": 1, "suspend": true}), json!({}));
    assert_eq!(reason(&run(&suspended, &[])), "");
}

#[test]
fn suspension_deletes_pods_and_resets_the_start() {
    let suspended = job(json!({"suspend": true}), json!({}));
    let plan = run(&suspended, &[running("a"), running("b")]);
    assert_eq!(deleted(&plan).len(), 2);
    let (status, _) = pass(&suspended, &[running("a")]);
    assert_eq!(conditions(&status), [("Suspended", "JobSuspended")]);
    assert_eq!((status.start_time.is_none(), status.active), (true, None));
    let resumed = Job { status: Some(status), ..job(json!({}), json!({})) };
    let (status, _) = pass(&resumed, &[]);
    let condition = &status.conditions.as_ref().unwrap()[0];
    assert_eq!(
        (condition.status.as_str(), condition.reason.as_deref()),
        ("False", Some("JobResumed"))
    );
    assert_eq!((status.start_time, status.active), (Some(now()), Some(2)));
}

fn indexed(more: Value, status: Value) -> Job {
    let mut spec = json!({"completionMode": "Indexed", "parallelism": 3, "completions": 5});
    merge(&mut spec, more);
    job(spec, status)
}

#[test]
fn missing_indexes_are_created_in_order() {
    let plan = run(&indexed(json!({}), json!({"completedIndexes": "1", "succeeded": 1})), &[]);
    assert_eq!(created_indexes(&plan), [0, 2, 3]);
    let Step::Create(pods) = &plan.step else { panic!("{plan:?}") };
    let spec = pods[1].spec.as_ref().unwrap();
    assert_eq!(pods[1].metadata.generate_name.as_deref(), Some("j-2-"));
    assert_eq!(spec.hostname.as_deref(), Some("j-2"));
    let env = &spec.containers[0].env.as_ref().unwrap()[0];
    assert_eq!(env.name, "JOB_COMPLETION_INDEX");
    let label = "batch.kubernetes.io/job-completion-index";
    assert_eq!(pods[1].metadata.labels.as_ref().unwrap()[label], "2");
}

#[test]
fn doubles_and_strange_indexes_are_deleted() {
    let pods = [
        pod("a", "Running", json!({"index": 0})),
        pod("b", "Pending", json!({"index": 0})),
        pod("c", "Running", json!({"index": 9})),
        pod("d", "Running", json!({})),
    ];
    let plan = run(&indexed(json!({}), json!({})), &pods);
    let mut gone = deleted(&plan);
    gone.sort_unstable();
    assert_eq!(gone, ["b", "c", "d"]);
}

#[test]
fn indexes_complete_the_job_each_once() {
    let job = indexed(json!({"completions": 3}), json!({"completedIndexes": "0", "succeeded": 1}));
    let done = |name: &str, index: i64| pod(name, "Succeeded", json!({"index": index}));
    let (status, ended) = pass(&job, &[done("a", 1), done("b", 2), done("c", 2)]);
    assert_eq!((status.succeeded, status.completed_indexes.as_deref()), (Some(3), Some("0-2")));
    assert!(ended.unwrap().succeeds);
}

#[test]
fn an_index_fails_after_its_own_limit() {
    let job = indexed(
        json!({"backoffLimitPerIndex": 1, "completions": 2, "parallelism": 2,
        "backoffLimit": i32::MAX}),
        json!({}),
    );
    let failed = |failures: i64| {
        [
            pod("a", "Failed", json!({"index": 0, "failures": failures, "exit": 1})),
            pod("b", "Running", json!({"index": 1})),
        ]
    };
    let first = run(&job, &failed(0));
    assert_eq!(created_indexes(&first), [0]);
    let Step::Create(pods) = &first.step else { panic!("{first:?}") };
    let annotation = "batch.kubernetes.io/job-index-failure-count";
    assert_eq!(pods[0].metadata.annotations.as_ref().unwrap()[annotation], "1");
    // The failed pod stays until its successor is there: it carries the count.
    let (status, _) = pass(&job, &failed(0));
    assert_eq!((status.failed, status.failed_indexes.as_deref()), (None, Some("")));
    let (status, _) = pass(&job, &failed(1));
    assert_eq!((status.failed, status.failed_indexes.as_deref()), (Some(1), Some("0")));
    let all = [
        pod("a", "Failed", json!({"index": 0, "failures": 1, "exit": 1})),
        pod("b", "Succeeded", json!({"index": 1})),
    ];
    assert_eq!(reason(&run(&job, &all)), "FailedIndexes");
}

#[test]
fn too_many_failed_indexes_end_the_job() {
    let job = indexed(
        json!({"backoffLimitPerIndex": 0, "maxFailedIndexes": 1,
        "backoffLimit": i32::MAX}),
        json!({"failedIndexes": "0"}),
    );
    let plan = run(&job, &[pod("a", "Failed", json!({"index": 1, "exit": 1}))]);
    assert_eq!(reason(&plan), "MaxFailedIndexesExceeded");
}

#[test]
fn the_first_fitting_rule_of_a_failure_policy_decides() {
    let policy = json!({"podFailurePolicy": {"rules": [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}},
        {"action": "Count", "onExitCodes": {"operator": "NotIn", "values": [0]}}]},
        "podReplacementPolicy": "Failed"});
    let job = job(policy, json!({}));
    let fatal = run(&job, &[pod("a", "Failed", json!({"exit": 42}))]);
    let ending = fatal.ending.unwrap();
    assert_eq!(ending.reason, "PodFailurePolicy");
    assert_eq!(
        ending.message,
        "Container c for pod n/a failed with exit code 42 matching FailJob rule at index 1"
    );
    let (status, _) = pass(&job, &[pod("a", "Failed", json!({"condition": "DisruptionTarget"}))]);
    assert_eq!(status.failed, None);
    let (status, _) = pass(&job, &[pod("a", "Failed", json!({"exit": 3}))]);
    assert_eq!(status.failed, Some(1));
}

#[test]
fn a_rule_may_fail_the_index_at_once() {
    let job = indexed(
        json!({"backoffLimitPerIndex": 5, "backoffLimit": i32::MAX,
        "podFailurePolicy": {"rules": [{"action": "FailIndex",
            "onExitCodes": {"operator": "In", "values": [42]}}]}}),
        json!({}),
    );
    let pods = [pod("a", "Failed", json!({"index": 3, "exit": 42}))];
    let (status, _) = pass(&job, &pods);
    assert_eq!(status.failed_indexes.as_deref(), Some("3"));
}

#[test]
fn pods_that_end_are_replaced_at_once_or_when_they_failed() {
    let ending = [pod("a", "Running", json!({"ends": true})), running("b")];
    let at_once = job(json!({"podReplacementPolicy": "TerminatingOrFailed"}), json!({}));
    let (status, _) = pass(&at_once, &ending);
    // It counts as failed, so that its replacement waits for the back-off.
    assert_eq!((status.failed, status.terminating), (Some(1), Some(1)));
    let later = job(json!({"podReplacementPolicy": "Failed"}), json!({}));
    let plan = run(&later, &ending);
    assert_eq!(plan.step, Step::Nothing);
    assert_eq!(pass(&later, &ending).0.failed, None);
}

#[test]
fn a_success_policy_ends_the_job_early() {
    let policy = |rule: Value| {
        indexed(
            json!({"successPolicy": {"rules": [{"succeededIndexes": "4"}, rule]}}),
            json!({"completedIndexes": "0-2", "succeeded": 3}),
        )
    };
    let met =
        run(&policy(json!({"succeededIndexes": "0,3", "succeededCount": 1})), &[running("a")]);
    let ending = met.ending.unwrap();
    assert_eq!(
        (ending.succeeds, ending.reason.as_str(), ending.message.as_str()),
        (true, "SuccessPolicy", "Matched rules at index 1")
    );
    assert_eq!(met.step, Step::DeleteActive);
    assert_eq!(reason(&run(&policy(json!({"succeededCount": 3})), &[])), "SuccessPolicy");
    assert_eq!(reason(&run(&policy(json!({"succeededIndexes": "0,3"})), &[])), "");
}

#[test]
fn a_job_that_is_deleted_lets_its_pods_go() {
    let mut ending = job(json!({}), json!({}));
    ending.metadata.deletion_timestamp = Some(now());
    let plan = run(&ending, &[running("a")]);
    assert_eq!(plan.step, Step::Nothing);
    let pending = Pending::default();
    let pods = [running("a")];
    let state = State {
        job: &ending,
        pods: &pods,
        pending: &pending,
        backoff: Backoff::default(),
        now: &now(),
    };
    let (status, end, _) = conclude(&state, &plan, Outcome::default());
    assert_eq!(track::count(&state, &plan.facts, status, end).remove.len(), 1);
}

#[test]
fn indexes_are_read_written_and_compared() {
    let text = |t: &str| Indexes::parse(t, 100).to_string();
    assert_eq!(text("0,1,3-5,7,8"), "0,1,3-5,7,8");
    assert_eq!(text("0,1,2,x,5-4"), "0-2");
    assert_eq!(Indexes::parse("1-200", 5).to_string(), "1-4");
    let some = Indexes::parse("0-2,5,8-9", 100);
    assert_eq!((some.total(), some.has(1), some.has(3), some.has(9)), (6, true, false, true));
    assert_eq!(some.first_missing(4, 12), [3, 4, 6, 7]);
    assert_eq!(some.first_missing(9, 11), [3, 4, 6, 7, 10]);
    assert_eq!(some.common(&Indexes::parse("2-8", 100)), 3);
    assert_eq!(some.union(&Indexes::parse("3-4", 100)).to_string(), "0-5,8,9");
}
