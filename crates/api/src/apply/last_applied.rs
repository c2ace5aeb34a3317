//! Moving an object from kubectl's client-side apply to server-side apply without conflicts.

use serde_json::Value;

use super::compare::Differences;
use super::extract;
use super::node::Node;
use super::operate::Manage;
use super::set::FieldSet;

/// Where client-side apply keeps what it applied last.
pub const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";

impl Manage<'_> {
    /// Fields that client-side apply set and nobody changed since: kubectl may take these over.
    pub fn last_applied(&self, live: &Value) -> Option<FieldSet> {
        let text = live["metadata"]["annotations"][ANNOTATION].as_str()?;
        let last: Value = serde_json::from_str(text).ok()?;
        let root = Node::root(self.shape);
        if last["apiVersion"] != self.api_version
            || !extract::check(self.schema, root, &last).is_empty()
        {
            return None;
        }
        let set = extract::fields(self.schema, root, &last).ok()?;
        let since = Differences::between(self.schema, root, &last, live).ok()?;
        let untouched = set.difference(&since.modified).difference(&since.added);
        Some(untouched.difference(&since.removed))
    }
}
