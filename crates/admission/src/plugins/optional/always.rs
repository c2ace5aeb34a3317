//! AlwaysAdmit and AlwaysDeny, which upstream keeps for old configurations and for tests.

use serde_json::Value;

use crate::attributes::Attributes;
use crate::plugin::{Decision, Plugin};

/// Does nothing.
pub(crate) struct AlwaysAdmit;

impl Plugin for AlwaysAdmit {
    fn name(&self) -> &'static str {
        "AlwaysAdmit"
    }

    fn handles(&self, _: &Attributes<'_>) -> bool {
        false
    }
}

/// Refuses everything.
pub(crate) struct AlwaysDeny;

impl Plugin for AlwaysDeny {
    fn name(&self) -> &'static str {
        "AlwaysDeny"
    }

    fn handles(&self, _: &Attributes<'_>) -> bool {
        true
    }

    fn mutate<'a>(&'a self, request: &'a Attributes<'a>, object: &'a mut Value) -> Decision<'a> {
        Err(request.forbid(object, "admission control is denying all modifications")).into()
    }
}
