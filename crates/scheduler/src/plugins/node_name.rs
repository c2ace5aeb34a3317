//! NodeName: the node that the pod names.

use super::names;
use crate::event::{Action, Interest, Resource};
use crate::framework::{Code, Cycle, Plugin, Points, Verdict, reject};
use crate::node::NodeInfo;

#[derive(Debug)]
pub(crate) struct NodeName;

impl Plugin for NodeName {
    fn name(&self) -> &'static str {
        names::NODE_NAME
    }

    fn points(&self) -> Points {
        Points::FILTER
    }

    fn is_node_local(&self) -> bool {
        true
    }

    fn events(&self) -> &'static [Interest] {
        &[(Resource::Node, Action::ADD)]
    }

    fn filter(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> Verdict {
        let asked = cycle.pod.spec().and_then(|s| s.node_name.as_deref()).unwrap_or("");
        if asked.is_empty() || asked == &*node.name {
            return Ok(());
        }
        let why = "node(s) didn't match the requested node name";
        Err(reject(Code::Unresolvable, self.name(), why))
    }
}
