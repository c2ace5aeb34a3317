//! The scheduler without an API around it, for its benchmark.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use tokio::time::Instant;

use crate::build::{self, Handle};
use crate::config::Config;
use crate::core::{Core, Profiles};
use crate::labels::node_matches;
use crate::planner::{Outcome, Planner};
use crate::pod::PodInfo;
use crate::queue::Queue;

/// A cluster in memory; decisions take effect at once.
#[derive(Debug)]
pub struct World {
    core: Core,
    planner: Planner,
    profiles: Profiles,
}

/// What was decided for one pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decided {
    Bound(String),
    Preempts { node: String, victims: usize },
    Unschedulable(String),
}

impl Default for World {
    fn default() -> World {
        let config = Config::default();
        let built = build::profiles(&config, &Handle::default());
        let profiles = Profiles::new(built.expect("the defaults go together"));
        let queue = Queue::new(config.initial_backoff, config.max_backoff);
        World { core: Core::new(profiles.clone(), queue), planner: Planner::default(), profiles }
    }
}

impl World {
    pub fn add_node(&mut self, node: Node) {
        self.core.node_changed(&client::Change::Added(Arc::new(node)), Instant::now());
    }

    /// A pod that is on a node, or one that wants one.
    pub fn add_pod(&mut self, pod: Pod) {
        self.core.pod_changed(&client::Change::Added(Arc::new(pod)), Instant::now());
    }

    /// One scheduling cycle, if a pod waits.
    pub fn schedule_one(&mut self) -> Option<Decided> {
        let pod = self.core.pop(Instant::now()).ok()?;
        self.core.update_of_snapshot()(&mut self.planner.snapshot);
        let decided = match self.planner.plan(&self.profiles, &pod) {
            Outcome::Bind(mut bind) => {
                let reserved = bind.profile.reserve(&mut bind.state, &pod, &bind.node);
                debug_assert!(reserved.is_ok(), "nothing here can be reserved away");
                self.core.cache.touch(bind.slot);
                self.core.cache.assume(&bind.node, pod.clone());
                Decided::Bound(bind.node.to_string())
            }
            Outcome::Unschedulable { victims: Some(victims), rejectors, .. } => {
                for victim in &victims.pods {
                    let gone = client::Change::Deleted(victim.pod.clone());
                    self.core.pod_changed(&gone, Instant::now());
                }
                self.core.nominate(&victims.node, pod.clone());
                self.core.add_unschedulable(pod.uid(), rejectors, Instant::now());
                Decided::Preempts { node: victims.node, victims: victims.pods.len() }
            }
            Outcome::Unschedulable { message, rejectors, .. } => {
                self.core.add_unschedulable(pod.uid(), rejectors, Instant::now());
                Decided::Unschedulable(message)
            }
            Outcome::Failed(why) => Decided::Unschedulable(why),
        };
        self.core.queue.done(pod.uid());
        Some(decided)
    }

    /// The yardstick: a plain scan over all nodes for those with room that the pod's selector takes.
    pub fn plain_scan(&self, pod: &Pod) -> usize {
        let pod = PodInfo::new(Arc::new(pod.clone()));
        let fits = |node: &&Arc<crate::node::NodeInfo>| {
            let free = node.allocatable.milli_cpu - node.requested.milli_cpu;
            let room = free >= pod.requests.milli_cpu
                && node.allocatable.memory - node.requested.memory >= pod.requests.memory
                && node.pods.len() < node.pods_max;
            let matches =
                pod.spec().zip(node.node.as_ref()).is_some_and(|(s, n)| node_matches(s, n));
            room && matches
        };
        self.planner.snapshot.listed().filter(fits).count()
    }
}
