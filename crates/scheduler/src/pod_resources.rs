//! What every pod asks for and may use, as `/metrics/resources` tells it (`pkg/scheduler/metrics/resources`).

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use telemetry::family;

use crate::resources::{Resources, spec_limits, spec_only_requests};

/// The figures of these pods; those that have ended hold nothing.
pub(crate) fn text(pods: &[Arc<Pod>]) -> String {
    let live: Vec<&Pod> = pods.iter().map(|pod| &**pod).filter(|pod| !is_terminal(pod)).collect();
    let told = |name, help, of: fn(&Pod) -> Resources| {
        let amounts: Vec<(&Pod, String, Resources)> =
            live.iter().map(|pod| (*pod, priority(pod), of(pod))).collect();
        let figures = amounts.iter().flat_map(|(pod, priority, amounts)| {
            amounts.nonzero().map(move |(resource, amount)| {
                let spec = pod.spec.as_ref();
                let unit = unit(resource);
                let amount = if resource == "cpu" { amount as f64 / 1000.0 } else { amount as f64 };
                let labels = [
                    ("namespace", pod.metadata.namespace.as_deref()),
                    ("pod", pod.metadata.name.as_deref()),
                    ("node", spec.and_then(|s| s.node_name.as_deref())),
                    ("scheduler", spec.and_then(|s| s.scheduler_name.as_deref())),
                    ("priority", Some(priority.as_str())),
                    ("resource", Some(resource)),
                    ("unit", Some(unit)),
                ];
                (labels.map(|(label, value)| (label, value.unwrap_or(""))), amount)
            })
        });
        family((name, "gauge", help), figures)
    };
    told(
        "kube_pod_resource_limit",
        "Resources limit for workloads on the cluster, broken down by pod. This shows the resource usage the scheduler and kubelet expect per pod for resources along with the unit for the resource if any.",
        spec_limits,
    ) + &told(
        "kube_pod_resource_request",
        "Resources requested by workloads on the cluster, broken down by pod. This shows the resource usage the scheduler and kubelet expect per pod for resources along with the unit for the resource if any.",
        spec_only_requests,
    )
}

fn is_terminal(pod: &Pod) -> bool {
    let is_placed =
        pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).is_some_and(|n| !n.is_empty());
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    is_placed && matches!(phase, Some("Succeeded" | "Failed"))
}

fn priority(pod: &Pod) -> String {
    let priority = pod.spec.as_ref().and_then(|spec| spec.priority);
    priority.map(|priority| priority.to_string()).unwrap_or_default()
}

fn unit(resource: &str) -> &'static str {
    match resource {
        "cpu" => "cores",
        "memory" | "storage" | "ephemeral-storage" => "bytes",
        name if name.starts_with("hugepages-") => "bytes",
        name if name.starts_with("attachable-volumes-") => "integer",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(name: &str, spec: Value, phase: &str) -> Arc<Pod> {
        let pod = json!({"metadata": {"name": name, "namespace": "n"}, "spec": spec, "status": {"phase": phase}});
        Arc::new(serde_json::from_value(pod).expect("a pod"))
    }

    #[test]
    fn pods_that_hold_something_are_told_with_units() {
        let main = json!({"name": "c", "resources": {
            "requests": {"cpu": "250m", "memory": "64Mi", "hugepages-2Mi": "2Mi", "example.com/gpu": "1"},
            "limits": {"cpu": "1500m"}}});
        let init = json!({"name": "i", "resources": {"requests": {"cpu": "1"}}});
        let spec = json!({"nodeName": "node", "schedulerName": "own", "priority": 7,
            "overhead": {"cpu": "100m", "memory": "1Mi"},
            "containers": [main], "initContainers": [init]});
        let ended = json!({"nodeName": "node", "containers": [spec["containers"][0]]});
        let never = json!({"containers": [spec["containers"][0]]});
        let told = text(&[
            pod("a", spec, "Running"),
            pod("ended", ended, "Succeeded"),
            pod("never-placed", never, "Failed"),
        ]);
        let line = |family: &str, pod: &str, resource: &str, unit: &str| {
            let (node, scheduler, priority) =
                if pod == "a" { ("node", "own", "7") } else { ("", "", "") };
            let line = format!(
                "{family}{{namespace=\"n\",pod=\"{pod}\",node=\"{node}\",scheduler=\"{scheduler}\",priority=\"{priority}\",resource=\"{resource}\",unit=\"{unit}\"}} "
            );
            told.lines().find_map(|l| Some(l.strip_prefix(&line)?.to_owned()))
        };
        let request = |resource, unit| line("kube_pod_resource_request", "a", resource, unit);
        // The init container's peak is more than the container's request, and the overhead comes on top.
        assert_eq!(request("cpu", "cores").as_deref(), Some("1.1"));
        assert_eq!(request("memory", "bytes").as_deref(), Some("68157440"));
        assert_eq!(request("hugepages-2Mi", "bytes").as_deref(), Some("2097152"));
        assert_eq!(request("example.com/gpu", "").as_deref(), Some("1"));
        let limit = |resource, unit| line("kube_pod_resource_limit", "a", resource, unit);
        assert_eq!(limit("cpu", "cores").as_deref(), Some("1.6"));
        assert_eq!(limit("memory", "bytes"), None, "overhead alone is no limit");
        assert!(!told.contains("\"ended\""), "{told}");
        let unplaced = line("kube_pod_resource_request", "never-placed", "cpu", "cores");
        assert_eq!(
            unplaced.as_deref(),
            Some("0.25"),
            "a pod that was never placed cannot be terminal"
        );
    }
}
