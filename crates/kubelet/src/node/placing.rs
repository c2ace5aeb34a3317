//! The CPU, memory and topology managers at work: pods get their place when they are admitted, containers
//! are bound to it when they are made, and those that share CPUs follow what is left to share.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::{Container, Pod};
use placement::{Block, CpuSet, Figures, Hint, HintProvider as _, Kind, Machine, Manager};
use runtime::cri::{
    ContainerFilter, ContainerState, ContainerStateValue, LinuxContainerResources,
    PodSandboxConfig, UpdateContainerResourcesRequest,
};
use tokio::time::MissedTickBehavior;

use client::Tasks;

use super::devices::{ContainerOptions, Devices, Provider};
use crate::admission::Refusal;
use crate::config::KubeletConfig;
use crate::intake::sources::Pods;
use crate::kubelet::Shared;
use crate::node;
use crate::spec::quantity::{millis, units};
use crate::spec::resources::{HUGE_PAGES, Qos, limits, qos, requests};
use crate::spec::{has_ended, is_sidecar, labels, spec_of, uid_of};

/// A container whose quota is lifted: the CPUs that are its own limit it.
const NO_QUOTA: i64 = -1;

/// The managers of the node.
pub(crate) struct Places {
    manager: tokio::sync::Mutex<Manager>,
    figures: Figures,
    /// The policy of CPUs is `static`.
    pub(crate) has_static_cpus: bool,
    /// The policy of memory is `Static`.
    pub(crate) has_static_memory: bool,
    is_any_on: bool,
    /// Of device plugins.
    pub(crate) devices: Arc<Devices>,
    /// Pods that the node did not take: what they were given on the way is free.
    refused: Mutex<HashSet<String>>,
    /// The CPUs that running containers were bound to last, by their ids.
    bound: Mutex<HashMap<String, CpuSet>>,
}

fn machine(config: &KubeletConfig, memory_bytes: u64) -> Result<Machine, String> {
    match placement::discover(&config.placement.sys, memory_bytes) {
        Err(_) if !config.placement.settings.is_any_on() => Ok(Machine::default()),
        found => found,
    }
}

fn kind(container: &Container, is_init: bool) -> Kind {
    match (is_init, is_sidecar(container)) {
        (true, true) => Kind::Sidecar,
        (true, false) => Kind::Init,
        (false, _) => Kind::Regular,
    }
}

/// The container's resources that a claim of the pod stands for (`DRAExtendedResource`): no plugin's.
fn is_claimed(pod: &Pod, container: &Container, resource: &str) -> bool {
    let status = pod.status.as_ref().and_then(|s| s.extended_resource_claim_status.as_ref());
    let mut mapped = status.into_iter().flat_map(|s| &s.request_mappings);
    mapped.any(|m| m.container_name == container.name && m.resource_name == resource)
}

fn container(pod: &Pod, container: &Container, is_init: bool) -> placement::Container {
    let asked = requests(container);
    let amount = |value: Option<i128>| u64::try_from(value.unwrap_or(0)).unwrap_or(u64::MAX);
    let is_memory = |name: &str| name == "memory" || name.starts_with(HUGE_PAGES);
    let memory = asked.into_iter().flatten().filter(|(name, _)| is_memory(name));
    let limited = limits(container).into_iter().flatten();
    // Devices are never overcommitted: the limit is the request.
    let extended = limited.filter(|(name, _)| validation::is_extended_resource(name));
    let extended = extended.filter(|(name, _)| !is_claimed(pod, container, name));
    placement::Container {
        name: container.name.clone(),
        kind: kind(container, is_init),
        cpu_millis: amount(asked.and_then(|list| list.get("cpu")).and_then(millis)),
        memory: memory
            .map(|(name, value)| (name.clone(), amount(units(value))))
            .collect::<BTreeMap<_, _>>(),
        extended: extended.map(|(name, value)| (name.clone(), amount(units(value)))).collect(),
    }
}

/// The pod as the managers see it.
fn described(pod: &Pod) -> placement::Pod {
    let spec = spec_of(pod);
    let init = spec.init_containers.iter().flatten().map(|c| container(pod, c, true));
    let own = spec.resources.as_ref();
    let some = |r: &&k8s_openapi::api::core::v1::ResourceRequirements| {
        [&r.requests, &r.limits].iter().any(|list| list.as_ref().is_some_and(|l| !l.is_empty()))
    };
    placement::Pod {
        uid: uid_of(pod).to_owned(),
        guaranteed: qos(pod) == Qos::Guaranteed,
        pod_level: own.filter(some).is_some(),
        containers: init.chain(spec.containers.iter().map(|c| container(pod, c, false))).collect(),
    }
}

impl Places {
    /// Takes over what an earlier run of the agent gave away; refuses settings that do not fit the machine
    /// or that state.
    pub(crate) fn open(config: &KubeletConfig, tasks: &Tasks) -> Result<Places, String> {
        let memory_bytes = node::memory_bytes(config);
        let mut settings = config.placement.settings.clone();
        settings.reserved_cpu_millis = config.reserved_cpu_millis;
        let kept = config.kept_memory_bytes(memory_bytes);
        settings.kept_memory.insert("memory".to_owned(), kept);
        let machine = machine(config, memory_bytes)?;
        let manager = Manager::new(&settings, &machine, config.root_dir.clone())?;
        let nodes = machine.nodes.iter().map(|node| node.id).collect();
        Ok(Places {
            devices: Devices::open(&config.root_dir, nodes, tasks.child()),
            figures: manager.figures(),
            manager: tokio::sync::Mutex::new(manager),
            has_static_cpus: settings.has_static_cpus(),
            has_static_memory: settings.has_static_memory(),
            is_any_on: settings.is_any_on(),
            refused: Mutex::default(),
            bound: Mutex::default(),
        })
    }

    /// In Prometheus' text form.
    pub(crate) fn metrics(&self) -> String {
        self.figures.text() + &self.devices.metrics()
    }

    fn refused(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The node does not take the pod after all.
    pub(crate) fn refuse(&self, uid: &str) {
        self.refused().insert(uid.to_owned());
    }

    /// The pod is gone, or is judged anew.
    pub(crate) fn forget(&self, uid: &str) {
        self.refused().remove(uid);
    }

    /// Frees what pods have that are not among these.
    fn retain(&self, manager: &mut Manager, pods: &[Arc<Pod>]) {
        let active = self.active(pods);
        manager.retain(|uid| active.contains(uid));
    }

    /// Uids of those that use what they were given.
    fn active(&self, pods: &[Arc<Pod>]) -> HashSet<String> {
        let refused = self.refused();
        let running = pods.iter().filter(|pod| !has_ended(pod)).map(|pod| uid_of(pod));
        running.filter(|uid| !refused.contains(*uid)).map(str::to_owned).collect()
    }

    /// Frees devices of pods that are no more, once all sources of pods were read.
    pub(crate) fn retain_devices(&self, pods: &Pods) {
        if pods.is_complete() {
            let active = self.active(&pods.list());
            self.devices.table().retain(|uid| active.contains(uid));
        }
    }

    /// Gives each container of the pod its place; `pods` are all that the node has or is asked to take, and
    /// `running` those containers of the pod that ran before the kubelet did.
    pub(crate) async fn admit(
        &self,
        pod: &Pod,
        pods: &Pods,
        running: Vec<String>,
    ) -> Result<(), Refusal> {
        // One that was refused before may be asked for again.
        self.forget(uid_of(pod));
        let mut manager = self.manager.lock().await;
        self.retain(&mut manager, &pods.list());
        self.retain_devices(pods);
        let mut provider = Provider { devices: &self.devices, running };
        let admitted = manager.admit(&described(pod), &mut provider).await;
        admitted.map_err(|e| Refusal { reason: e.reason.to_owned(), message: e.message })
    }

    /// Binds a container that is about to be made to its CPUs and NUMA nodes.
    pub(crate) async fn bind(&self, pod: &Pod, name: &str, to: &mut LinuxContainerResources) {
        let manager = self.manager.lock().await;
        let uid = uid_of(pod);
        to.cpuset_cpus = manager.cpus(uid, name).to_string();
        to.cpuset_mems = manager.memory_nodes(uid, name);
        if manager.exclusive_cpus(uid, name).is_some() {
            to.cpu_quota = NO_QUOTA;
        }
    }

    /// The device plugins' additions to the container. Plugins are told of the start.
    pub(crate) async fn devices(
        &self,
        pod: &Pod,
        name: &str,
    ) -> Result<Option<ContainerOptions>, String> {
        let pod = described(pod);
        let Some(own) = pod.containers.iter().find(|c| c.name == name) else { return Ok(None) };
        if own.extended.is_empty() {
            return Ok(None);
        }
        self.devices.pre_start(&pod.uid, own).await?;
        if self.devices.lacks(&pod.uid, own) {
            let _one_at_a_time = self.manager.lock().await;
            let mut provider = Provider { devices: &self.devices, running: Vec::new() };
            let given = provider.allocate(&pod, own, Hint::any(false)).await;
            given.map_err(|refused| refused.message)?;
        }
        Ok(self.devices.options(&pod.uid, name))
    }

    /// A pod with a container that has CPUs of its own has no quota as a whole.
    pub(crate) async fn lift_quota(&self, pod: &Pod, config: &mut PodSandboxConfig) {
        let resources = config.linux.as_mut().and_then(|linux| linux.resources.as_mut());
        let (Some(resources), manager) = (resources, self.manager.lock().await) else { return };
        let spec = spec_of(pod);
        let mut all = spec.init_containers.iter().flatten().chain(&spec.containers);
        if all.any(|c| manager.exclusive_cpus(uid_of(pod), &c.name).is_some()) {
            resources.cpu_quota = NO_QUOTA;
        }
    }

    /// The pods that use what they were given.
    pub(crate) fn active_pods(&self, pods: &[Arc<Pod>]) -> Vec<Arc<Pod>> {
        let active = self.active(pods);
        pods.iter().filter(|pod| active.contains(uid_of(pod))).cloned().collect()
    }

    /// The CPUs and the memory that the container has for itself.
    pub(crate) async fn of(&self, uid: &str, container: &str) -> (CpuSet, Vec<Block>) {
        let manager = self.manager.lock().await;
        let cpus = manager.exclusive_cpus(uid, container).unwrap_or_default();
        (cpus, manager.memory_blocks(uid, container))
    }

    /// The CPUs and the memory that containers may have for themselves.
    pub(crate) async fn allocatable(&self) -> (CpuSet, Vec<Block>) {
        let manager = self.manager.lock().await;
        (manager.allocatable_cpus().unwrap_or_default(), manager.allocatable_memory())
    }

    /// A container starts: init containers before it have ended.
    pub(crate) async fn started(&self, pod: &Pod, container: &str) {
        if self.has_static_memory {
            self.manager.lock().await.started(&described(pod), container);
        }
    }

    fn bound(&self) -> std::sync::MutexGuard<'_, HashMap<String, CpuSet>> {
        self.bound.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps containers bound to what is theirs, for as long as the agent runs.
pub(crate) async fn run(shared: Arc<Shared>) {
    if !shared.places.is_any_on {
        return shared.tasks.cancelled().await;
    }
    let mut ticks = tokio::time::interval(shared.config.placement.reconcile);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = reconcile(&shared).await {
            tracing::warn!(error = error.chain(), "containers not bound to their CPUs");
        }
    }
}

async fn reconcile(shared: &Shared) -> runtime::Result<()> {
    let places = &shared.places;
    // Before the containers are listed: what is freed meanwhile, the next look sees.
    places.retain(&mut *places.manager.lock().await, &shared.pods.list());
    let state = Some(ContainerStateValue { state: ContainerState::Running as i32 });
    let filter = ContainerFilter { state, ..ContainerFilter::default() };
    let running = shared.runtime.list_containers(filter).await?;
    places.bound().retain(|id, _| running.iter().any(|c| c.id == *id));
    for found in running {
        let label = |name: &str| found.labels.get(name).map(String::as_str);
        let names = (label(labels::POD_UID), label(labels::CONTAINER_NAME));
        let (Some(uid), Some(name)) = names else { continue };
        note_start(shared, uid, name).await;
        if places.has_static_cpus {
            rebind(shared, &found.id, uid, name).await?;
        }
    }
    Ok(())
}

/// What an earlier run of the agent may not have come to write down.
async fn note_start(shared: &Shared, uid: &str, name: &str) {
    if let Some(pod) = shared.pods.list().into_iter().find(|pod| uid_of(pod) == uid) {
        shared.places.started(&pod, name).await;
    }
}

async fn rebind(shared: &Shared, id: &str, uid: &str, name: &str) -> runtime::Result<()> {
    let places = &shared.places;
    let cpus = places.manager.lock().await.cpus(uid, name);
    if cpus.is_empty() || places.bound().get(id) == Some(&cpus) {
        return Ok(());
    }
    let values = LinuxContainerResources {
        cpuset_cpus: cpus.to_string(),
        ..LinuxContainerResources::default()
    };
    let request = UpdateContainerResourcesRequest {
        container_id: id.to_owned(),
        linux: Some(values),
        ..UpdateContainerResourcesRequest::default()
    };
    match shared.runtime.update_container_resources(request).await {
        Ok(()) => drop(places.bound().insert(id.to_owned(), cpus)),
        // It is tried again; the others are not kept waiting.
        Err(error) => tracing::warn!(container = name, error = error.chain(), "CPUs not set"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_is_described_in_the_order_of_its_start() {
        let one = |name: &str, policy: Option<&str>, cpu: &str| {
            json!({"name": name, "restartPolicy": policy, "resources": {
            "requests": {"cpu": cpu, "memory": "1Mi", "hugepages-2Mi": "4Mi", "ephemeral-storage": "1"},
            "limits": {"cpu": cpu, "memory": "1Mi", "hugepages-2Mi": "4Mi"}}})
        };
        let spec = json!({"initContainers": [one("i", None, "1"), one("s", Some("Always"), "500m")], "containers": [one("c", None, "2")]});
        let pod = |spec| {
            serde_json::from_value::<Pod>(json!({"metadata": {"uid": "u"}, "spec": spec})).unwrap()
        };
        let seen = described(&pod(spec.clone()));
        assert!(seen.guaranteed && !seen.pod_level);
        let brief: Vec<_> =
            seen.containers.iter().map(|c| (c.name.as_str(), c.kind, c.cpu_millis)).collect();
        let expected =
            [("i", Kind::Init, 1000), ("s", Kind::Sidecar, 500), ("c", Kind::Regular, 2000)];
        assert_eq!(brief, expected);
        let memory: Vec<_> = seen.containers[2].memory.iter().collect();
        assert_eq!(
            memory,
            [(&"hugepages-2Mi".to_owned(), &(4 << 20)), (&"memory".to_owned(), &(1 << 20))]
        );
        let mut whole = spec;
        whole["resources"] = json!({"limits": {"cpu": "3"}});
        assert!(described(&pod(whole)).pod_level);
    }
}
