//! Names and options of the topology manager's policies. Texts are upstream's.

use std::collections::BTreeMap;

use crate::go::{atoi, parse_bool};

const CLOSEST: &str = "prefer-closest-numa-nodes";
const MAX_NODES: &str = "max-allowable-numa-nodes";
const MAX_NODES_DEFAULT: usize = 8;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PolicyName {
    #[default]
    None,
    BestEffort,
    Restricted,
    SingleNumaNode,
}

impl PolicyName {
    pub fn name(self) -> &'static str {
        match self {
            PolicyName::None => "none",
            PolicyName::BestEffort => "best-effort",
            PolicyName::Restricted => "restricted",
            PolicyName::SingleNumaNode => "single-numa-node",
        }
    }

    pub fn parse(name: &str) -> Result<PolicyName, String> {
        match name {
            "none" => Ok(PolicyName::None),
            "best-effort" => Ok(PolicyName::BestEffort),
            "restricted" => Ok(PolicyName::Restricted),
            "single-numa-node" => Ok(PolicyName::SingleNumaNode),
            _ => Err(format!(
                "invalid configuration: topologyManagerPolicy (--topology-manager-policy) {name:?} must be one of: [\"none\" \"best-effort\" \"restricted\" \"single-numa-node\"]"
            )),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    #[default]
    Container,
    Pod,
}

impl Scope {
    pub fn name(self) -> &'static str {
        match self {
            Scope::Container => "container",
            Scope::Pod => "pod",
        }
    }

    pub fn parse(name: &str) -> Result<Scope, String> {
        match name {
            "container" => Ok(Scope::Container),
            "pod" => Ok(Scope::Pod),
            _ => Err(format!(
                "invalid configuration: topologyManagerScope (--topology-manager-scope) {name:?} must be one of: \"container\", or \"pod\""
            )),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopologyOptions {
    pub(super) prefer_closest: bool,
    pub(super) max_nodes: usize,
}

impl Default for TopologyOptions {
    fn default() -> TopologyOptions {
        TopologyOptions { prefer_closest: false, max_nodes: MAX_NODES_DEFAULT }
    }
}

impl TopologyOptions {
    pub fn parse(options: &BTreeMap<String, String>) -> Result<TopologyOptions, String> {
        let mut parsed = TopologyOptions::default();
        for (name, value) in options {
            match name.as_str() {
                CLOSEST => {
                    let read = parse_bool(value);
                    parsed.prefer_closest =
                        read.map_err(|e| format!("bad value for option {name:?}: {e}"))?;
                }
                MAX_NODES => parsed.max_nodes = max_nodes(name, value)?,
                _ => return Err(format!("unknown Topology Manager Policy option: {name:?}")),
            }
        }
        Ok(parsed)
    }
}

fn max_nodes(name: &str, value: &str) -> Result<usize, String> {
    let read = atoi(value)
        .map_err(|e| format!("unable to convert policy option to integer {name:?}: {e}"))?;
    let most = usize::try_from(read).unwrap_or(0);
    match most >= MAX_NODES_DEFAULT {
        true => Ok(most),
        false => Err(format!(
            "the minimum value of {name:?} should not be less than {MAX_NODES_DEFAULT}"
        )),
    }
}
