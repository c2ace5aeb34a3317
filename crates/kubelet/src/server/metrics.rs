//! The agent's own figures: `/metrics`.

use runtime::cri::{ContainerFilter, ContainerState, PodSandboxFilter, PodSandboxState};

use super::text::Family;
use super::{Response, answer};
use crate::kubelet::Shared;
use crate::probe::counts::BOUNDS;

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
    text += &shared.places.metrics();
    text += &shared.dra.metrics();
    text += &shared.providers.metrics();
    text += &shared.pod_resources.metrics();
    text += &crate::image_volumes::figures();
    text += &super::volume_stats::metrics(shared).await;
    answer(200, text + &telemetry::process_metrics())
}

/// `/metrics/probes`.
pub(super) fn probes(shared: &Shared) -> Response {
    let mut total = Family::new(
        "prober_probe_total",
        "counter",
        "Cumulative number of a liveness, readiness or startup probe for a container by result.",
    );
    let mut took = Family::new(
        "prober_probe_duration_seconds",
        "histogram",
        "Duration in seconds for a probe response.",
    );
    for (probed, count) in shared.probes.all() {
        let own = [
            ("container", probed.container.as_str()),
            ("namespace", probed.namespace.as_str()),
            ("pod", probed.pod.as_str()),
        ];
        let results = [
            ("failed", count.failed),
            ("successful", count.successful),
            ("unknown", count.unknown),
        ];
        for (result, value) in results.into_iter().filter(|(_, value)| *value > 0) {
            let more = [
                ("pod_uid", probed.pod_uid.as_str()),
                ("probe_type", probed.kind),
                ("result", result),
            ];
            total.put(&[&own[..], &more].concat(), value as f64, None);
        }
        let own = [&own[..], &[("probe_type", probed.kind)]].concat();
        for (bound, value) in BOUNDS.iter().zip(count.buckets) {
            let le = bound.to_string();
            let labels = [&own[..], &[("le", le.as_str())]].concat();
            took.put_as("_bucket", &labels, value as f64, None);
        }
        let all = [&own[..], &[("le", "+Inf")]].concat();
        took.put_as("_bucket", &all, count.timed() as f64, None);
        took.put_as("_sum", &own, count.seconds, None);
        took.put_as("_count", &own, count.timed() as f64, None);
    }
    answer(200, took.text() + &total.text())
}
