//! `/configz`: the node's settings, as a `KubeletConfiguration`.

use serde_json::{Value, json};

use super::Response;
use crate::config::KubeletConfig;
use crate::thresholds::{Amount, EvictionConfig, Signal};

fn amounts(of: impl Iterator<Item = (Signal, Amount)>) -> Value {
    of.map(|(signal, amount)| (signal.name().to_owned(), json!(amount.to_string()))).collect()
}

fn seconds(duration: std::time::Duration) -> String {
    format!("{}s", duration.as_secs())
}

fn graces(eviction: &EvictionConfig) -> Value {
    let all = eviction.soft_grace.iter();
    all.map(|(signal, grace)| (signal.name().to_owned(), json!(seconds(*grace)))).collect()
}

fn managers(config: &KubeletConfig) -> Value {
    let placing = &config.placement.settings;
    let named = |policy: &str, default: &str| match policy {
        "" => default.to_owned(),
        policy => policy.to_owned(),
    };
    json!({
        "cpuManagerPolicy": named(&placing.cpu_policy, "none"),
        "cpuManagerPolicyOptions": placing.cpu_options,
        "cpuManagerReconcilePeriod": seconds(config.placement.reconcile),
        "memoryManagerPolicy": named(&placing.memory_policy, "None"),
        "topologyManagerPolicy": placing.topology_policy.name(),
        "topologyManagerScope": placing.topology_scope.name(),
        "reservedSystemCPUs": placing.reserved_cpus.to_string(),
    })
}

fn settings(config: &KubeletConfig) -> Value {
    let mut all = basics(config);
    if let (Some(all), Value::Object(more)) = (all.as_object_mut(), managers(config)) {
        all.extend(more);
    }
    all
}

fn basics(config: &KubeletConfig) -> Value {
    let taints = &config.taints;
    json!({
        "kind": "KubeletConfiguration",
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true, "cacheTTL": "2m0s"},
        },
        "authorization": {
            "mode": "Webhook",
            "webhook": {"cacheAuthorizedTTL": "5m0s", "cacheUnauthorizedTTL": "30s"},
        },
        "port": config.port,
        "readOnlyPort": 0,
        "registerNode": config.register_node,
        "registerWithTaints": taints,
        "clusterDNS": config.cluster_dns,
        "clusterDomain": config.cluster_domain,
        "resolvConf": config.resolv_conf,
        "maxPods": config.max_pods,
        "podLogsDir": config.log_dir,
        "providerID": config.provider_id.clone().unwrap_or_default(),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": config.cgroup_root,
        "containerLogMaxSize": config.log_max_bytes.to_string(),
        "containerLogMaxFiles": config.log_max_files,
        "imageGCHighThresholdPercent": config.image_gc_high_percent,
        "imageGCLowThresholdPercent": config.image_gc_low_percent,
        "imageMinimumGCAge": seconds(config.image_min_age),
        "imageMaximumGCAge": seconds(config.image_max_age.unwrap_or_default()),
        "nodeStatusUpdateFrequency": seconds(config.status_update_interval),
        "nodeStatusReportFrequency": seconds(config.status_report_interval),
        "nodeLeaseDurationSeconds": config.lease_duration.as_secs(),
        "evictionHard": amounts(config.eviction.hard.iter()),
        "evictionSoft": amounts(config.eviction.soft.iter()),
        "evictionSoftGracePeriod": graces(&config.eviction),
        "evictionMinimumReclaim": amounts(
            config.eviction.minimum_reclaim.iter().map(|(signal, amount)| (*signal, *amount)),
        ),
        "evictionPressureTransitionPeriod": seconds(config.eviction.transition),
        "evictionMaxPodGracePeriod": config.eviction.max_pod_grace_seconds,
        "staticPodPath": config.static_pods.path,
        "staticPodURL": config.static_pods.url,
        "fileCheckFrequency": seconds(config.static_pods.file_check),
        "httpCheckFrequency": seconds(config.static_pods.http_check),
        "kubeReserved": {
            "cpu": format!("{}m", config.reserved_cpu_millis),
            "memory": config.reserved_memory_bytes.to_string(),
        },
    })
}

pub(super) fn serve(config: &KubeletConfig) -> Response {
    super::json(&json!({"kubeletconfig": settings(config)}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_named_as_in_the_configuration() {
        let mut config = KubeletConfig::new("n");
        config.max_pods = 7;
        let shown = settings(&config);
        assert_eq!(shown["maxPods"], 7);
        assert_eq!(
            (&shown["cpuManagerPolicy"], &shown["topologyManagerScope"]),
            (&json!("none"), &json!("container"))
        );
        assert_eq!(shown["evictionHard"]["memory.available"], "104857600");
        assert_eq!(shown["nodeStatusReportFrequency"], "300s");
    }
}
