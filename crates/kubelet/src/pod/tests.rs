//! Plans for given states: what is wished, what is there, what is remembered.

use expect_test::{Expect, expect};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use serde_json::{Value, json};

use super::memory::{Busy, Memory, Slot, Verdicts, Volumes};
use super::observed::{Instance, Observed, Sandbox, State};
use super::plan::{View, plan, restarts};
use super::replace;
use crate::spec::labels;
use crate::status;

const NOW: i64 = 1_000_000;

fn pod(spec: Value) -> Pod {
    let mut spec = spec;
    if spec["containers"].is_null() {
        spec["containers"] = json!([{"name": "c", "image": "i"}]);
    }
    let pod = json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u"}, "spec": spec});
    serde_json::from_value(pod).unwrap()
}

fn sandbox() -> Sandbox {
    Sandbox {
        id: "s".into(),
        attempt: 0,
        ready: true,
        created_at: 1,
        ips: vec![],
        handler: String::new(),
    }
}

fn instance(pod: &Pod, name: &str, state: State, exit_code: i32) -> Instance {
    let container = crate::spec::find_container(pod, name).unwrap();
    Instance {
        id: format!("{name}-id"),
        name: name.into(),
        sandbox: "s".into(),
        attempt: 0,
        state,
        created_at: 1,
        started_at: 1,
        finished_at: (NOW - 1) * 1_000_000_000,
        exit_code,
        reason: String::new(),
        message: String::new(),
        image: "i".into(),
        image_ref: String::new(),
        hash: format!("{:x}", labels::hash(&container)),
        log_path: String::new(),
        stop_signal: None,
        user: None,
        amounts: None,
    }
}

fn mounted() -> Memory {
    Memory { volumes: Volumes::Mounted { refresh_at: None }, ..Memory::default() }
}

fn check(pod: &Pod, containers: Vec<Instance>, memory: &Memory, expected: Expect) {
    let observed = Observed { sandboxes: vec![sandbox()], containers };
    let now = Timestamp::from_second(NOW).unwrap();
    let view = View { pod, observed: &observed, memory, now };
    let lines: Vec<String> = plan(&view).actions.iter().map(|a| format!("{a:?}")).collect();
    expected.assert_eq(&lines.join("\n"));
}

#[test]
fn a_new_pod_gets_its_sandbox_and_volumes_at_once() {
    let pod = pod(json!({}));
    let (observed, memory) = (Observed::default(), Memory::default());
    let view = View { pod: &pod, observed: &observed, memory: &memory, now: Timestamp::UNIX_EPOCH };
    let actions = format!("{:?}", plan(&view).actions);
    expect!["[MountVolumes, CreateSandbox { attempt: 0 }]"].assert_eq(&actions);
}

#[test]
fn a_ready_sandbox_starts_containers() {
    let expected = expect![[r#"Start { container: "c", attempt: 0, sandbox: "s" }"#]];
    check(&pod(json!({})), vec![], &mounted(), expected);
}

#[test]
fn a_container_that_ended_is_restarted_or_not() {
    let always = pod(json!({}));
    let ended = instance(&always, "c", State::Exited, 0);
    let expected = expect![[r#"Start { container: "c", attempt: 1, sandbox: "s" }"#]];
    check(&always, vec![ended.clone()], &mounted(), expected);
    let never = pod(json!({"restartPolicy": "Never"}));
    check(&never, vec![ended], &mounted(), expect![[r#"StopSandbox { id: "s" }"#]]);
}

#[test]
fn a_crash_waits_for_its_back_off() {
    let pod = pod(json!({}));
    let mut memory = mounted();
    let crash = Timestamp::from_second(NOW - 5).unwrap();
    memory.container("c").crash.next(crash, crash);
    let ended = instance(&pod, "c", State::Exited, 1);
    let expected = expect![[
        r#"BackOff { container: "c", message: "back-off 10s restarting failed container=c pod=p_ns(u)", until: 1970-01-12T13:46:49Z }"#
    ]];
    check(&pod, vec![ended], &memory, expected);
}

#[test]
fn a_dead_liveness_probe_kills() {
    let probe = json!({"exec": {"command": ["x"]}, "terminationGracePeriodSeconds": 5});
    let pod = pod(json!({"containers": [{"name": "c", "image": "i", "livenessProbe": probe}]}));
    let mut memory = mounted();
    memory.container("c").verdicts =
        Verdicts { instance: "c-id".into(), alive: Some(false), ..Verdicts::default() };
    let expected = expect![[
        r#"Kill { container: "c", id: "c-id", grace: 5, message: "Container c failed liveness probe, will be restarted", after: [] }"#
    ]];
    check(&pod, vec![instance(&pod, "c", State::Running, 0)], &memory, expected);
}

#[test]
fn a_changed_image_replaces_the_container() {
    let pod = pod(json!({}));
    let mut old = instance(&pod, "c", State::Running, 0);
    old.hash = "other".into();
    let expected = expect![[
        r#"Kill { container: "c", id: "c-id", grace: 30, message: "Container c definition changed, will be restarted", after: [] }"#
    ]];
    check(&pod, vec![old], &mounted(), expected);
}

#[test]
fn what_was_replaced_runs_again_whatever_its_policy_and_is_not_shown_between() {
    let never = pod(json!({"restartPolicy": "Never"}));
    let mut old = instance(&never, "c", State::Running, 137);
    old.hash = "other".into();
    let now = Timestamp::from_second(NOW).unwrap();
    let of = |state| Observed {
        sandboxes: vec![sandbox()],
        containers: vec![Instance { state, finished_at: NOW * 1_000_000_000, ..old.clone() }],
    };
    let mut memory = mounted();
    let running = of(State::Running);
    let view = View { pod: &never, observed: &running, memory: &memory, now };
    let replaced = replace::note(&view, "c", "c-id");
    assert_eq!(replaced.as_deref(), Some("c-id"));
    assert_eq!(replace::hidden_until(&view), None);
    memory.container("c").replaced = replaced;
    let ended = of(State::Exited);
    let expected = expect![[r#"Start { container: "c", attempt: 1, sandbox: "s" }"#]];
    check(&never, ended.containers.clone(), &memory, expected);

    let view = |now| View { pod: &never, observed: &ended, memory: &memory, now };
    assert_eq!(status::build(&view(now), &[]).phase.as_deref(), Some("Running"));
    let shown = Timestamp::from_second(NOW + 1).unwrap();
    assert_eq!(replace::hidden_until(&view(now)), Some(shown));
    assert_eq!(replace::hidden_until(&view(shown)), None);
}

#[test]
fn a_container_that_ended_by_itself_is_no_replaced_one() {
    let never = pod(json!({"restartPolicy": "Never"}));
    let mut old = instance(&never, "c", State::Exited, 1);
    old.hash = "other".into();
    check(&never, vec![old], &mounted(), expect![[r#"StopSandbox { id: "s" }"#]]);
}

#[test]
fn init_containers_go_one_by_one_and_sidecars_stay() {
    let pod = pod(
        json!({"initContainers": [{"name": "a", "image": "i"}, {"name": "side", "image": "i", "restartPolicy": "Always"}]}),
    );
    check(
        &pod,
        vec![],
        &mounted(),
        expect![[r#"Start { container: "a", attempt: 0, sandbox: "s" }"#]],
    );
    let done = instance(&pod, "a", State::Exited, 0);
    check(
        &pod,
        vec![done.clone()],
        &mounted(),
        expect![[r#"Start { container: "side", attempt: 0, sandbox: "s" }"#]],
    );
    let side = instance(&pod, "side", State::Running, 0);
    check(
        &pod,
        vec![done, side],
        &mounted(),
        expect![[r#"Start { container: "c", attempt: 0, sandbox: "s" }"#]],
    );
}

#[test]
fn all_are_told_to_end_and_sidecars_wait_for_their_turn() {
    let side = |name: &str| json!({"name": name, "image": "i", "restartPolicy": "Always"});
    let mut pod = pod(json!({"initContainers": [side("first"), side("second")]}));
    pod.metadata.deletion_timestamp = Some(status::seconds(Timestamp::UNIX_EPOCH));
    pod.metadata.deletion_grace_period_seconds = Some(7);
    let running = |name: &str| instance(&pod, name, State::Running, 0);
    check(
        &pod,
        vec![running("c"), running("second"), running("first")],
        &mounted(),
        expect![[r#"
        Kill { container: "c", id: "c-id", grace: 7, message: "Stopping container c", after: [] }
        Kill { container: "second", id: "second-id", grace: 7, message: "Stopping container second", after: ["c"] }
        Kill { container: "first", id: "first-id", grace: 7, message: "Stopping container first", after: ["c", "second"] }"#]],
    );
    // One that was told is hurried by a shorter period only.
    let mut memory = mounted();
    memory.busy.insert(Slot::Container("c".into()), Busy::Killing { grace: 7 });
    check(&pod, vec![running("c")], &memory, expect![[""]]);
    memory.busy.insert(Slot::Container("c".into()), Busy::Killing { grace: 8 });
    check(
        &pod,
        vec![running("c")],
        &memory,
        expect![[
            r#"Kill { container: "c", id: "c-id", grace: 7, message: "Stopping container c", after: [] }"#
        ]],
    );
}

fn anew() -> Pod {
    let rules = json!([{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [88]}}]);
    pod(
        json!({"restartPolicy": "Never", "initContainers": [{"name": "setup", "image": "i"}], "containers": [
            {"name": "c", "image": "i"},
            {"name": "watcher", "image": "i", "restartPolicy": "Never", "restartPolicyRules": rules},
        ]}),
    )
}

#[test]
fn a_pod_begins_anew_when_a_rule_says_so() {
    let pod = anew();
    let of = |name: &str, state, code| instance(&pod, name, state, code);
    let setup = of("setup", State::Exited, 0);
    let watcher = of("watcher", State::Exited, 88);
    let asked = |containers: &[Instance], memory: &Memory| {
        let observed = Observed { sandboxes: vec![sandbox()], containers: containers.to_vec() };
        let now = Timestamp::from_second(NOW).unwrap();
        super::reset::is_under_way(&View { pod: &pod, observed: &observed, memory, now })
    };
    let mut memory = mounted();
    assert!(!asked(&[setup.clone(), of("watcher", State::Exited, 87)], &memory));
    assert!(asked(&[setup.clone(), watcher.clone()], &memory));
    memory.restarting = true;
    assert!(asked(std::slice::from_ref(&setup), &memory), "until the last one is removed");
    assert!(!asked(&[], &memory));
    let running = of("c", State::Running, 0);
    check(
        &pod,
        vec![setup.clone(), running, watcher.clone()],
        &memory,
        expect![[
            r#"Kill { container: "c", id: "c-id", grace: 0, message: "killing", after: [] }"#
        ]],
    );
    let ended = of("c", State::Exited, 137);
    check(
        &pod,
        vec![watcher, setup, ended],
        &memory,
        expect![[r#"Reset { ids: ["setup-id", "c-id", "watcher-id"] }"#]],
    );
}

#[test]
fn only_a_rule_of_the_containers_own_policy_counts() {
    let with = |policy: Value, operator: &str, action: &str| -> Container {
        let rules =
            json!([{"action": action, "exitCodes": {"operator": operator, "values": [1, 2]}}]);
        let c = json!({"name": "c", "restartPolicy": policy, "restartPolicyRules": rules});
        serde_json::from_value(c).unwrap()
    };
    let spec = PodSpec { restart_policy: Some("Never".into()), ..PodSpec::default() };
    let never = || json!("Never");
    assert!(restarts(&spec, &with(never(), "In", "Restart"), 1));
    assert!(!restarts(&spec, &with(never(), "In", "Restart"), 3));
    assert!(restarts(&spec, &with(never(), "NotIn", "Restart"), 3));
    assert!(!restarts(&spec, &with(never(), "NotIn", "Restart"), 2));
    assert!(restarts(&spec, &with(never(), "In", "RestartAllContainers"), 2));
    assert!(!restarts(&spec, &with(Value::Null, "In", "Restart"), 1));
    assert!(restarts(&spec, &with(json!("OnFailure"), "In", "Restart"), 3));
    assert!(!restarts(&spec, &with(json!("OnFailure"), "In", "Restart"), 0));
}

fn sized(cpu: &str, policy: &str) -> Pod {
    let resources = json!({"requests": {"cpu": cpu}, "limits": {"cpu": cpu}});
    let policy = json!([{"resourceName": "cpu", "restartPolicy": policy}]);
    pod(
        json!({"containers": [{"name": "c", "image": "i", "resources": resources, "resizePolicy": policy}]}),
    )
}

#[test]
fn new_resources_are_given_in_place_or_by_a_new_start() {
    let old = sized("100m", "NotRequired");
    let had = crate::spec::resize::Amounts::of(
        &crate::spec::spec_of(&old),
        &old.spec.as_ref().unwrap().containers[0],
    );
    let mut memory = mounted();
    memory.resize.pod = Some(crate::spec::resources::pod_limits(&old));
    for policy in ["NotRequired", "RestartContainer"] {
        let new = sized("200m", policy);
        let mut running = instance(&new, "c", State::Running, 0);
        running.amounts = Some(had);
        match policy {
            "NotRequired" => check(
                &new,
                vec![running],
                &memory,
                expect![[
                    r#"Resize { sandbox: "s", updates: [Update { container: "c", id: "c-id", from: Amounts { cpu_request: 100, cpu_limit: 100, memory_request: 0, memory_limit: 0 }, to: Amounts { cpu_request: 200, cpu_limit: 200, memory_request: 0, memory_limit: 0 } }] }"#
                ]],
            ),
            _ => check(
                &new,
                vec![running],
                &memory,
                expect![[
                    r#"Kill { container: "c", id: "c-id", grace: 30, message: "Container c resize requires restart", after: [] }"#
                ]],
            ),
        }
    }
    // Nothing is started in a group that does not have its new values yet.
    let mut busy = memory.clone();
    busy.busy.insert(Slot::Resize, Busy::Other);
    check(&sized("200m", "NotRequired"), vec![], &busy, expect![[""]]);
}
