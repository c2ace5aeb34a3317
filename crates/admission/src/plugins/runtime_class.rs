//! RuntimeClass: overhead and scheduling constraints of a pod's class go into the pod.
//!
//! Rule: `plugin/pkg/admission/runtimeclass`.

use serde_json::{Value, json};
use validation::{items, set_default};

use crate::attributes::{Attributes, Operation};
use crate::plugin::{Decision, Plugin, Verdict};

pub(super) struct RuntimeClass;

impl Plugin for RuntimeClass {
    fn name(&self) -> &'static str {
        "RuntimeClass"
    }

    fn handles(&self, request: &Attributes<'_>) -> bool {
        request.operation == Operation::Create && request.path() == ("", "pods", "")
    }

    fn mutate<'a>(&'a self, request: &'a Attributes<'a>, pod: &'a mut Value) -> Decision<'a> {
        apply(request, pod).into()
    }
}

fn apply(request: &Attributes<'_>, pod: &mut Value) -> Verdict {
    let refused = |pod: &Value, why: &str| Err(request.forbid(pod, why));
    let Some(name) = pod["spec"]["runtimeClassName"].as_str().map(str::to_owned) else {
        if pod["spec"]["overhead"].is_object() {
            let why = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";
            return refused(pod, why);
        }
        return Ok(());
    };
    let Some(class) = request.read(("node.k8s.io", "v1", "runtimeclasses"), &name) else {
        return refused(pod, &format!("pod rejected: RuntimeClass {name:?} not found"));
    };
    let overhead = &class["overhead"]["podFixed"];
    let given = pod["spec"]["overhead"].as_object().is_some_and(|o| !o.is_empty());
    if given && pod["spec"]["overhead"] != *overhead {
        let why = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";
        return refused(pod, why);
    }
    if overhead.is_object() {
        pod["spec"]["overhead"] = overhead.clone();
    }
    for (key, value) in class["scheduling"]["nodeSelector"].as_object().into_iter().flatten() {
        let (key, wanted) = (key.as_str(), value.as_str().unwrap_or(""));
        if let Some(own) = pod["spec"]["nodeSelector"][key].as_str().filter(|own| *own != wanted) {
            let why = format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {wanted}; pod.spec.nodeSelector[{key}] = {own}"
            );
            return refused(pod, &why);
        }
        pod["spec"]["nodeSelector"][key] = value.clone();
    }
    for toleration in items(&class["scheduling"], "tolerations") {
        set_default(&mut pod["spec"], "tolerations", json!([]));
        match pod["spec"]["tolerations"].as_array_mut() {
            Some(list) if !list.contains(toleration) => list.push(toleration.clone()),
            _ => {}
        }
    }
    Ok(())
}
