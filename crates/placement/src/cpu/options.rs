//! Options of the static CPU policy. Texts are upstream's.

use std::collections::BTreeMap;

use crate::go::parse_bool;
use crate::machine::CpuTopology;
use crate::topology::PolicyName;

const FULL_CORES: &str = "full-pcpus-only";
const ACROSS_NUMA: &str = "distribute-cpus-across-numa";
const BY_SOCKET: &str = "align-by-socket";
const ACROSS_CORES: &str = "distribute-cpus-across-cores";
const STRICT: &str = "strict-cpu-reservation";
const UNCORE: &str = "prefer-align-cpus-by-uncorecache";

/// Feature gates that let options be used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gates {
    /// `CPUManagerPolicyAlphaOptions`.
    pub(crate) alpha: bool,
    /// `CPUManagerPolicyBetaOptions`.
    pub(crate) beta: bool,
}

impl Default for Gates {
    fn default() -> Gates {
        Gates { alpha: false, beta: true }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CpuOptions {
    pub(crate) full_cores: bool,
    pub(crate) across_numa: bool,
    pub(crate) by_socket: bool,
    pub(crate) across_cores: bool,
    pub(crate) strict: bool,
    pub(crate) uncore: bool,
}

fn check_available(name: &str, gates: Gates) -> Result<(), String> {
    let closed = |level: &str| {
        Err(format!(
            "CPU Manager Policy {level}-level Options not enabled, but option {name:?} provided"
        ))
    };
    match name {
        BY_SOCKET | ACROSS_CORES if !gates.alpha => closed("Alpha"),
        ACROSS_NUMA if !gates.beta => closed("Beta"),
        FULL_CORES | ACROSS_NUMA | BY_SOCKET | ACROSS_CORES | STRICT | UNCORE => Ok(()),
        _ => Err(format!("unknown CPU Manager Policy option: {name:?}")),
    }
}

impl CpuOptions {
    pub(crate) fn parse(
        options: &BTreeMap<String, String>,
        gates: Gates,
    ) -> Result<CpuOptions, String> {
        let mut parsed = CpuOptions::default();
        for (name, value) in options {
            check_available(name, gates)?;
            let value =
                parse_bool(value).map_err(|e| format!("bad value for option {name:?}: {e}"))?;
            match name.as_str() {
                FULL_CORES => parsed.full_cores = value,
                ACROSS_NUMA => parsed.across_numa = value,
                BY_SOCKET => parsed.by_socket = value,
                ACROSS_CORES => parsed.across_cores = value,
                STRICT => parsed.strict = value,
                _ => parsed.uncore = value,
            }
        }
        parsed.check_together().map(|()| parsed)
    }

    fn check_together(&self) -> Result<(), String> {
        let pairs = [
            (self.full_cores && self.across_cores, FULL_CORES, ACROSS_CORES),
            (self.across_numa && self.across_cores, ACROSS_NUMA, ACROSS_CORES),
            (self.uncore && self.across_cores, UNCORE, ACROSS_CORES),
            (self.uncore && self.across_numa, UNCORE, ACROSS_NUMA),
        ];
        match pairs.iter().find(|(both, ..)| *both) {
            None => Ok(()),
            Some((_, one, other)) => Err(format!(
                "static policy options {one} and {other} can not be used at the same time"
            )),
        }
    }

    pub(crate) fn check_machine(
        &self,
        cpus: &CpuTopology,
        topology: PolicyName,
    ) -> Result<(), String> {
        if self.by_socket && topology == PolicyName::SingleNumaNode {
            // Upstream's spelling.
            return Err(format!(
                "Topolgy manager single-numa-node policy is incompatible with CPUManager {BY_SOCKET} policy option"
            ));
        }
        if self.by_socket && cpus.sockets > cpus.numa_nodes {
            return Err("Align by socket is not compatible with hardware where number of sockets are more than number of NUMA".into());
        }
        Ok(())
    }
}
