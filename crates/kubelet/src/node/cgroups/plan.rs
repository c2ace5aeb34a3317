//! Values of the node's cgroups. Pure.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use runtime::cri::{HugepageLimit, LinuxContainerResources};

use crate::admission::requests;
use crate::config::{KubeletConfig, ReservedCgroup};
use crate::node::Machine;
use crate::spec::has_ended;
use crate::spec::resources::{Qos, page_name, qos, shares};

/// More huge pages than any machine has.
const UNBOUNDED: u64 = 1 << 62;
/// The processes of a group, on cgroup v1 and v2.
const PIDS: &str = "pids.max";

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Limits of huge pages: of each size (bytes of a page, and how many there are) so many bytes.
fn huge_pages(pages: &[(u64, u64)], limit: impl Fn(u64, u64) -> u64) -> Vec<HugepageLimit> {
    let one = |(size, count): &(u64, u64)| HugepageLimit {
        page_size: page_name(*size),
        limit: limit(*size, *count),
    };
    pages.iter().map(one).collect()
}

/// All pods together have what the node has; where that is enforced, less what it keeps for itself.
pub(super) fn pods(
    config: &KubeletConfig,
    machine: &Machine,
    pages: &[(u64, u64)],
) -> LinuxContainerResources {
    let left = |all: u64, kept: u64| match config.cgroups.enforce_pods {
        true => all.saturating_sub(kept),
        false => all,
    };
    let pids = left(machine.pids_max, config.cgroups.reserved_pids);
    LinuxContainerResources {
        cpu_shares: shares(signed(left(machine.cpu_millis, config.reserved_cpu_millis))),
        memory_limit_in_bytes: signed(left(machine.memory_bytes, config.reserved_memory_bytes)),
        // Swap has limits of its own.
        memory_swap_limit_in_bytes: -1,
        hugepage_limits: huge_pages(pages, |size, count| size.saturating_mul(count)),
        unified: (machine.pids_max > 0)
            .then(|| (PIDS.to_owned(), pids.to_string()))
            .into_iter()
            .collect(),
        ..LinuxContainerResources::default()
    }
}

/// Burstable pods share CPU by what they request together, the others take what is left.
pub(super) fn burstable(pods: &[Arc<Pod>], pages: &[(u64, u64)]) -> LinuxContainerResources {
    let counts = pods.iter().filter(|pod| !has_ended(pod) && qos(pod) == Qos::Burstable);
    let asked = counts.filter_map(|pod| requests(pod).get("cpu").copied());
    let sum = asked.fold(0i64, i64::saturating_add);
    class(shares(sum), pages)
}

pub(super) fn best_effort(pages: &[(u64, u64)]) -> LinuxContainerResources {
    class(shares(0), pages)
}

fn class(cpu_shares: i64, pages: &[(u64, u64)]) -> LinuxContainerResources {
    LinuxContainerResources {
        cpu_shares,
        hugepage_limits: huge_pages(pages, |_, _| UNBOUNDED),
        ..LinuxContainerResources::default()
    }
}

/// A group of the node's own daemons.
pub(super) fn reserved(group: &ReservedCgroup) -> LinuxContainerResources {
    let all = !group.only_compressible;
    let memory = group.memory_bytes.filter(|_| all).map_or(0, signed);
    let pids = group.pids.filter(|_| all).map(|most| (PIDS.to_owned(), most.to_string()));
    LinuxContainerResources {
        cpu_shares: group.cpu_millis.map_or(0, |millis| shares(signed(millis))),
        memory_limit_in_bytes: memory,
        memory_swap_limit_in_bytes: if memory > 0 { -1 } else { 0 },
        unified: pids.into_iter().collect(),
        ..LinuxContainerResources::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn machine() -> Machine {
        Machine { cpu_millis: 4000, memory_bytes: 8 << 30, pids_max: 1000, ..Machine::default() }
    }

    #[test]
    fn pods_have_what_is_left_of_the_node_or_all_of_it() {
        let mut config = KubeletConfig::new("n");
        (config.reserved_cpu_millis, config.reserved_memory_bytes) = (1000, 1 << 30);
        config.cgroups.reserved_pids = 100;
        let values = pods(&config, &machine(), &[(2 << 20, 3), (1 << 30, 0)]);
        assert_eq!((values.cpu_shares, values.memory_limit_in_bytes), (3072, 7 << 30));
        assert_eq!(values.unified["pids.max"], "900");
        let pages: Vec<_> =
            values.hugepage_limits.iter().map(|p| (p.page_size.as_str(), p.limit)).collect();
        assert_eq!(pages, [("2MB", 6 << 20), ("1GB", 0)]);
        config.cgroups.enforce_pods = false;
        let values = pods(&config, &machine(), &[]);
        assert_eq!((values.cpu_shares, values.memory_limit_in_bytes), (4096, 8 << 30));
        assert_eq!(values.unified["pids.max"], "1000");
    }

    #[test]
    fn classes_share_by_what_burstable_pods_request() {
        let pod = |requests: serde_json::Value,
                   limits: serde_json::Value,
                   phase: &str|
         -> Arc<Pod> {
            let spec = json!({"containers": [{"name": "c", "resources": {"requests": requests, "limits": limits}}]});
            Arc::new(
                serde_json::from_value(
                    json!({"metadata": {}, "spec": spec, "status": {"phase": phase}}),
                )
                .unwrap(),
            )
        };
        let all = json!({"cpu": "4", "memory": "1Gi"});
        let pods = [
            pod(json!({"cpu": "500m"}), json!({}), "Running"),
            pod(json!({"cpu": "1"}), json!({"cpu": "2"}), "Pending"),
            pod(json!({"cpu": "8"}), json!({}), "Failed"),
            pod(all.clone(), all, "Running"),
            pod(json!({}), json!({}), "Running"),
        ];
        assert_eq!(burstable(&pods, &[]).cpu_shares, 1536);
        assert_eq!(burstable(&[], &[]).cpu_shares, 2);
        let least = best_effort(&[(64 << 10, 1)]);
        assert_eq!(least.cpu_shares, 2);
        assert_eq!(
            (least.hugepage_limits[0].page_size.as_str(), least.hugepage_limits[0].limit),
            ("64KB", 1 << 62)
        );
    }

    #[test]
    fn the_nodes_own_daemons_have_what_is_kept_for_them() {
        let mut group = ReservedCgroup {
            of: "System",
            path: "/system".into(),
            cpu_millis: Some(500),
            memory_bytes: Some(1 << 30),
            pids: Some(10),
            only_compressible: false,
        };
        let values = reserved(&group);
        assert_eq!((values.cpu_shares, values.memory_limit_in_bytes), (512, 1 << 30));
        assert_eq!(values.unified["pids.max"], "10");
        group.only_compressible = true;
        let values = reserved(&group);
        assert_eq!((values.cpu_shares, values.memory_limit_in_bytes), (512, 0));
        assert!(values.unified.is_empty());
    }
}
