//! What an allocator is told by its caller, and how it fails.

use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::core::v1::NodeSelector;
use k8s_openapi::api::resource::v1::DeviceClass;

/// The most devices of one claim (`resource.AllocationResultsMaxSize`).
pub const RESULTS_MAX: usize = 32;

/// A node as allocation sees it.
pub struct NodeView<'a> {
    pub name: &'a str,
    pub matches: &'a dyn Fn(&NodeSelector) -> bool,
}

impl fmt::Debug for NodeView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeView({})", self.name)
    }
}

/// What the allocator asks its caller for.
pub struct Environment<'a> {
    pub class: &'a dyn Fn(&str) -> Option<Arc<DeviceClass>>,
    /// A new id of a share, unique for ever.
    pub share_id: &'a dyn Fn() -> String,
    /// Whether the search has taken too long.
    pub is_late: &'a dyn Fn() -> bool,
}

impl fmt::Debug for Environment<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Environment")
    }
}

/// Why there is no answer; texts are upstream's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Other nodes may do.
    Node(String),
    /// Something is wrong with a claim or a class: no other node will do.
    Claim(String),
    Late,
}
