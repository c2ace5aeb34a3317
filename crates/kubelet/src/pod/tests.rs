//! Plans for given states: what is wished, what is there, what is remembered.

use expect_test::{Expect, expect};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::memory::{Memory, Verdicts, Volumes};
use super::observed::{Instance, Observed, Sandbox, State};
use super::plan::{View, plan};
use crate::spec::labels;

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
        r#"Kill { container: "c", id: "c-id", grace: 5, message: "Container c failed liveness probe, will be restarted" }"#
    ]];
    check(&pod, vec![instance(&pod, "c", State::Running, 0)], &memory, expected);
}

#[test]
fn a_changed_image_replaces_the_container() {
    let pod = pod(json!({}));
    let mut old = instance(&pod, "c", State::Running, 0);
    old.hash = "other".into();
    let expected = expect![[
        r#"Kill { container: "c", id: "c-id", grace: 30, message: "Container c definition changed, will be restarted" }"#
    ]];
    check(&pod, vec![old], &mounted(), expected);
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
fn sidecars_end_last() {
    let mut pod =
        pod(json!({"initContainers": [{"name": "side", "image": "i", "restartPolicy": "Always"}]}));
    pod.metadata.deletion_timestamp = Some(crate::status::seconds(Timestamp::UNIX_EPOCH));
    pod.metadata.deletion_grace_period_seconds = Some(7);
    let side = instance(&pod, "side", State::Running, 0);
    let main = instance(&pod, "c", State::Running, 0);
    let expected = expect![[
        r#"Kill { container: "c", id: "c-id", grace: 7, message: "Stopping container c" }"#
    ]];
    check(&pod, vec![main, side.clone()], &mounted(), expected);
    let expected = expect![[
        r#"Kill { container: "side", id: "side-id", grace: 7, message: "Stopping container side" }"#
    ]];
    check(&pod, vec![instance(&pod, "c", State::Exited, 0), side], &mounted(), expected);
}
