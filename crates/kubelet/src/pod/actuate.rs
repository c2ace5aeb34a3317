//! Carries out a change of resources: the pod's group grows before its containers and shrinks after them,
//! and containers shrink before others grow, so that no limit is ever above what holds it.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use runtime::cri::{
    LinuxContainerResources, UInt64Value, UpdateContainerResourcesRequest,
    UpdatePodSandboxResourcesRequest,
};

use super::resize::Update;
use crate::kubelet::Shared;
use crate::node::cgroups;
use crate::spec::resize::Amounts;
use crate::spec::resources::{CPU_PERIOD, PodLimits, pod_limits, quota, shares};

/// What was done until the end or the first error.
pub(super) struct Done {
    pub(super) actuated: Vec<(String, Amounts)>,
    pub(super) pod: PodLimits,
    pub(super) error: Option<String>,
}

pub(super) struct Actuation {
    pub(super) shared: Arc<Shared>,
    pub(super) pod: Arc<Pod>,
    pub(super) sandbox: String,
    pub(super) updates: Vec<Update>,
    /// What the pod's group has.
    pub(super) has: PodLimits,
}

impl Actuation {
    pub(super) async fn run(mut self) -> Done {
        let wanted = pod_limits(&self.pod);
        let mut done = Done { actuated: Vec::new(), pod: self.has, error: None };
        let checked = self.check_memory(&wanted).await;
        let result = match checked {
            Ok(()) => match self.memory(&wanted, &mut done).await {
                Ok(()) => self.cpu(&wanted, &mut done).await,
                failed => failed,
            },
            failed => failed,
        };
        done.error = result.err();
        done
    }

    /// A limit below what is used would kill.
    async fn check_memory(&self, wanted: &PodLimits) -> Result<(), String> {
        let lowered = |from: i64, to: i64| to > 0 && (from == 0 || to < from);
        let mut errors = Vec::new();
        let used =
            |usage: Option<&UInt64Value>| usage.map(|v| i64::try_from(v.value).unwrap_or(i64::MAX));
        if lowered(self.has.memory, wanted.memory) {
            let stats = self.shared.runtime.pod_sandbox_stats(&self.sandbox).await;
            let stats = stats.map_err(|e| e.chain())?;
            let memory = stats.linux.and_then(|l| l.memory);
            match used(memory.as_ref().and_then(|m| m.usage_bytes.as_ref())) {
                None => errors.push("missing pod memory usage".to_owned()),
                Some(used) if used >= wanted.memory => errors.push(format!(
                    "attempting to set pod memory limit ({}) below current usage ({used})",
                    wanted.memory
                )),
                Some(_) => {}
            }
        }
        for u in self.updates.iter().filter(|u| lowered(u.from.memory_limit, u.to.memory_limit)) {
            let stats = self.shared.runtime.container_stats(&u.id).await.map_err(|e| e.chain())?;
            let (name, limit) = (&u.container, u.to.memory_limit);
            match used(stats.memory.as_ref().and_then(|m| m.usage_bytes.as_ref())) {
                None => errors.push(format!("missing container {name:?} memory usage")),
                Some(used) if used >= limit => errors.push(format!(
                    "attempting to set container {name:?} memory limit ({limit}) below current usage ({used})"
                )),
                Some(_) => {}
            }
        }
        match errors.as_slice() {
            [] => Ok(()),
            [one] => Err(format!("cannot decrease memory limits: {one}")),
            all => Err(format!("cannot decrease memory limits: [{}]", all.join(", "))),
        }
    }

    async fn memory(&mut self, wanted: &PodLimits, done: &mut Done) -> Result<(), String> {
        // A pod's limit is not taken away, only changed.
        let to = if wanted.memory == 0 { self.has.memory } else { wanted.memory };
        let values = LinuxContainerResources {
            memory_limit_in_bytes: to,
            ..LinuxContainerResources::default()
        };
        let grows = to > self.has.memory;
        if grows {
            self.pod(values.clone()).await?;
        }
        self.updates.sort_by_key(|u| u.to.memory_limit > u.from.memory_limit);
        for at in 0..self.updates.len() {
            let u = self.updates[at].clone();
            if u.to.memory_limit != u.from.memory_limit {
                let limit = if u.to.memory_limit == 0 { -1 } else { u.to.memory_limit };
                let values = LinuxContainerResources {
                    memory_limit_in_bytes: limit,
                    memory_swap_limit_in_bytes: limit,
                    ..LinuxContainerResources::default()
                };
                self.container(&u.id, values).await?;
            }
            let Amounts { memory_request, memory_limit, .. } = u.to;
            self.note(done, at, Amounts { memory_request, memory_limit, ..u.from });
        }
        if !grows && to != self.has.memory {
            self.pod(values).await?;
        }
        done.pod.memory = wanted.memory;
        Ok(())
    }

    async fn cpu(&mut self, wanted: &PodLimits, done: &mut Done) -> Result<(), String> {
        let to = if wanted.cpu_quota == 0 { self.has.cpu_quota } else { wanted.cpu_quota };
        let limit = LinuxContainerResources {
            cpu_quota: to,
            cpu_period: if to == 0 { 0 } else { CPU_PERIOD },
            ..LinuxContainerResources::default()
        };
        let request = LinuxContainerResources {
            cpu_shares: wanted.cpu_shares,
            ..LinuxContainerResources::default()
        };
        let (limit_grows, request_grows) =
            (to > self.has.cpu_quota, wanted.cpu_shares > self.has.cpu_shares);
        if limit_grows {
            self.pod(limit.clone()).await?;
        }
        if request_grows {
            self.pod(request.clone()).await?;
        }
        self.updates.sort_by_key(|u| u.to.cpu_limit > u.from.cpu_limit);
        for at in 0..self.updates.len() {
            let u = self.updates[at].clone();
            if (u.to.cpu_request, u.to.cpu_limit) != (u.from.cpu_request, u.from.cpu_limit) {
                let asked = if u.to.cpu_request == 0 { u.to.cpu_limit } else { u.to.cpu_request };
                let values = LinuxContainerResources {
                    cpu_shares: shares(asked),
                    cpu_quota: if u.to.cpu_limit == 0 { -1 } else { quota(u.to.cpu_limit) },
                    cpu_period: CPU_PERIOD,
                    ..LinuxContainerResources::default()
                };
                self.container(&u.id, values).await?;
            }
            self.note(done, at, u.to);
        }
        if !request_grows && wanted.cpu_shares != self.has.cpu_shares {
            self.pod(request).await?;
        }
        if !limit_grows && to != self.has.cpu_quota {
            self.pod(limit).await?;
        }
        (done.pod.cpu_quota, done.pod.cpu_shares) = (wanted.cpu_quota, wanted.cpu_shares);
        Ok(())
    }

    fn note(&mut self, done: &mut Done, at: usize, has: Amounts) {
        let update = &mut self.updates[at];
        update.from = has;
        done.actuated.retain(|(id, _)| *id != update.id);
        done.actuated.push((update.id.clone(), has));
    }

    async fn container(&self, id: &str, values: LinuxContainerResources) -> Result<(), String> {
        let request = UpdateContainerResourcesRequest {
            container_id: id.to_owned(),
            linux: Some(values),
            ..UpdateContainerResourcesRequest::default()
        };
        self.shared.runtime.update_container_resources(request).await.map_err(|e| e.chain())
    }

    async fn pod(&self, values: LinuxContainerResources) -> Result<(), String> {
        if let Some(done) = cgroups::pods::change(&self.shared, &self.pod, values.clone()).await {
            return done;
        }
        let request = UpdatePodSandboxResourcesRequest {
            pod_sandbox_id: self.sandbox.clone(),
            resources: Some(values),
            ..UpdatePodSandboxResourcesRequest::default()
        };
        self.shared.runtime.update_pod_sandbox_resources(request).await.map_err(|e| e.chain())
    }
}
