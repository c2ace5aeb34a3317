//! Whole rollouts, one plan after the other, with sets that do as told.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use serde_json::{Value, json};

use super::history::{REVISION, revision};
use super::plan::{Plan, State, plan};
use super::rollout::size;
use super::status::condition;
use crate::meta::now;

fn deployment(image: &str, replicas: i32, extra: Value) -> Deployment {
    let mut spec = json!({"replicas": replicas, "selector": {"matchLabels": {"a": "b"}},
        "progressDeadlineSeconds": 600, "revisionHistoryLimit": 1,
        "template": {"metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": image}]}}});
    for (key, value) in extra.as_object().unwrap() {
        spec[key] = value.clone();
    }
    serde_json::from_value(json!({"metadata": {"name": "d", "namespace": "n", "uid": "u",
        "generation": 1}, "spec": spec}))
    .unwrap()
}

/// A cluster of one Deployment whose pods become ready at once.
struct World {
    deployment: Deployment,
    sets: Vec<Arc<ReplicaSet>>,
}

impl World {
    fn new(deployment: Deployment) -> World {
        World { deployment, sets: Vec::new() }
    }

    fn plan(&self) -> Plan {
        let running = |s: &ReplicaSet| s.status.as_ref().is_some_and(|s| s.replicas > 0);
        let now = now();
        plan(&State {
            deployment: &self.deployment,
            sets: &self.sets,
            running: &running,
            now: &now,
        })
    }

    fn apply(&mut self, plan: Plan) {
        if let Some(mut set) = plan.create {
            set.metadata.uid = set.metadata.name.clone();
            set.metadata.creation_timestamp = Some(now());
            self.sets.push(Arc::new(set));
        }
        for (set, _) in plan.update {
            let at = self.sets.iter().position(|s| s.metadata.uid == set.metadata.uid).unwrap();
            self.sets[at] = Arc::new(set);
        }
        self.sets.retain(|s| !plan.delete.contains(s.metadata.name.as_ref().unwrap()));
        if let Some(status) = plan.status {
            self.deployment.status = Some(status);
        }
        if let Some(number) = plan.revision {
            let annotations = self.deployment.metadata.annotations.get_or_insert_default();
            annotations.insert(REVISION.into(), number);
        }
        for set in &mut self.sets {
            let mut ready = ReplicaSet::clone(set);
            let n = size(&ready);
            let status = ready.status.get_or_insert_default();
            (status.replicas, status.ready_replicas) = (n, Some(n));
            status.available_replicas = Some(n);
            *set = Arc::new(ready);
        }
    }

    /// Until nothing changes; the sizes of all sets after each step.
    fn settle(&mut self) -> Vec<Vec<i32>> {
        let mut steps = Vec::new();
        for _ in 0..50 {
            let plan = self.plan();
            let idle = Plan { recheck: plan.recheck, ..Plan::default() };
            if plan == idle {
                return steps;
            }
            self.apply(plan);
            steps.push(self.sets.iter().map(|s| size(s)).collect());
            steps.dedup();
        }
        panic!("never settles: {steps:?}");
    }

    fn progress(&self) -> String {
        let status = self.deployment.status.as_ref().unwrap();
        condition(status, "Progressing").unwrap().reason.clone().unwrap()
    }

    fn image(&mut self, image: &str) {
        let spec = self.deployment.spec.as_mut().unwrap();
        spec.template.spec.as_mut().unwrap().containers[0].image = Some(image.into());
        *self.deployment.metadata.generation.as_mut().unwrap() += 1;
    }
}

#[test]
fn a_new_deployment_completes() {
    let mut world = World::new(deployment("v1", 3, json!({})));
    let first = world.plan();
    let set = first.create.as_ref().unwrap();
    assert_eq!((size(set), revision(set)), (3, 1));
    assert!(set.metadata.name.as_ref().unwrap().starts_with("d-"));
    assert_eq!(world.settle(), [[3]]);
    assert_eq!(world.progress(), "NewReplicaSetAvailable");
}

#[test]
fn rolling_keeps_within_bounds_and_rolls_back() {
    let mut world = World::new(deployment("v1", 4, json!({})));
    world.settle();
    world.image("v2");
    let steps = world.settle();
    assert_eq!(steps.last().unwrap(), &[0, 4]);
    assert!(steps.iter().all(|s| (3..=5).contains(&s.iter().sum::<i32>())), "{steps:?}");
    // Back: the old set becomes revision 3 and remembers that it was 1.
    world.image("v1");
    world.settle();
    assert_eq!(size(&world.sets[0]), 4);
    let annotations = world.sets[0].metadata.annotations.as_ref().unwrap();
    assert_eq!(annotations[REVISION], "3");
    assert_eq!(annotations["deployment.kubernetes.io/revision-history"], "1");
    assert_eq!(world.deployment.metadata.annotations.as_ref().unwrap()[REVISION], "3");
}

#[test]
fn history_is_cut() {
    let mut world = World::new(deployment("v1", 1, json!({})));
    for image in ["v1", "v2", "v3", "v4"] {
        world.image(image);
        world.settle();
        for set in &mut world.sets {
            let mut seen = ReplicaSet::clone(set);
            seen.status.get_or_insert_default().observed_generation = Some(9);
            *set = Arc::new(seen);
        }
    }
    world.settle();
    let numbers: Vec<i64> = world.sets.iter().map(|s| revision(s)).collect();
    assert_eq!(numbers, [3, 4]);
}

#[test]
fn recreate_ends_the_old_first() {
    let mut world = World::new(deployment("v1", 3, json!({"strategy": {"type": "Recreate"}})));
    world.settle();
    world.image("v2");
    assert_eq!(world.settle(), [vec![0], vec![0, 3]]);
}

#[test]
fn paused_scales_but_does_not_roll() {
    let mut world = World::new(deployment("v1", 2, json!({})));
    world.settle();
    world.deployment.spec.as_mut().unwrap().paused = Some(true);
    world.image("v2");
    world.deployment.spec.as_mut().unwrap().replicas = Some(5);
    assert_eq!(world.settle().last().unwrap(), &[5]);
    assert_eq!(world.progress(), "DeploymentPaused");
    world.deployment.spec.as_mut().unwrap().paused = None;
    assert_eq!(world.settle().last().unwrap(), &[0, 5]);
}

#[test]
fn scaling_says_so() {
    let mut world = World::new(deployment("v1", 2, json!({})));
    world.settle();
    world.deployment.spec.as_mut().unwrap().replicas = Some(1);
    let plan = world.plan();
    let name = world.sets[0].metadata.name.clone().unwrap();
    let event = format!("Scaled down replica set {name} from 2 to 1");
    assert_eq!(plan.update[0].1.as_deref(), Some(event.as_str()));
}
