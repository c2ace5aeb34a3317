//! The node's own cgroups, in the kernel.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use crate::real::Node;

/// A value of a group: the file's name on cgroup v1, with its controller, and on v2.
fn value(group: &Path, v1: (&str, &str), v2: &str) -> Option<String> {
    let root = Path::new("/sys/fs/cgroup");
    let group: PathBuf = group.strip_prefix("/").unwrap().into();
    let old = std::fs::read_to_string(root.join(v1.0).join(&group).join(v1.1));
    let text = old.or_else(|_| std::fs::read_to_string(root.join(&group).join(v2))).ok()?;
    Some(text.trim().to_owned())
}

fn cpu(group: &Path) -> Option<String> {
    value(group, ("cpu", "cpu.shares"), "cpu.weight")
}

async fn soon(what: &str, is: impl Fn() -> bool) {
    let met = async {
        while !is() {
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(20), met).await.is_ok(), "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn classes_of_pods_share_the_cpu_and_all_pods_are_held_to_what_is_allocatable() {
    let node = Node::with(|config| {
        config.cgroups.mount = Some("/sys/fs/cgroup".into());
        config.reserved_memory_bytes = 64 << 20;
    })
    .await;
    let pods = node.cgroup("x").parent().unwrap().to_owned();
    let (burstable, rest) = (pods.join("burstable"), pods.join("besteffort"));
    // 2 and 512 shares are weights of 1 and 59.
    let is = |group: &Path, shares: &str, weight: &str| {
        cpu(group).is_some_and(|found| found == shares || found == weight)
    };
    soon("the groups are made", || is(&rest, "2", "1") && is(&burstable, "2", "1")).await;
    let memory = || value(&pods, ("memory", "memory.limit_in_bytes"), "memory.max");
    let text = std::fs::read_to_string("/proc/meminfo").unwrap();
    let line = text.lines().find_map(|l| l.strip_prefix("MemTotal:")).unwrap();
    let total: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    let limit = (total << 10) - (64 << 20);
    soon("all pods are limited", || memory() == Some(limit.to_string())).await;
    let sleeps = json!(["sh", "-c", "trap 'exit 0' TERM; sleep 1000 & wait"]);
    node.pod("web", json!({"command": sleeps, "resources": {"requests": {"cpu": "500m"}}}));
    node.status("web", |s| s["phase"] == "Running").await;
    soon("burstable pods count", || is(&burstable, "512", "59")).await;
    node.delete("web").await;
    soon("they count no more", || is(&burstable, "2", "1")).await;
    let told = |api: &crate::api::FakeApi| {
        let events = api.list("/api/v1/namespaces/default/events/");
        events.into_iter().find(|e| e["reason"] == "NodeAllocatableEnforced")
    };
    let event = node.api.until(told).await;
    assert_eq!(event["message"], "Updated Node Allocatable limit across pods");
    node.tasks.shutdown().await;
}
