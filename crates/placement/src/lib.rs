//! Which CPUs and which memory of the machine a container gets: CPU, memory and topology managers.
//!
//! The decisions are pure: they see the machine ([`Machine`]) and pods ([`Pod`]) as plain values. Only state
//! files (in upstream's form, so that either kubelet can take over from the other) and `/sys` are read and
//! written. Devices take part through [`HintProvider`]; [`DeviceTable`] says which containers have them.

mod checkpoint;
mod combine;
mod cpu;
mod cpuset;
mod devices;
mod discover;
mod error;
mod figures;
mod go;
mod machine;
mod manager;
mod mask;
mod memory;
mod pod;
mod provider;
mod topology;

pub use cpuset::CpuSet;
pub use devices::{
    Allocation, Asking, Choice, Device, DeviceTable, DevicesPerNode, NO_NODE, Preference,
};
pub use discover::{discover, huge_pages};
pub use error::AdmissionError;
pub use figures::Figures;
pub use machine::{Cpu, CpuTopology, Cpus, Machine, NumaNode};
pub use manager::{Manager, Settings};
pub use mask::{Hint, NumaMask};
pub use memory::{Block, Reservation};
pub use pod::{Container, Kind, Pod};
pub use provider::{HintProvider, Hints, NoDevices};
pub use topology::{PolicyName, Scope, TopologyOptions};
