//! A node that is short of something takes no pods that would make it worse.

use k8s_openapi::api::core::v1::{Pod, Taint};

use super::taints::is_tolerated;
use super::{Refusal, is_critical};
use crate::node::Machine;
use crate::spec::resources::{Qos, qos};
use crate::thresholds::Thresholds;

/// What the node is short of, named as its condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Pressure {
    Memory,
    Disk,
    Pids,
}

impl Pressure {
    fn name(self) -> &'static str {
        match self {
            Pressure::Memory => "MemoryPressure",
            Pressure::Disk => "DiskPressure",
            Pressure::Pids => "PIDPressure",
        }
    }
}

/// Everything that the machine is short of.
pub(crate) fn of(machine: &Machine, least: &Thresholds) -> Vec<Pressure> {
    let disk = least.disk.is_short(machine.disk_available_bytes, machine.disk_bytes)
        || least.inodes.is_short(machine.inodes_free, machine.inodes);
    let memory = least.memory.is_short(machine.memory_available_bytes, machine.memory_bytes);
    let pids = machine.pids_max > 0 && machine.pids >= machine.pids_max;
    let all = [(Pressure::Memory, memory), (Pressure::Disk, disk), (Pressure::Pids, pids)];
    all.into_iter().filter(|(_, short)| *short).map(|(pressure, _)| pressure).collect()
}

pub(super) fn check(pod: &Pod, pressure: &[Pressure]) -> Result<(), Refusal> {
    if pressure.is_empty() || is_critical(pod) {
        return Ok(());
    }
    // Of memory alone: pods that have asked for theirs may come.
    if pressure == [Pressure::Memory] {
        let taint = Taint {
            key: "node.kubernetes.io/memory-pressure".into(),
            effect: "NoSchedule".into(),
            ..Taint::default()
        };
        if qos(pod) != Qos::BestEffort || is_tolerated(pod, &taint) {
            return Ok(());
        }
    }
    let names: Vec<&str> = pressure.iter().map(|p| p.name()).collect();
    Err(Refusal::new("Evicted", format!("The node had condition: [{}]. ", names.join(" "))))
}
