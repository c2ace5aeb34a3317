//! What pods use, put together from what the runtime tells.

use std::collections::BTreeMap;

use ::runtime::cri::*;
use ::runtime::{Code, ContainerFigures, Figures, PodFigures, Result, RuntimeService as _};

use super::Client;
use super::runtime::method;

fn value(value: &Option<UInt64Value>) -> u64 {
    value.as_ref().map_or(0, |value| value.value)
}

/// A container's figures in the form of dashboards; what the CRI does not tell is 0.
fn used(stats: &ContainerStats) -> Figures {
    let cpu = stats.cpu.clone().unwrap_or_default();
    let memory = stats.memory.clone().unwrap_or_default();
    Figures {
        cpu_ns: value(&cpu.usage_core_nano_seconds),
        memory: value(&memory.usage_bytes),
        working_set: value(&memory.working_set_bytes),
        rss: value(&memory.rss_bytes),
        page_faults: value(&memory.page_faults),
        major_page_faults: value(&memory.major_page_faults),
        ..Figures::default()
    }
}

/// The sum of containers' figures, as a sandbox's.
fn sum(containers: &[ContainerStats]) -> LinuxPodSandboxStats {
    let total = |of: fn(&Figures) -> u64| {
        let value = containers.iter().map(|stats| of(&used(stats))).sum();
        Some(UInt64Value { value })
    };
    let timestamp = containers.iter().filter_map(|c| c.cpu.as_ref()).map(|c| c.timestamp).max();
    let timestamp = timestamp.unwrap_or_default();
    LinuxPodSandboxStats {
        cpu: Some(CpuUsage {
            timestamp,
            usage_core_nano_seconds: total(|f| f.cpu_ns),
            ..CpuUsage::default()
        }),
        memory: Some(MemoryUsage {
            timestamp,
            usage_bytes: total(|f| f.memory),
            working_set_bytes: total(|f| f.working_set),
            rss_bytes: total(|f| f.rss),
            page_faults: total(|f| f.page_faults),
            major_page_faults: total(|f| f.major_page_faults),
            ..MemoryUsage::default()
        }),
        containers: containers.to_vec(),
        ..LinuxPodSandboxStats::default()
    }
}

impl Client {
    /// Containers' figures by their sandboxes.
    async fn by_sandbox(&self) -> Result<BTreeMap<String, Vec<(Container, ContainerStats)>>> {
        let stats = self.list_container_stats(ContainerStatsFilter::default()).await?;
        let mut stats: BTreeMap<String, ContainerStats> = stats
            .into_iter()
            .filter_map(|stats| Some((stats.attributes.as_ref()?.id.clone(), stats)))
            .collect();
        let mut found: BTreeMap<String, Vec<_>> = BTreeMap::new();
        for container in self.list_containers(ContainerFilter::default()).await? {
            if let Some(stats) = stats.remove(&container.id) {
                let own = found.entry(container.pod_sandbox_id.clone()).or_default();
                own.push((container, stats));
            }
        }
        Ok(found)
    }

    async fn ready(&self, filter: PodSandboxFilter) -> Result<Vec<PodSandbox>> {
        let state = Some(PodSandboxStateValue { state: PodSandboxState::Ready as i32 });
        self.list_pod_sandboxes(PodSandboxFilter { state, ..filter }).await
    }

    /// The runtime's figures of sandboxes; where it has none, the sums of their containers'.
    pub(super) async fn sandbox_stats(
        &self,
        filter: PodSandboxStatsFilter,
    ) -> Result<Vec<PodSandboxStats>> {
        let asked = ListPodSandboxStatsRequest { filter: Some(filter.clone()) };
        let answer: Result<ListPodSandboxStatsResponse> =
            self.ask(method!("ListPodSandboxStats"), &asked).await;
        match answer {
            Ok(answer) => return Ok(answer.stats),
            Err(error) if error.code() == Code::Unimplemented => {}
            Err(error) => return Err(error),
        }
        let PodSandboxStatsFilter { id, label_selector } = filter;
        let wanted = PodSandboxFilter { id, label_selector, ..PodSandboxFilter::default() };
        let mut containers = self.by_sandbox().await?;
        let stats = |sandbox: PodSandbox| {
            let own = containers.remove(&sandbox.id).unwrap_or_default();
            let own: Vec<ContainerStats> = own.into_iter().map(|(_, stats)| stats).collect();
            let PodSandbox { id, metadata, labels, annotations, .. } = sandbox;
            PodSandboxStats {
                attributes: Some(PodSandboxAttributes { id, metadata, labels, annotations }),
                linux: Some(sum(&own)),
            }
        };
        Ok(self.ready(wanted).await?.into_iter().map(stats).collect())
    }

    pub(super) async fn figures(&self) -> Result<Vec<PodFigures>> {
        let mut containers = self.by_sandbox().await?;
        let pod = |sandbox: PodSandbox| {
            let own = containers.remove(&sandbox.id).unwrap_or_default();
            let stats: Vec<ContainerStats> = own.iter().map(|(_, stats)| stats.clone()).collect();
            let total = sum(&stats);
            let all = ContainerStats { cpu: total.cpu, memory: total.memory, ..Default::default() };
            PodFigures {
                used: used(&all),
                containers: own.into_iter().map(container).collect(),
                id: sandbox.id,
                labels: sandbox.labels,
                created_at: sandbox.created_at,
                ..PodFigures::default()
            }
        };
        Ok(self.ready(PodSandboxFilter::default()).await?.into_iter().map(pod).collect())
    }
}

fn container((container, stats): (Container, ContainerStats)) -> ContainerFigures {
    let image = container.image.unwrap_or_default();
    let named = Some(image.user_specified_image).filter(|name| !name.is_empty());
    ContainerFigures {
        used: used(&stats),
        id: container.id,
        labels: container.labels,
        image: named.unwrap_or(image.image),
        started_at: container.created_at,
        ..ContainerFigures::default()
    }
}
