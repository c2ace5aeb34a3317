//! Device plugins (`v1beta1`): who they are, which devices they have, and what of them the containers get.
//!
//! [`placement::DeviceTable`] decides; this asks the plugins. A plugin lists its devices on a stream: its end is
//! the plugin's end. Its devices stay on the node for some minutes, unhealthy, so that a plugin may be
//! exchanged.

mod options;
mod plugin;
mod provider;
pub(crate) mod registration;
pub(crate) mod wire;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use client::Tasks;
use k8s_openapi::api::core::v1::{
    ContainerStatus, Node, PodStatus, ResourceHealth, ResourceStatus,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use placement::{Device, DeviceTable};
use prometheus::{HistogramVec, IntCounterVec};
use tokio::sync::Notify;

use crate::spec::quantity::units;
pub(crate) use options::ContainerOptions;
use plugin::Plugin;
pub(crate) use provider::Provider;

/// Prometheus' own (upstream's `DefBuckets`), in seconds.
const BUCKETS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

struct Figures {
    registry: telemetry::Registry,
    registrations: IntCounterVec,
    allocations: HistogramVec,
}

impl Default for Figures {
    fn default() -> Figures {
        let registry = telemetry::Registry::default();
        let resource = &["resource_name"];
        let registrations = registry.counters(
            "kubelet_device_plugin_registration_total",
            "Cumulative number of device plugin registrations. Broken down by resource name.",
            resource,
        );
        let allocations = registry.histograms(
            "kubelet_device_plugin_alloc_duration_seconds",
            "Duration in seconds to serve a device plugin Allocation request. Broken down by resource name.",
            resource,
            &BUCKETS,
        );
        Figures { registry, registrations, allocations }
    }
}

/// The device manager.
pub(crate) struct Devices {
    folder: PathBuf,
    table: Mutex<DeviceTable>,
    plugins: Mutex<HashMap<String, Arc<Plugin>>>,
    figures: Figures,
    tasks: Tasks,
    /// Resources whose plugins are given up.
    removed: Mutex<BTreeSet<String>>,
    is_new: AtomicBool,
    /// Uids of pods whose devices changed their health.
    affected: Mutex<BTreeSet<String>>,
    /// Told when the node's status, or that of affected pods, is another one.
    pub(crate) news: Notify,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts of the node's status.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Healthy and all, by resource.
    pub(crate) present: BTreeMap<String, (usize, usize)>,
    /// Resources whose plugins did not come back: the node has none of them, as far as it is known.
    pub(crate) removed: BTreeSet<String>,
    /// The node may be another machine than the one that the API knows: what that one had is not there.
    pub(crate) is_new: bool,
}

impl Devices {
    /// `nodes` are the NUMA nodes of the machine.
    pub(crate) fn open(root: &Path, nodes: Vec<usize>, tasks: Tasks) -> Arc<Devices> {
        let folder = root.join("device-plugins");
        let table = DeviceTable::open(&folder, nodes);
        let stopped = |name: String| (name.clone(), Arc::new(Plugin::stopped(&name)));
        Arc::new(Devices {
            plugins: Mutex::new(table.registered().into_iter().map(stopped).collect()),
            is_new: AtomicBool::new(table.is_new()),
            table: Mutex::new(table),
            removed: Mutex::default(),
            folder,
            figures: Figures::default(),
            tasks,
            affected: Mutex::default(),
            news: Notify::new(),
        })
    }

    pub(crate) fn table(&self) -> MutexGuard<'_, DeviceTable> {
        lock(&self.table)
    }

    /// In Prometheus' text form.
    pub(crate) fn metrics(&self) -> String {
        self.figures.registry.families()
    }

    fn plugin(&self, resource: &str) -> Option<Arc<Plugin>> {
        lock(&self.plugins).get(resource).cloned()
    }

    /// Takes the plugin of a resource, in place of the one before.
    async fn connect(self: &Arc<Self>, resource: &str, socket: &Path) -> Result<(), String> {
        let plugin = Arc::new(Plugin::connect(resource, socket).await?);
        tracing::info!(resource, socket = %socket.display(), "device plugin connected");
        let old = lock(&self.plugins).insert(resource.to_owned(), plugin.clone());
        if let Some(old) = old {
            old.stop();
        }
        lock(&self.removed).remove(resource);
        let (devices, resource) = (self.clone(), resource.to_owned());
        self.tasks.spawn("device plugin", async move {
            let why = devices.follow(&resource, &plugin).await;
            tracing::warn!(resource, error = why, "device plugin gone");
            devices.disconnect(&resource, Some(&plugin));
        });
        Ok(())
    }

    /// Takes over what the plugin lists; returns why it has ended.
    async fn follow(&self, resource: &str, plugin: &Arc<Plugin>) -> String {
        let mut lists = match plugin.watch().await {
            Ok(lists) => lists,
            Err(why) => return why,
        };
        loop {
            match lists.next().await {
                Ok(Some(list)) if self.is_current(resource, plugin) => self.list(resource, list),
                Ok(Some(_)) => return "another plugin took its place".to_owned(),
                Ok(None) => return "EOF".to_owned(),
                Err(error) => return error.go_text(),
            }
        }
    }

    fn is_current(&self, resource: &str, plugin: &Arc<Plugin>) -> bool {
        self.plugin(resource).is_some_and(|current| Arc::ptr_eq(&current, plugin))
    }

    fn list(&self, resource: &str, list: wire::ListAndWatchResponse) {
        let device = |device: wire::Device| {
            let nodes = device.topology.unwrap_or_default().nodes;
            let nodes = nodes.into_iter().map(|node| node.id).collect();
            (device.id, Device { healthy: device.health == wire::HEALTHY, nodes })
        };
        let devices = list.devices.into_iter().map(device).collect();
        let pods = self.table().update(resource, devices);
        lock(&self.affected).extend(pods);
        self.news.notify_one();
    }

    /// The plugin is gone; of a named one only if it is still the resource's.
    fn disconnect(&self, resource: &str, plugin: Option<&Arc<Plugin>>) {
        if plugin.is_some_and(|plugin| !self.is_current(resource, plugin)) {
            return;
        }
        if let Some(current) = self.plugin(resource) {
            current.stop();
            self.table().mark_unhealthy(resource);
            self.news.notify_one();
        }
    }

    /// Pods whose devices changed since this was asked last.
    pub(crate) fn take_affected(&self) -> BTreeSet<String> {
        std::mem::take(&mut lock(&self.affected))
    }

    /// The part of the node's status about devices.
    pub(crate) fn counts(&self) -> Counts {
        let mut plugins = lock(&self.plugins);
        let mut table = self.table();
        let (mut present, mut removed) = (table.counts(), lock(&self.removed));
        for name in table.registered() {
            if plugins.get(&name).is_some_and(|plugin| !plugin.is_given_up()) {
                continue;
            }
            plugins.remove(&name);
            table.forget(&name);
            present.remove(&name);
            removed.insert(name);
        }
        let is_new = self.is_new.load(Ordering::Relaxed);
        Counts { present, removed: removed.clone(), is_new }
    }

    /// The API has the node's status: what it shows from now on is this machine's.
    pub(crate) fn status_written(&self) {
        self.is_new.store(false, Ordering::Relaxed);
    }

    /// The node as the pod sees it that has devices already: at least what containers have is allocatable, so
    /// that a plugin's end is no reason to refuse the pod.
    pub(crate) fn sanitize(&self, uid: &str, node: &mut Node) {
        let table = self.table();
        if !table.has_pod(uid) {
            return;
        }
        let status = node.status.get_or_insert_default();
        let allocatable = status.allocatable.get_or_insert_default();
        for (resource, needed) in table.allocated() {
            let known = allocatable.get(&resource).and_then(units).unwrap_or(-1);
            if known < needed as i128 {
                allocatable.insert(resource, Quantity(needed.to_string()));
            }
        }
    }

    /// Tells plugins that want to know that the container is about to start.
    pub(crate) async fn pre_start(
        &self,
        uid: &str,
        container: &placement::Container,
    ) -> Result<(), String> {
        for (resource, count) in &container.extended {
            if *count > 0 && self.table().is_known(resource) {
                self.tell_start(uid, &container.name, resource).await?;
            }
        }
        Ok(())
    }

    /// The device plugins' additions to the container.
    pub(crate) fn options(&self, uid: &str, container: &str) -> Option<ContainerOptions> {
        self.table().of(uid, container).map(ContainerOptions::of)
    }

    async fn tell_start(&self, uid: &str, container: &str, resource: &str) -> Result<(), String> {
        let plugin = self.plugin(resource).ok_or_else(|| {
            format!("endpoint not found in cache for a registered resource: {resource}")
        })?;
        if !plugin.wants_pre_start() {
            return Ok(());
        }
        let ids = self.ids(uid, container, resource).ok_or_else(|| {
            format!(
                "no devices found allocated in local cache for pod {uid}, container {container}, resource {resource}"
            )
        })?;
        plugin.pre_start(&ids).await
    }

    fn ids(&self, uid: &str, container: &str, resource: &str) -> Option<BTreeSet<String>> {
        let table = self.table();
        table.of(uid, container)?.get(resource).map(placement::Allocation::ids)
    }

    /// Whether the container lacks devices that it should have: the kubelet was started anew and its state
    /// was lost.
    pub(crate) fn lacks(&self, uid: &str, container: &placement::Container) -> bool {
        let mut wanted = container.extended.iter().filter(|(_, count)| **count > 0);
        wanted.any(|(resource, _)| {
            self.table().is_known(resource) && self.ids(uid, &container.name, resource).is_none()
        })
    }

    /// Shows the health of containers' devices (`ResourceHealthStatus`).
    pub(crate) fn show(&self, uid: &str, status: &mut PodStatus) {
        let table = self.table();
        if !table.has_pod(uid) {
            return;
        }
        for container in status.container_statuses.iter_mut().flatten() {
            let Some(own) = table.of(uid, &container.name) else { continue };
            for (resource, allocation) in own {
                let health = |id: &String| match table.is_healthy(resource, id) {
                    true => "Healthy",
                    false => "Unhealthy",
                };
                let one = |id: &String| ResourceHealth {
                    resource_id: id.clone(),
                    health: Some(health(id).to_owned()),
                    ..ResourceHealth::default()
                };
                let resources = allocation.ids().iter().map(one).collect();
                set(
                    container,
                    ResourceStatus { name: resource.clone(), resources: Some(resources) },
                );
            }
        }
    }
}

/// Puts one resource's health into the container's status.
fn set(container: &mut ContainerStatus, status: ResourceStatus) {
    let all = container.allocated_resources_status.get_or_insert_default();
    match all.iter_mut().find(|other| other.name == status.name) {
        Some(old) => *old = status,
        None => all.push(status),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_plugin_that_does_not_come_back_in_time_is_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Devices::open(dir.path(), vec![0], Tasks::new());
        let first = open();
        assert!(first.counts().is_new);
        let device = Device { healthy: true, nodes: Vec::new() };
        first.table().update("a.b/c", [("d".to_owned(), device)].into());
        let again = open();
        let expected =
            Counts { present: [("a.b/c".to_owned(), (0, 0))].into(), ..Counts::default() };
        assert_eq!(again.counts(), expected);
        tokio::time::advance(Duration::from_secs(5 * 60)).await;
        assert_eq!(again.counts(), expected);
        tokio::time::advance(Duration::from_secs(1)).await;
        let gone = Counts { removed: ["a.b/c".to_owned()].into(), ..Counts::default() };
        assert_eq!(again.counts(), gone);
        // It is told for as long as it is so.
        assert_eq!(again.counts(), gone);
        assert!(open().counts().present.is_empty(), "the state file knows it");
    }

    #[tokio::test]
    async fn a_pod_with_devices_fits_a_node_whose_plugin_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let devices = Devices::open(dir.path(), vec![0], Tasks::new());
        let asking = placement::Asking { uid: "p", container: "c", resource: "a.b/c", count: 2 };
        let ids = ["x".to_owned(), "y".to_owned()].into();
        devices.table().give(asking, &ids, Vec::new());
        devices.table().release();
        let allocatable = |uid: &str| {
            let mut node = Node::default();
            devices.sanitize(uid, &mut node);
            node.status.and_then(|s| s.allocatable).unwrap_or_default()
        };
        assert_eq!(allocatable("p")["a.b/c"].0, "2");
        assert!(allocatable("other").is_empty());
    }
}
