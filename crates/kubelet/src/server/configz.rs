//! `/configz`: the node's settings, as a `KubeletConfiguration`.

use serde_json::{Value, json};

use super::Response;
use crate::config::KubeletConfig;
use crate::thresholds::Amount;

fn amount(amount: Amount) -> String {
    match amount {
        Amount::Bytes(n) => n.to_string(),
        Amount::Percent(p) => format!("{p}%"),
    }
}

fn seconds(duration: std::time::Duration) -> String {
    format!("{}s", duration.as_secs())
}

fn settings(config: &KubeletConfig) -> Value {
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
        "nodeStatusUpdateFrequency": seconds(config.status_update_interval),
        "nodeStatusReportFrequency": seconds(config.status_report_interval),
        "nodeLeaseDurationSeconds": config.lease_duration.as_secs(),
        "evictionHard": {
            "memory.available": amount(config.eviction.memory),
            "nodefs.available": amount(config.eviction.disk),
            "nodefs.inodesFree": amount(config.eviction.inodes),
        },
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
        assert_eq!(shown["evictionHard"]["memory.available"], "104857600");
        assert_eq!(shown["nodeStatusReportFrequency"], "300s");
    }
}
