//! A node that is short of something takes no pods that would make it worse.

use k8s_openapi::api::core::v1::{Pod, Taint};

use super::Refusal;
use super::taints::is_tolerated;
use crate::spec::resources::{Qos, qos};

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

pub(super) fn check(pod: &Pod, is_critical: bool, pressure: &[Pressure]) -> Result<(), Refusal> {
    if pressure.is_empty() || is_critical {
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
