//! The node's own cgroups: of all pods, of the burstable and the best-effort ones, and of the node's daemons.
//! Layout, values and events are upstream's.

mod plan;
pub(crate) mod pods;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use client::EventType;
use runtime::cgroup::Hierarchies;
use runtime::cri::LinuxContainerResources;
use tokio::time::MissedTickBehavior;

use crate::config::KubeletConfig;
use crate::kubelet::Shared;
use crate::node;

/// Wait before limits that the kernel did not take are written again.
const RETRY: Duration = Duration::from_secs(60);
/// How often the classes' shares are written when no pod comes.
const PERIOD: Duration = Duration::from_secs(60);

const ENFORCED: &str = "NodeAllocatableEnforced";
const NOT_ENFORCED: &str = "FailedNodeAllocatableEnforcement";

fn hierarchies(mount: &Path) -> Result<Hierarchies, String> {
    Hierarchies::detect(mount).map_err(|e| e.chain())
}

/// Bytes of a huge page and how many there are, where groups can limit them.
fn huge_pages(all: &Hierarchies, config: &KubeletConfig) -> Vec<(u64, u64)> {
    match all.has("hugetlb") {
        true => config.huge_pages(),
        false => Vec::new(),
    }
}

/// Refuses a node that keeps more for itself than it has, and holds its daemons to what is kept for them.
pub(crate) fn begin(config: &KubeletConfig) -> Result<(), String> {
    check(config)?;
    let Some(mount) = config.cgroups.mount.as_deref() else { return Ok(()) };
    for group in &config.cgroups.reserved {
        let scope = if group.only_compressible { " Compressible" } else { "" };
        let what = format!("{} Reserved{scope} Cgroup Limits on {:?}", group.of, group.path);
        let failed = |why: String| format!("Failed to enforce {what}: {why}");
        let found = hierarchies(mount).map_err(failed)?.group(&group.path);
        let found = found.map_err(|e| failed(e.chain()))?;
        if !found.exists() {
            return Err(failed(format!("cgroup {:?} does not exist", group.path)));
        }
        found.apply(&plan::reserved(group)).map_err(|e| failed(e.chain()))?;
    }
    Ok(())
}

fn check(config: &KubeletConfig) -> Result<(), String> {
    let machine = node::whole(config);
    let kept = [
        ("cpu", config.reserved_cpu_millis, machine.cpu_millis),
        ("memory", config.kept_memory_bytes(machine.memory_bytes), machine.memory_bytes),
    ];
    let too_much = kept.iter().filter(|(_, kept, all)| kept > all).map(|(name, kept, all)| {
        let unit = if *name == "cpu" { "m" } else { "" };
        format!(" Resource {name:?} has a reservation of {kept}{unit} but capacity of {all}{unit}. Expected capacity >= reservation.")
    });
    match too_much.collect::<String>() {
        said if said.is_empty() => Ok(()),
        said => Err(format!("invalid Node Allocatable configuration.{said}")),
    }
}

/// Keeps the groups of pods as they should be, for as long as the agent runs.
pub(crate) async fn run(shared: Arc<Shared>) {
    let Some(mount) = shared.config.cgroups.mount.clone() else {
        return shared.tasks.cancelled().await;
    };
    tell_reserved(&shared);
    enforce(&shared, &mount).await;
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shared.classes_due.notified() => {}
        }
        if let Err(error) = share(&shared, &mount).await {
            tracing::warn!(error, "shares of the classes of pods not written");
        }
    }
}

fn tell(shared: &Shared, kind: EventType, reason: &str, text: String) {
    shared.recorder.event(&node::about(shared), kind, reason, text);
}

fn tell_reserved(shared: &Shared) {
    for group in &shared.config.cgroups.reserved {
        let (of, path) = (group.of.to_lowercase(), &group.path);
        let text = format!("Updated limits on {of} reserved cgroup {path}");
        tell(shared, EventType::Normal, ENFORCED, text);
    }
}

/// Makes the groups and holds all pods to what they may have. Pods that have more already are evicted
/// meanwhile.
async fn enforce(shared: &Arc<Shared>, mount: &Path) {
    loop {
        let root = &shared.config.cgroup_root;
        match write_pods(shared, mount).await {
            Ok(()) => {
                let text = "Updated Node Allocatable limit across pods".to_owned();
                return tell(shared, EventType::Normal, ENFORCED, text);
            }
            Err(error) => {
                let text = format!("Failed to update Node Allocatable Limits {root:?}: {error}");
                tell(shared, EventType::Warning, NOT_ENFORCED, text);
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn write_pods(shared: &Arc<Shared>, mount: &Path) -> Result<(), String> {
    let (config, mount) = (shared.config.clone(), mount.to_owned());
    blocking(move || {
        let all = hierarchies(&mount)?;
        let values = plan::pods(&config, &node::whole(&config), &huge_pages(&all, &config));
        write(&all, &config.cgroup_root, &values)
    })
    .await
}

async fn share(shared: &Arc<Shared>, mount: &Path) -> Result<(), String> {
    let listed = shared.pods.list();
    let pods: Vec<_> = listed.iter().map(|pod| shared.allocations.effective(pod)).collect();
    let (config, mount) = (shared.config.clone(), mount.to_owned());
    blocking(move || {
        let all = hierarchies(&mount)?;
        let (pages, root) = (huge_pages(&all, &config), &config.cgroup_root);
        write(&all, &format!("{root}/burstable"), &plan::burstable(&pods, &pages))?;
        write(&all, &format!("{root}/besteffort"), &plan::best_effort(&pages))
    })
    .await
}

/// The kernel may take its time with a limit: it frees memory first.
async fn blocking(
    work: impl FnOnce() -> Result<(), String> + Send + 'static,
) -> Result<(), String> {
    tokio::task::spawn_blocking(work).await.map_err(|e| e.to_string())?
}

fn write(all: &Hierarchies, path: &str, values: &LinuxContainerResources) -> Result<(), String> {
    let group = all.create(path).map_err(|e| e.chain())?;
    group.apply(values).map_err(|e| e.chain())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_keeps_more_than_it_has_is_refused() {
        let mut config = KubeletConfig::new("n");
        assert_eq!(begin(&config), Ok(()));
        config.reserved_cpu_millis = 1 << 40;
        let said = begin(&config).unwrap_err();
        assert!(said.starts_with("invalid Node Allocatable configuration. Resource \"cpu\" has a reservation of 1099511627776m but capacity of "), "{said}");
        assert!(said.ends_with("Expected capacity >= reservation."));
    }

    #[test]
    fn a_group_of_daemons_that_is_not_there_is_refused() {
        let mut config = KubeletConfig::new("n");
        config.cgroups.mount = Some("/sys/fs/cgroup".into());
        config.cgroups.reserved.push(crate::config::ReservedCgroup {
            of: "Kube",
            path: "/trireme-no-such-group".into(),
            cpu_millis: Some(500),
            memory_bytes: None,
            pids: None,
            only_compressible: true,
        });
        let said = begin(&config).unwrap_err();
        assert_eq!(
            said,
            "Failed to enforce Kube Reserved Compressible Cgroup Limits on \"/trireme-no-such-group\": cgroup \"/trireme-no-such-group\" does not exist"
        );
    }
}
