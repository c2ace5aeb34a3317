//! Priority and DefaultTolerationSeconds: what every pod gets.
//!
//! Rules: `plugin/pkg/admission/priority` and `defaulttolerationseconds`.

use api::{Object, Status};
use serde_json::{Value, json};
use validation::set_default;

use crate::attributes::{Attributes, Gvr, Operation};
use crate::plugin::{Decision, Plugin, Verdict};

const CLASSES: Gvr = ("scheduling.k8s.io", "v1", "priorityclasses");
/// Seconds a pod tolerates its node being not ready or unreachable.
const TOLERATION_SECONDS: i64 = 300;

/// Is this text somewhere in the object's JSON?
pub(super) fn says(object: &Object, text: &str) -> bool {
    memchr::memmem::find(object.json(), text.as_bytes()).is_some()
}

fn is_pod_write(request: &Attributes<'_>) -> bool {
    let writes = matches!(request.operation, Operation::Create | Operation::Update);
    writes && request.path() == ("", "pods", "")
}

/// The number and preemption policy of a pod's priority class are written into the pod.
pub(super) struct Priority;

impl Plugin for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    fn handles(&self, request: &Attributes<'_>) -> bool {
        is_pod_write(request)
    }

    fn mutate<'a>(&'a self, request: &'a Attributes<'a>, pod: &'a mut Value) -> Decision<'a> {
        match request.old {
            Some(old) => keep_priority(old, pod),
            None => return set_priority(request, pod).into(),
        }
        Decision::ALLOWED
    }
}

fn set_priority(request: &Attributes<'_>, pod: &mut Value) -> Verdict {
    let class = class_of(request, pod)?;
    let (number, policy) = match &class {
        Some(class) => {
            pod["spec"]["priorityClassName"] = class["metadata"]["name"].clone();
            (class["value"].as_i64().unwrap_or(0), class["preemptionPolicy"].clone())
        }
        None => (0, Value::Null),
    };
    let policy = if policy.is_null() { "PreemptLowerPriority".into() } else { policy };
    refuse_own(request, pod, number, &policy)?;
    pod["spec"]["priority"] = number.into();
    pod["spec"]["preemptionPolicy"] = policy;
    Ok(())
}

/// The class that the pod names, else the default one.
fn class_of(request: &Attributes<'_>, pod: &Value) -> Result<Option<Value>, Status> {
    if let Some(name) = pod["spec"]["priorityClassName"].as_str().filter(|n| !n.is_empty()) {
        let found = request.read(CLASSES, name);
        let missing = || format!("no PriorityClass with name {name} was found");
        return found.ok_or_else(|| request.forbid(pod, &missing())).map(Some);
    }
    let all = request.cluster.list(CLASSES, "");
    // Few clusters have a default class: the others' text says so without being parsed.
    let marked = all.iter().filter(|class| says(class, "\"globalDefault\":true"));
    Ok(marked.map(|class| class.to_value()).find(|class| class["globalDefault"] == true))
}

/// A pod does not choose what its class decides.
fn refuse_own(request: &Attributes<'_>, pod: &Value, number: i64, policy: &Value) -> Verdict {
    const COMPUTED: &str =
        "must not be provided in pod spec; priority admission controller computed";
    const SOURCE: &str = "from the given PriorityClass name";
    if let Some(own) = pod["spec"]["priority"].as_i64().filter(|own| *own != number) {
        let why = format!("the integer value of priority ({own}) {COMPUTED} {number} {SOURCE}");
        return Err(request.forbid(pod, &why));
    }
    let computed = policy.as_str().unwrap_or("");
    if let Some(own) = pod["spec"]["preemptionPolicy"].as_str().filter(|own| *own != computed) {
        let why =
            format!("the string value of PreemptionPolicy ({own}) {COMPUTED} {computed} {SOURCE}");
        return Err(request.forbid(pod, &why));
    }
    Ok(())
}

/// A client that replaces a pod need not know what its class made of it.
fn keep_priority(old: &Value, new: &mut Value) {
    for key in ["priority", "preemptionPolicy"] {
        if new["spec"][key].is_null() && !old["spec"][key].is_null() {
            new["spec"][key] = old["spec"][key].clone();
        }
    }
}

/// Pods tolerate their node's absence for a while.
pub(super) struct DefaultTolerationSeconds;

impl Plugin for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    fn handles(&self, request: &Attributes<'_>) -> bool {
        is_pod_write(request)
    }

    fn mutate<'a>(&'a self, _: &'a Attributes<'a>, pod: &'a mut Value) -> Decision<'a> {
        default_tolerations(pod);
        Decision::ALLOWED
    }
}

fn default_tolerations(pod: &mut Value) {
    set_default(&mut pod["spec"], "tolerations", json!([]));
    let Some(tolerations) = pod["spec"]["tolerations"].as_array_mut() else { return };
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let covered = tolerations.iter().any(|t| {
            let all = t["key"].as_str().unwrap_or("").is_empty();
            let effect = t["effect"].as_str().unwrap_or("");
            (all || t["key"] == key) && matches!(effect, "" | "NoExecute")
        });
        if !covered {
            tolerations.push(json!({
                "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": TOLERATION_SECONDS,
            }));
        }
    }
}
