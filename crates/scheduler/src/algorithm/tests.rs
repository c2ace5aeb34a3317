//! Whole cycles on small clusters: choices, and upstream's messages.

use serde_json::{Value, json};

use crate::algorithm::nodes_to_find;
use crate::testing::{Bed, node, pod};

fn tainted() -> Value {
    json!({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}})
}

#[test]
fn an_idle_node_is_preferred() {
    let mut bed = Bed::new(&[node("a", json!({})), node("b", json!({}))]);
    bed.place("a", pod("p1", "2", json!({})));
    assert_eq!(bed.answer(&pod("p2", "1", json!({}))), "b");
}

#[test]
fn the_message_counts_each_reason_as_upstream_does() {
    let small = json!({"status": {"allocatable": {"cpu": "1"}}});
    let cordoned = json!({"spec": {"unschedulable": true}});
    let nodes = [node("a", small), node("b", tainted()), node("c", cordoned)];
    let mut bed = Bed::new(&nodes);
    let fit = bed.schedule(&pod("p", "2", json!({}))).unwrap_err();
    assert_eq!(
        fit.message(),
        "0/3 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint(s), \
         1 node(s) were unschedulable. no new claims to deallocate, preemption: 0/3 nodes are \
         available: 3 Preemption is not helpful for scheduling."
    );
    let rejectors: Vec<&str> = fit.rejectors.iter().copied().collect();
    assert_eq!(rejectors, ["NodeResourcesFit", "NodeUnschedulable", "TaintToleration"]);
    assert_eq!(
        fit.explained(),
        fit.message() + " To fit on the nearest node a: 1 more cpu than it has in all."
    );
}

#[test]
fn the_nearest_node_is_the_one_with_the_least_to_change() {
    let ssd = json!({"metadata": {"labels": {"disk": "ssd"}}});
    let mut bed = Bed::new(&[node("a", ssd.clone()), node("b", ssd), node("c", tainted())]);
    bed.place("a", pod("p1", "3500m", json!({})));
    bed.place("b", pod("p2", "3200m", json!({})));
    let wants = pod("q", "1", json!({"spec": {"nodeSelector": {"disk": "ssd"}}}));
    let why = |bed: &mut Bed, pod| bed.schedule(pod).unwrap_err().why;
    assert_eq!(why(&mut bed, &wants), "To fit on the nearest node b: 200m more cpu.");
    // All that keeps it off is named.
    let wants = pod("q", "1", json!({"spec": {"nodeSelector": {"disk": "nvme"}}}));
    assert_eq!(
        why(&mut bed, &wants),
        "To fit on the nearest node b: label it disk=nvme; 200m more cpu."
    );
    let mut bed = Bed::new(&[node("c", tainted())]);
    assert_eq!(
        why(&mut bed, &pod("q", "1", json!({}))),
        "To fit on the nearest node c: tolerate taint k:NoSchedule."
    );
}

#[test]
fn a_pod_is_tried_on_its_nominated_node_first() {
    let mut bed = Bed::new(&[node("a", json!({})), node("b", json!({}))]);
    bed.place("a", pod("p1", "2", json!({})));
    let nominated = json!({"status": {"nominatedNodeName": "a"}});
    assert_eq!(bed.answer(&pod("p2", "1", nominated.clone())), "a");
    // It is no longer good: the others are looked at.
    assert_eq!(bed.answer(&pod("p3", "3", nominated)), "b");
}

#[test]
fn equal_pods_get_what_looking_anew_would_give() {
    let nodes: Vec<_> = (0..7).map(|i| node(&format!("n{i}"), json!({}))).collect();
    let (mut one, mut other) = (Bed::new(&nodes), Bed::new(&nodes));
    for i in 0..40 {
        let cpu = if i % 3 == 0 { "700m" } else { "300m" };
        let p = pod(&format!("p{i}"), cpu, json!({}));
        // A planner that has forgotten everything but where it stopped.
        other.search.forget();
        assert_eq!(one.run(&p), other.run(&p), "pod {i}");
    }
    // A node that changes is looked at again.
    let p = |name| pod(name, "300m", json!({}));
    for n in 1..7 {
        one.cache.set_node(node(&format!("n{n}"), json!({"spec": {"unschedulable": true}})));
    }
    one.cache.remove_pod("p0");
    let answer = one.answer(&p("q"));
    assert!(answer == "n0" || answer.contains("6 node(s) were unschedulable"), "{answer}");
}

#[test]
fn the_number_of_nodes_that_are_looked_for_follows_the_size() {
    let cases = [
        (0, 50, 50),
        (0, 100, 100),
        (0, 1000, 420),
        (0, 5000, 500),
        (0, 20_000, 1000),
        (30, 1000, 300),
        (100, 1000, 1000),
        (1, 1000, 100),
    ];
    for (percentage, total, wanted) in cases {
        assert_eq!(nodes_to_find(percentage, total), wanted, "{percentage} % of {total}");
    }
}

#[test]
fn names_in_node_affinity_narrow_the_search() {
    let only = |names: &[&str]| {
        json!({"spec": {"affinity": {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchFields": [{"key": "metadata.name", "operator": "In", "values": names}]}]}}}}})
    };
    let mut bed = Bed::new(&[node("a", json!({})), node("b", tainted()), node("c", json!({}))]);
    assert_eq!(bed.answer(&pod("p", "1", only(&["c"]))), "c");
    assert_eq!(
        bed.answer(&pod("p", "1", only(&["b"]))),
        "0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 node(s) didn't satisfy \
         plugin(s) [NodeAffinity]. no new claims to deallocate, preemption: 0/3 nodes are \
         available: 3 Preemption is not helpful for scheduling."
    );
    let conflict = json!({"spec": {"affinity": {"nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["a"]},
                {"key": "metadata.name", "operator": "In", "values": ["b"]}]}]}}}}});
    assert_eq!(
        bed.answer(&pod("p", "1", conflict)),
        "0/3 nodes are available: pod affinity terms conflict. not found"
    );
}

#[test]
fn each_plugin_that_looks_at_one_node_refuses_in_upstreams_words() {
    let anti = json!({"status": {"allocatable": {"pods": "1"}}});
    let with = |spec: Value| json!({"spec": spec});
    let port = |ip: &str, protocol: &str| {
        with(json!({"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80,
            "hostIP": ip, "protocol": protocol}]}]}))
    };
    let requests =
        |list: Value| with(json!({"containers": [{"name": "c", "resources": {"requests": list}}]}));
    let gpu = json!({"status": {"allocatable": {"example.com/gpu": "2"}}});
    let tolerates = with(json!({"tolerations": [{"key": "k", "operator": "Exists"}]}));
    let wrong = with(json!({"tolerations": [{"key": "k", "value": "v"}]}));
    let cordon_ok = with(json!({"tolerations": [
        {"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}]}));
    let cordoned = with(json!({"unschedulable": true}));
    // The node, the pod there already, the pod, and the words (empty: it fits).
    let cases: Vec<(Value, Value, Value, &str)> = vec![
        (
            json!({}),
            json!({}),
            with(json!({"nodeName": "z"})),
            "node(s) didn't match the requested node name",
        ),
        (json!({}), json!({}), with(json!({"nodeName": "a"})), ""),
        (tainted(), json!({}), json!({}), "node(s) had untolerated taint(s)"),
        (tainted(), json!({}), tolerates, ""),
        (tainted(), json!({}), wrong, "node(s) had untolerated taint(s)"),
        (cordoned.clone(), json!({}), json!({}), "node(s) were unschedulable"),
        (cordoned, json!({}), cordon_ok, ""),
        (
            json!({}),
            json!({}),
            with(json!({"nodeSelector": {"x": "y"}})),
            "node(s) didn't match Pod's node affinity/selector",
        ),
        (
            json!({}),
            port("", "TCP"),
            port("", "TCP"),
            "node(s) didn't have free ports for the requested pod ports",
        ),
        (
            json!({}),
            port("10.0.0.1", "TCP"),
            port("0.0.0.0", "TCP"),
            "node(s) didn't have free ports for the requested pod ports",
        ),
        (json!({}), port("10.0.0.1", "TCP"), port("10.0.0.2", "TCP"), ""),
        (json!({}), port("", "TCP"), port("", "UDP"), ""),
        (anti, json!({}), json!({}), "Too many pods"),
        (json!({}), json!({}), requests(json!({"cpu": "5"})), "Insufficient cpu"),
        (json!({}), json!({}), requests(json!({"memory": "9Gi"})), "Insufficient memory"),
        (
            json!({}),
            json!({}),
            requests(json!({"ephemeral-storage": "1"})),
            "Insufficient ephemeral-storage",
        ),
        (
            json!({}),
            json!({}),
            requests(json!({"example.com/gpu": "1"})),
            "Insufficient example.com/gpu",
        ),
        (gpu.clone(), json!({}), requests(json!({"example.com/gpu": "2"})), ""),
        (
            gpu,
            requests(json!({"example.com/gpu": "1"})),
            requests(json!({"example.com/gpu": "2"})),
            "Insufficient example.com/gpu",
        ),
        (
            json!({}),
            json!({}),
            requests(json!({"hugepages-2Mi": "2Mi"})),
            "Insufficient hugepages-2Mi",
        ),
    ];
    for (on, there, wants, words) in cases {
        let mut bed = Bed::new(&[node("a", on)]);
        bed.place("a", pod("there", "100m", there));
        let answer = bed.answer(&pod("p", "100m", wants.clone()));
        match words {
            "" => assert_eq!(answer, "a", "{wants}"),
            words => assert!(
                answer.starts_with(&format!("0/1 nodes are available: 1 {words}. ")),
                "{wants}: {answer}"
            ),
        }
    }
}

/// Two nodes and a configuration; which one a pod goes to.
fn choice(config: Value, a: Value, b: Value, wants: Value) -> String {
    let mut bed = Bed::configured(&[node("a", a), node("b", b)], config);
    bed.answer(&pod("p", "1", wants))
}

#[test]
fn scoring_strategies_choose_as_they_are_told() {
    let fit = |strategy: Value| {
        json!({"profiles": [{"plugins": {"score": {"disabled": [{"name": "*"}],
            "enabled": [{"name": "NodeResourcesFit"}]}}, "pluginConfig": [
            {"name": "NodeResourcesFit", "args": {"scoringStrategy": strategy}}]}]})
    };
    let (small, large) =
        (json!({}), json!({"status": {"allocatable": {"cpu": "16", "memory": "32Gi"}}}));
    let of = |kind: &str| fit(json!({"type": kind}));
    let choose = |config| choice(config, small.clone(), large.clone(), json!({}));
    assert_eq!(choose(of("LeastAllocated")), "b");
    assert_eq!(choose(of("MostAllocated")), "a");
    let shape = |first: i64, last: i64| {
        fit(json!({"type": "RequestedToCapacityRatio", "requestedToCapacityRatio": {"shape": [
            {"utilization": 0, "score": first}, {"utilization": 100, "score": last}]}}))
    };
    assert_eq!(choose(shape(0, 10)), "a", "the fuller the better");
    assert_eq!(choose(shape(10, 0)), "b", "the emptier the better");
}

#[test]
fn soft_rules_choose_among_nodes_that_would_do() {
    let plain = json!({});
    let soft_taint = json!({"spec": {"taints": [{"key": "k", "effect": "PreferNoSchedule"}]}});
    assert_eq!(choice(json!({}), soft_taint, plain.clone(), json!({})), "b");
    let labelled = json!({"metadata": {"labels": {"disk": "ssd"}}});
    let likes = json!({"spec": {"affinity": {"nodeAffinity": {
        "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": {
            "matchExpressions": [{"key": "disk", "operator": "Exists"}]}}]}}}});
    assert_eq!(choice(json!({}), plain.clone(), labelled, likes), "b");
    let image =
        |bytes: i64| json!({"status": {"images": [{"names": ["i:latest"], "sizeBytes": bytes}]}});
    assert_eq!(choice(json!({}), plain.clone(), image(900 << 20), json!({})), "b");
    // Too small to matter: the first is as good.
    assert_eq!(choice(json!({}), plain.clone(), image(1 << 20), json!({})), "a");
    // The pod evens out cpu and memory on b.
    let balance = json!({"profiles": [{"plugins": {"score": {"disabled": [{"name": "*"}],
        "enabled": [{"name": "NodeResourcesBalancedAllocation"}]}}}]});
    let mut bed = Bed::configured(&[node("a", json!({})), node("b", json!({}))], balance);
    let memory = |n: &str| json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"memory": n}}}]}});
    bed.place("a", pod("x", "2", json!({})));
    bed.place("b", pod("y", "0", memory("4Gi")));
    assert_eq!(bed.answer(&pod("p", "1", json!({}))), "b");
}

#[test]
fn added_affinity_is_enforced_on_every_pod() {
    let added = json!({"profiles": [{"pluginConfig": [{"name": "NodeAffinity", "args":
        {"addedAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": [
                {"key": "pool", "operator": "Exists"}]}]}}}}]}]});
    let mut bed = Bed::configured(&[node("a", json!({}))], added);
    let answer = bed.answer(&pod("p", "1", json!({})));
    let words =
        "0/1 nodes are available: 1 node(s) didn't match scheduler-enforced node affinity. ";
    assert!(answer.starts_with(words), "{answer}");
}

#[test]
fn pods_with_init_containers_sidecars_and_overhead_ask_for_their_peak() {
    let container = |cpu: &str, policy: Value| json!({"name": "x", "restartPolicy": policy, "resources": {"requests": {"cpu": cpu}}});
    // max(1 + 1 (sidecar), 3 + 1) + 500m = 4500m
    let wants = json!({"spec": {"initContainers": [container("1", json!("Always")),
        container("3", Value::Null)], "overhead": {"cpu": "500m"}}});
    let mut bed = Bed::new(&[node("a", json!({}))]);
    let answer = bed.answer(&pod("p", "1", wants.clone()));
    assert!(answer.contains("1 Insufficient cpu"), "{answer}");
    let mut bed = Bed::new(&[node("a", json!({"status": {"allocatable": {"cpu": "4500m"}}}))]);
    assert_eq!(bed.answer(&pod("p", "1", wants)), "a");
    // The pod's own request stands for its containers'.
    let whole = json!({"spec": {"resources": {"requests": {"cpu": "1"}}}});
    let mut bed = Bed::new(&[node("a", json!({}))]);
    assert_eq!(bed.answer(&pod("p", "9", whole)), "a");
    // A container that is being made smaller counts with what it has still.
    let shrinking = json!({"status": {"containerStatuses": [{"name": "c", "image": "", "imageID": "",
        "ready": true, "restartCount": 0, "resources": {"requests": {"cpu": "3500m"}},
        "allocatedResources": {"cpu": "2"}}]}});
    bed.place("a", pod("shrinking", "1", shrinking));
    assert!(bed.answer(&pod("q", "1", json!({}))).contains("1 Insufficient cpu"));
}

/// A small generator: the same numbers in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

fn some_pod(dice: &mut Dice, name: &str) -> std::sync::Arc<crate::pod::PodInfo> {
    let app = ["a", "b", "c"][dice.roll(3) as usize];
    let other = ["a", "b", "c"][dice.roll(3) as usize];
    let key = ["kubernetes.io/hostname", "topology.kubernetes.io/zone"][dice.roll(2) as usize];
    let term = json!({"topologyKey": key, "labelSelector": {"matchLabels": {"app": other}}});
    let affinity =
        |kind: &str, rule: &str, term: Value| json!({"affinity": {kind: {rule: [term]}}});
    let soft = json!({"weight": 1 + dice.roll(50), "podAffinityTerm": term});
    let (hard, likes) = (
        "requiredDuringSchedulingIgnoredDuringExecution",
        "preferredDuringSchedulingIgnoredDuringExecution",
    );
    let when = ["DoNotSchedule", "ScheduleAnyway"][dice.roll(2) as usize];
    let spec = match dice.roll(7) {
        0 => affinity("podAffinity", hard, term),
        1 => affinity("podAntiAffinity", hard, term),
        2 => affinity("podAffinity", likes, soft),
        3 => affinity("podAntiAffinity", likes, soft),
        4 => json!({"topologySpreadConstraints": [{"maxSkew": 1 + dice.roll(2), "topologyKey": key,
            "whenUnsatisfiable": when, "labelSelector": {"matchLabels": {"app": app}}}]}),
        5 => json!({"nodeSelector": {"odd": "1"}, "topologySpreadConstraints": [{"maxSkew": 1,
            "topologyKey": key, "whenUnsatisfiable": when, "labelSelector": {"matchLabels": {"app": app}}}]}),
        _ => json!({}),
    };
    let priority = dice.roll(4);
    let mut value = json!({"metadata": {"labels": {"app": app}}, "spec": spec});
    value["spec"]["priority"] = priority.into();
    pod(name, &format!("{}m", 100 + 100 * dice.roll(6)), value)
}

/// Counts that follow the changes must give what counting from scratch gives: choices, messages, victims.
#[test]
fn what_is_kept_up_to_date_equals_what_is_counted_anew() {
    let mut dice = Dice(7);
    let some_node = |dice: &mut Dice, n: u64| {
        let mut labels = json!({});
        if dice.roll(8) > 0 {
            labels["topology.kubernetes.io/zone"] = format!("z{}", dice.roll(3)).into();
        }
        if n % 2 == 1 {
            labels["odd"] = "1".into();
        }
        node(&format!("n{n}"), json!({"metadata": {"labels": labels}}))
    };
    let mut kept = Bed::new(&[]);
    let (mut nodes, mut placed) = (std::collections::BTreeMap::new(), Vec::new());
    for n in 0..6 {
        let made = some_node(&mut dice, n);
        kept.cache.set_node(made.clone());
        nodes.insert(n, made);
    }
    for step in 0..600 {
        match dice.roll(10) {
            0 => {
                let n = dice.roll(9);
                let made = some_node(&mut dice, n);
                kept.cache.set_node(made.clone());
                nodes.insert(n, made);
            }
            1 if nodes.len() > 3 => {
                let n = dice.roll(9);
                nodes.remove(&n);
                kept.cache.remove_node(&format!("n{n}"));
                let here = format!("n{n}");
                placed.retain(|(at, p): &(String, std::sync::Arc<crate::pod::PodInfo>)| {
                    if *at == here {
                        kept.cache.remove_pod(p.uid());
                    }
                    *at != here
                });
            }
            4 if step % 5 == 0 => {
                // As after a cycle that panicked.
                kept.snapshot = crate::snapshot::Snapshot::default();
                kept.cache.touch_all();
            }
            2 | 3 if !placed.is_empty() => {
                let (_, gone) = placed.swap_remove(dice.roll(placed.len() as u64) as usize);
                kept.cache.remove_pod(gone.uid());
            }
            _ => {
                let p = some_pod(&mut dice, &format!("p{step}"));
                let all: Vec<_> = nodes.values().cloned().collect();
                let mut anew = Bed::new(&all);
                placed.iter().for_each(|(at, p)| anew.place(at, p.clone()));
                let answer = |bed: &mut Bed| match bed.schedule(&p) {
                    Ok(node) => (node, String::new(), Vec::new()),
                    Err(fit) => {
                        let victims = fit
                            .nominated
                            .iter()
                            .flat_map(|v| v.pods.iter().map(|p| p.name().to_owned()));
                        (fit.message(), fit.why.clone(), victims.collect::<Vec<_>>())
                    }
                };
                // Where among equals the search begins depends on the past and on slots.
                let (mine, fresh) = (answer(&mut kept), answer(&mut anew));
                let bound = |a: &str| a.starts_with('n');
                assert_eq!(bound(&mine.0), bound(&fresh.0), "step {step}: {mine:?} {fresh:?}");
                if bound(&mine.0) {
                    assert_eq!(
                        score_of(&mut kept, &p, &mine.0),
                        score_of(&mut anew, &p, &fresh.0),
                        "step {step}"
                    );
                    kept.place(&mine.0, p.clone());
                    placed.push((mine.0, p));
                } else {
                    assert_eq!(mine.0, fresh.0, "step {step}");
                    assert_eq!(mine.2.len(), fresh.2.len(), "step {step}: {mine:?} {fresh:?}");
                }
            }
        }
    }
    assert!(placed.len() > 20, "the test places pods");
}

/// The total score that the node has for the pod.
fn score_of(bed: &mut Bed, p: &std::sync::Arc<crate::pod::PodInfo>, name: &str) -> i64 {
    bed.update();
    bed.search.total_of(&bed.profile, &mut bed.snapshot, p, name)
}
