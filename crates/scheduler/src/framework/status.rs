//! Why a plugin rejects a pod.

use std::borrow::Cow;
use std::sync::Arc;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    /// The end of other pods may help.
    Unschedulable,
    /// The end of other pods cannot help (upstream's `UnschedulableAndUnresolvable`).
    Unresolvable,
    /// The plugin could not tell.
    Error,
}

impl Code {
    /// As upstream prints it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Code::Unschedulable => "Unschedulable",
            Code::Unresolvable => "UnschedulableAndUnresolvable",
            Code::Error => "Error",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) code: Code,
    /// Empty when no plugin of ours said so.
    pub(crate) plugin: &'static str,
    /// In upstream's words.
    pub(crate) reasons: Vec<Cow<'static, str>>,
}

impl Status {
    pub(crate) fn message(&self) -> String {
        self.reasons.join(", ")
    }
}

/// A plugin's answer about a node. Equal answers may share one status.
pub(crate) type Verdict = Result<(), Arc<Status>>;

pub(crate) fn reject(
    code: Code,
    plugin: &'static str,
    reason: impl Into<Cow<'static, str>>,
) -> Arc<Status> {
    Arc::new(Status { code, plugin, reasons: vec![reason.into()] })
}
