//! Small clusters for tests.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::algorithm::{Failure, FitError, Search};
use crate::build::{self, Handle};
use crate::cache::Cache;
use crate::config::Config;
use crate::labels::Labels;
use crate::nominated::Nominated;
use crate::pod::PodInfo;
use crate::profile::Profile;
use crate::snapshot::Snapshot;
use crate::store::Listers;

pub(crate) fn typed<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("a typed object")
}

/// A node with 4 cpus (unless `extra` says otherwise), 8Gi and room for 110 pods.
pub(crate) fn node(name: &str, extra: Value) -> Arc<Node> {
    let mut value = json!({"metadata": {"name": name, "labels": {
        "kubernetes.io/hostname": name}}, "spec": {},
        "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"}}});
    merge(&mut value, &extra);
    Arc::new(typed(value))
}

/// A pod of namespace `default` and label `app=a` that asks for this much cpu.
pub(crate) fn pod(name: &str, cpu: &str, extra: Value) -> Arc<PodInfo> {
    let mut value = json!({"metadata": {"name": name, "namespace": "default", "uid": name,
        "labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "i",
        "resources": {"requests": {"cpu": cpu}}}]}});
    merge(&mut value, &extra);
    Arc::new(PodInfo::new(Arc::new(typed::<Pod>(value))))
}

pub(crate) fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (k, v) in from {
                merge(into.entry(k.clone()).or_insert(Value::Null), v);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

/// A cluster, a profile, and what schedules.
pub(crate) struct Bed {
    pub(crate) cache: Cache,
    pub(crate) snapshot: Snapshot,
    pub(crate) listers: Arc<Listers>,
    pub(crate) profile: Arc<Profile>,
    pub(crate) nominated: Arc<Nominated>,
    pub(crate) namespaces: Arc<std::collections::HashMap<String, Labels>>,
    pub(crate) search: Search,
}

impl Bed {
    pub(crate) fn new(nodes: &[Arc<Node>]) -> Bed {
        Bed::configured(nodes, json!({}))
    }

    /// With a configuration's fields besides its version and kind.
    pub(crate) fn configured(nodes: &[Arc<Node>], mut config: Value) -> Bed {
        config["apiVersion"] = "kubescheduler.config.k8s.io/v1".into();
        config["kind"] = "KubeSchedulerConfiguration".into();
        let config = Config::from_json(&config).expect("a valid configuration");
        let handle = Handle::default();
        let profile = build::profiles(&config, &handle).expect("profiles").remove(0);
        let mut cache = Cache::default();
        nodes.iter().for_each(|n| cache.set_node(n.clone()));
        Bed {
            cache,
            snapshot: Snapshot::default(),
            listers: handle.listers,
            profile,
            nominated: Arc::default(),
            namespaces: Arc::default(),
            search: Search::default(),
        }
    }

    pub(crate) fn place(&mut self, node: &str, pod: Arc<PodInfo>) {
        self.cache.add_pod(node, pod);
    }

    pub(crate) fn nominate(&mut self, node: &str, pod: Arc<PodInfo>) {
        Arc::make_mut(&mut self.nominated).add(node, pod);
    }

    pub(crate) fn namespace(&mut self, name: &str, labels: &[(&str, &str)]) {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Arc::make_mut(&mut self.namespaces).insert(name.to_owned(), labels);
    }

    pub(crate) fn update(&mut self) {
        let update = self.cache.take_update();
        self.snapshot.apply(update, self.nominated.clone(), self.namespaces.clone());
    }

    /// The node for the pod, or why there is none.
    pub(crate) fn schedule(&mut self, pod: &Arc<PodInfo>) -> Result<String, Box<FitError>> {
        self.update();
        match self.search.schedule(&self.profile, &mut self.snapshot, pod) {
            Ok(decision) => Ok(decision.node.to_string()),
            Err(Failure::Fit(fit)) => Err(fit),
            Err(Failure::NoNodes) => panic!("no nodes"),
            Err(Failure::Error(why)) => panic!("{why}"),
        }
    }

    /// The node's name, or upstream's message.
    pub(crate) fn answer(&mut self, pod: &Arc<PodInfo>) -> String {
        self.schedule(pod).unwrap_or_else(|fit| fit.message())
    }

    /// Schedules and counts the pod.
    pub(crate) fn run(&mut self, pod: &Arc<PodInfo>) -> String {
        let answer = self.answer(pod);
        if self.snapshot.slot(&answer).is_some() {
            self.place(&answer, pod.clone());
        }
        answer
    }
}
