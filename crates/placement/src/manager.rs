//! All managers together: a pod is admitted when each of its containers gets its place.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::cpu::{CpuManager, CpuOptions, Gates};
use crate::cpuset::CpuSet;
use crate::error::AdmissionError;
use crate::figures::Figures;
use crate::machine::Machine;
use crate::mask::Hint;
use crate::memory::{Block, MemoryManager, Reservation, check_reserved};
use crate::pod::{Container, Pod};
use crate::provider::HintProvider;
use crate::topology::{PolicyName, Scope, Topology, TopologyOptions};

/// What the node is told to do, in the words of its configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// `none` or `static`; empty is `none`.
    pub cpu_policy: String,
    pub cpu_options: BTreeMap<String, String>,
    /// `CPUManagerPolicyAlphaOptions` is on.
    pub alpha_options: bool,
    /// `CPUManagerPolicyBetaOptions` is off.
    pub no_beta_options: bool,
    /// Kept for the node itself, in thousandths, …
    pub reserved_cpu_millis: u64,
    /// … or by their ids (`reservedSystemCPUs`).
    pub reserved_cpus: CpuSet,
    /// `None` or `Static`; empty is `None`.
    pub memory_policy: String,
    pub reserved_memory: Vec<Reservation>,
    /// Bytes that the node keeps back of memory and huge pages in all, by resource.
    pub kept_memory: BTreeMap<String, u64>,
    pub topology_policy: PolicyName,
    pub topology_scope: Scope,
    pub topology_options: TopologyOptions,
}

impl Settings {
    pub fn has_static_cpus(&self) -> bool {
        self.cpu_policy == "static"
    }

    pub fn has_static_memory(&self) -> bool {
        self.memory_policy == "Static"
    }

    /// Whether any manager has a policy that may refuse or bind containers.
    pub fn is_any_on(&self) -> bool {
        self.has_static_cpus()
            || self.has_static_memory()
            || self.topology_policy != PolicyName::None
    }

    fn reserved(&self) -> Result<(usize, CpuSet), String> {
        if !self.reserved_cpus.is_empty() {
            return Ok((self.reserved_cpus.len(), self.reserved_cpus.clone()));
        }
        if self.reserved_cpu_millis == 0 {
            return Err("[cpumanager] the static policy requires systemreserved.cpu + kubereserved.cpu to be greater than zero".into());
        }
        let count = usize::try_from(self.reserved_cpu_millis.div_ceil(1000));
        Ok((count.unwrap_or(usize::MAX), CpuSet::new()))
    }

    fn cpu(&self, machine: &Machine) -> Result<crate::cpu::Settings, String> {
        match self.cpu_policy.as_str() {
            "" | "none" if self.cpu_options.is_empty() => Ok(crate::cpu::Settings {
                is_static: false,
                options: CpuOptions::default(),
                reserved: (0, CpuSet::new()),
            }),
            "" | "none" => {
                let all = self.cpu_options.iter().map(|(k, v)| format!("{k}:{v}"));
                let all = all.collect::<Vec<_>>().join(" ");
                Err(format!(
                    "new none policy error: None policy: received unsupported options=map[{all}]"
                ))
            }
            "static" => {
                let reserved = self.reserved()?;
                let gates = Gates { alpha: self.alpha_options, beta: !self.no_beta_options };
                let options = CpuOptions::parse(&self.cpu_options, gates).and_then(|options| {
                    options.check_machine(&machine.cpus, self.topology_policy).map(|()| options)
                });
                let options = options.map_err(|e| format!("new static policy error: {e}"))?;
                Ok(crate::cpu::Settings { is_static: true, options, reserved })
            }
            other => Err(format!("unknown policy: {other:?}")),
        }
    }
}

/// The managers of one node.
pub struct Manager {
    topology: Topology,
    cpu: CpuManager,
    memory: MemoryManager,
    figures: Figures,
}

impl std::fmt::Debug for Manager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Manager({:?})", self.topology)
    }
}

impl Manager {
    /// Takes over the state of an earlier run, which lies in `dir`.
    pub fn new(settings: &Settings, machine: &Machine, dir: PathBuf) -> Result<Manager, String> {
        let figures = Figures::default();
        let topology = Topology::new(
            settings.topology_policy,
            settings.topology_scope,
            settings.topology_options,
            &machine.nodes,
        )?;
        let cpu = CpuManager::new(&machine.cpus, settings.cpu(machine)?, &dir, &figures)?;
        let reserved = match settings.memory_policy.as_str() {
            "" | "None" => None,
            "Static" => Some(check_reserved(
                &machine.nodes,
                &settings.kept_memory,
                &settings.reserved_memory,
            )?),
            "BestEffort" => {
                return Err("policy \"BestEffort\" is not available for platform \"linux\"".into());
            }
            other => return Err(format!("unknown policy: {other:?}")),
        };
        let memory = MemoryManager::new(&machine.nodes, reserved, &dir, &figures)?;
        Ok(Manager { topology, cpu, memory, figures })
    }

    pub fn figures(&self) -> Figures {
        self.figures.clone()
    }

    /// Gives each container of the pod its place, or says why there is none. What a refused pod was given is
    /// taken back by the next [`Manager::retain`].
    pub async fn admit(
        &mut self,
        pod: &Pod,
        devices: &mut dyn HintProvider,
    ) -> Result<(), AdmissionError> {
        if self.topology.policy == PolicyName::None {
            for container in &pod.containers {
                self.allocate(pod, container, Hint::any(false), devices).await?;
            }
            return Ok(());
        }
        self.figures.admission();
        let admitted = match self.topology.scope {
            Scope::Container => self.admit_containers(pod, devices).await,
            Scope::Pod => self.admit_pod(pod, devices).await,
        };
        if admitted.is_err() {
            self.figures.admission_failed();
        }
        admitted
    }

    async fn admit_containers(
        &mut self,
        pod: &Pod,
        devices: &mut dyn HintProvider,
    ) -> Result<(), AdmissionError> {
        for container in &pod.containers {
            let hints = [
                devices.hints(pod, container),
                self.cpu.hints(pod, container),
                self.memory.hints(pod, container),
            ];
            let hint = self.decide(&hints, "container")?;
            self.allocate(pod, container, hint, devices).await?;
            self.note_aligned("container");
        }
        Ok(())
    }

    async fn admit_pod(
        &mut self,
        pod: &Pod,
        devices: &mut dyn HintProvider,
    ) -> Result<(), AdmissionError> {
        let hints = [devices.pod_hints(pod), self.cpu.pod_hints(pod), self.memory.pod_hints(pod)];
        let hint = self.decide(&hints, "pod")?;
        for container in &pod.containers {
            self.allocate(pod, container, hint, devices).await?;
        }
        self.note_aligned("pod");
        Ok(())
    }

    /// Only this policy promises one node.
    fn is_aligning(&self) -> bool {
        self.topology.policy == PolicyName::SingleNumaNode
    }

    fn note_aligned(&self, scope: &'static str) {
        if self.is_aligning() {
            self.figures.aligned(scope, "numa_node");
        }
    }

    fn decide(
        &self,
        hints: &[crate::provider::Hints],
        scope: &'static str,
    ) -> Result<Hint, AdmissionError> {
        let (hint, admitted) = self.topology.decide(hints);
        if admitted {
            return Ok(hint);
        }
        if self.is_aligning() {
            self.figures.not_aligned(scope, "numa_node");
        }
        Err(AdmissionError::topology())
    }

    async fn allocate(
        &mut self,
        pod: &Pod,
        container: &Container,
        hint: Hint,
        devices: &mut dyn HintProvider,
    ) -> Result<(), AdmissionError> {
        devices.allocate(pod, container, hint).await?;
        self.cpu.allocate(pod, container, hint).await?;
        self.memory.allocate(pod, container, hint).await
    }

    /// Takes back what pods have that are no more.
    pub fn retain(&mut self, is_active: impl Fn(&str) -> bool) {
        self.cpu.retain(&is_active);
        self.memory.retain(&is_active);
    }

    /// A container starts.
    pub fn started(&mut self, pod: &Pod, container: &str) {
        self.memory.started(pod, container);
    }

    /// The CPUs that a container is bound to; empty: all.
    pub fn cpus(&self, pod: &str, container: &str) -> CpuSet {
        self.cpu.cpus(pod, container)
    }

    /// The CPUs that belong to the container alone.
    pub fn exclusive_cpus(&self, pod: &str, container: &str) -> Option<CpuSet> {
        self.cpu.exclusive(pod, container)
    }

    /// The NUMA nodes whose memory a container is bound to, in the kernel's list form; empty: all.
    pub fn memory_nodes(&self, pod: &str, container: &str) -> String {
        let nodes = self.memory.nodes(pod, container).nodes().map(|id| id.to_string());
        nodes.collect::<Vec<_>>().join(",")
    }

    pub fn memory_blocks(&self, pod: &str, container: &str) -> Vec<Block> {
        self.memory.blocks(pod, container)
    }

    /// CPUs that containers may have for themselves; `None` without the static policy.
    pub fn allocatable_cpus(&self) -> Option<CpuSet> {
        self.cpu.allocatable()
    }

    pub fn allocatable_memory(&self) -> Vec<Block> {
        self.memory.allocatable()
    }
}
