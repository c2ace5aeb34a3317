//! Pods' own cgroups, where the runtime leaves them to the kubelet, as those of upstream's kubelet do: made with
//! their limits before the sandbox, changed with the pod, removed after it.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use runtime::cri::{LinuxContainerResources, LinuxPodSandboxConfig};

use super::{blocking, hierarchies, write};
use crate::kubelet::Shared;
use crate::spec::resources::cgroup_parent;

/// Where cgroups are mounted, if pods' groups are the kubelet's business.
fn mount(shared: &Shared) -> Option<std::path::PathBuf> {
    let cgroups = &shared.config.cgroups;
    cgroups.mount.clone().filter(|_| cgroups.makes_pods)
}

/// Makes the group of a pod that is about to have a sandbox.
pub(crate) async fn make(
    shared: &Arc<Shared>,
    linux: Option<&LinuxPodSandboxConfig>,
) -> Result<(), String> {
    let (Some(mount), Some(linux)) = (mount(shared), linux.cloned()) else { return Ok(()) };
    blocking(move || {
        let values = linux.resources.unwrap_or_default();
        write(&hierarchies(&mount)?, &linux.cgroup_parent, &values)
    })
    .await
    .map_err(|why| {
        format!("failed to ensure that the pod: cgroups exist and are correctly applied: {why}")
    })
}

/// Changes a group's limits; `None` where they are the runtime's to change.
pub(crate) async fn change(
    shared: &Arc<Shared>,
    pod: &Pod,
    values: LinuxContainerResources,
) -> Option<Result<(), String>> {
    let mount = mount(shared)?;
    let path = cgroup_parent(&shared.config.cgroup_root, pod);
    Some(blocking(move || write(&hierarchies(&mount)?, &path, &values)).await)
}

/// Ends what is left in a pod's group, and removes it. One that is gone is as it should be.
pub(crate) async fn remove(shared: &Arc<Shared>, pod: &Pod) -> Result<(), String> {
    let Some(mount) = mount(shared) else { return Ok(()) };
    let path = cgroup_parent(&shared.config.cgroup_root, pod);
    blocking(move || {
        let group = hierarchies(&mount)?.group(&path).map_err(|e| e.chain())?;
        if !group.exists() {
            return Ok(());
        }
        group.kill().and_then(|()| group.remove()).map_err(|e| e.chain())
    })
    .await
}
