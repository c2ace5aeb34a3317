//! What is used, read for all pods in one go.

use std::collections::HashMap;
use std::path::PathBuf;

use super::sandbox::{namespaces, on_node};
use super::{Inner, pins};
use crate::error::Result;
use crate::figures::{ContainerFigures, Interface, PodFigures, interfaces};

impl Inner {
    /// Every ready sandbox with its running containers. Call where blocking is allowed.
    pub(super) fn pod_figures(&self) -> Result<Vec<PodFigures>> {
        let sandboxes: Vec<_> = {
            let state = self.state();
            state.sandboxes.values().map(|s| s.record.clone()).filter(|r| r.ready).collect()
        };
        let own = |r: &super::SandboxRecord| !on_node(namespaces(&r.config()).network);
        let places: Vec<(String, PathBuf)> = sandboxes
            .iter()
            .filter(|record| own(record))
            .map(|record| (record.id.clone(), pins::net(&self.pin_dir(&record.id))))
            .collect();
        let mut networks = networks(places);
        let mut running: HashMap<String, Vec<_>> = HashMap::new();
        for record in self.running(|_| true) {
            running.entry(record.sandbox_id.clone()).or_default().push(record);
        }
        let mut pods = Vec::with_capacity(sandboxes.len());
        for record in sandboxes {
            let config = record.config();
            let cgroup = self.parent_group(&config);
            let containers = running.remove(&record.id).unwrap_or_default();
            pods.push(PodFigures {
                used: self.cgroups.group(&cgroup)?.figures(),
                network: networks.remove(&record.id).unwrap_or_default(),
                containers: containers
                    .into_iter()
                    .map(|c| self.container_figures(c))
                    .collect::<Result<_>>()?,
                labels: config.labels,
                created_at: record.created_at,
                id: record.id,
                cgroup,
            });
        }
        Ok(pods)
    }

    fn container_figures(&self, record: super::ContainerRecord) -> Result<ContainerFigures> {
        let config = record.config();
        let image = config.image.unwrap_or_default();
        let named = Some(image.user_specified_image).filter(|name| !name.is_empty());
        Ok(ContainerFigures {
            used: self.cgroups.group(&record.cgroup)?.figures(),
            image: named.unwrap_or(image.image),
            labels: config.labels,
            started_at: record.run.as_ref().map_or(0, |run| run.started_at),
            id: record.id,
            cgroup: record.cgroup,
        })
    }
}

/// The counters of each namespace, read by one thread that goes from one to the next and then ends.
fn networks(places: Vec<(String, PathBuf)>) -> HashMap<String, Vec<Interface>> {
    if places.is_empty() {
        return HashMap::new();
    }
    let read = move || {
        let mut found = HashMap::new();
        for (id, place) in places {
            // The sandbox may just be ending.
            if pins::enter(&place).is_err() {
                continue;
            }
            if let Ok(text) = std::fs::read_to_string("/proc/thread-self/net/dev") {
                found.insert(id, interfaces(&text));
            }
        }
        found
    };
    let thread = std::thread::Builder::new().name("network counters".to_owned()).spawn(read);
    thread.ok().and_then(|thread| thread.join().ok()).unwrap_or_default()
}
