//! LimitRanger: defaults and bounds of a namespace's limit ranges.
//!
//! Rule: `plugin/pkg/admission/limitranger`.

use serde_json::Value;

use crate::attributes::{Attributes, Operation};
use crate::limits;
use crate::plugin::{Decision, Plugin, Verdict};

pub(super) struct LimitRanger;

impl Plugin for LimitRanger {
    fn name(&self) -> &'static str {
        "LimitRanger"
    }

    fn handles(&self, request: &Attributes<'_>) -> bool {
        matches!(
            (request.operation, request.path()),
            (Operation::Create, ("", "pods" | "persistentvolumeclaims", ""))
                | (Operation::Update, ("", "persistentvolumeclaims", "") | ("", "pods", "resize"))
        )
    }

    fn mutate<'a>(&'a self, request: &'a Attributes<'a>, object: &'a mut Value) -> Decision<'a> {
        if request.operation == Operation::Create && request.row.name == "pods" {
            let ranges = ranges(request);
            if !ranges.is_empty() {
                limits::default_pod(object, &ranges);
            }
        }
        Decision::ALLOWED
    }

    fn validate<'a>(&'a self, request: &'a Attributes<'a>, object: &'a Value) -> Decision<'a> {
        check(request, object).into()
    }
}

fn ranges(request: &Attributes<'_>) -> Vec<Value> {
    let prefix = format!("{}/", request.namespace());
    let ranges = request.cluster.list(("", "v1", "limitranges"), &prefix);
    ranges.iter().map(|range| range.to_value()).collect()
}

fn check(request: &Attributes<'_>, object: &Value) -> Verdict {
    let faults = match request.row.name {
        "pods" => limits::check_pod(object, &ranges(request)),
        _ => limits::check_claim(object, &ranges(request)),
    };
    match faults.as_slice() {
        [] => Ok(()),
        [one] => Err(request.forbid(object, one)),
        many => Err(request.forbid(object, &format!("[{}]", many.join(", ")))),
    }
}
