//! The agent's own figures: `/metrics`.

use runtime::cri::{ContainerFilter, ContainerState, PodSandboxFilter, PodSandboxState};

use super::{Response, answer};
use crate::kubelet::Shared;

/// States of containers, as upstream labels them.
const STATES: [(ContainerState, &str); 4] = [
    (ContainerState::Created, "created"),
    (ContainerState::Exited, "exited"),
    (ContainerState::Running, "running"),
    (ContainerState::Unknown, "unknown"),
];

pub(super) async fn own(shared: &Shared) -> Response {
    let sandboxes = shared.runtime.list_pod_sandboxes(PodSandboxFilter::default()).await;
    let containers = shared.runtime.list_containers(ContainerFilter::default()).await;
    let (sandboxes, containers) = match (sandboxes, containers) {
        (Ok(sandboxes), Ok(containers)) => (sandboxes, containers),
        (Err(error), _) | (_, Err(error)) => return answer(500, error.chain()),
    };
    let pods = sandboxes.iter().filter(|s| s.state == PodSandboxState::Ready as i32).count();
    let mut text = format!(
        "# HELP kubelet_node_name The node's name. The count is always 1.\n\
         # TYPE kubelet_node_name gauge\nkubelet_node_name{{node={:?}}} 1\n\
         # HELP kubelet_running_pods Number of pods that have a running pod sandbox\n\
         # TYPE kubelet_running_pods gauge\nkubelet_running_pods {pods}\n\
         # HELP kubelet_running_containers Number of containers by state\n\
         # TYPE kubelet_running_containers gauge\n",
        shared.config.node_name
    );
    for (state, name) in STATES {
        let count = containers.iter().filter(|c| c.state == state as i32).count();
        if count > 0 {
            text += &format!("kubelet_running_containers{{container_state={name:?}}} {count}\n");
        }
    }
    answer(200, text + &telemetry::process_metrics())
}
