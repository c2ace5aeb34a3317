//! What containers and sandboxes use, in the CRI's form.

use super::records::{ContainerRecord, SandboxRecord};
use super::{Inner, now_ns};
use crate::cgroup::GroupStats;
use crate::cri::*;
use crate::error::Result;

fn value(value: u64) -> Option<UInt64Value> {
    Some(UInt64Value { value })
}

fn cpu(stats: &GroupStats, timestamp: i64) -> Option<CpuUsage> {
    Some(CpuUsage {
        timestamp,
        usage_core_nano_seconds: value(stats.cpu_ns),
        ..CpuUsage::default()
    })
}

fn memory(stats: &GroupStats, timestamp: i64) -> Option<MemoryUsage> {
    Some(MemoryUsage {
        timestamp,
        working_set_bytes: value(stats.working_set),
        available_bytes: stats
            .memory_limit
            .map(|limit| UInt64Value { value: limit.saturating_sub(stats.working_set) }),
        usage_bytes: value(stats.memory),
        rss_bytes: value(stats.rss),
        page_faults: value(stats.page_faults),
        major_page_faults: value(stats.major_page_faults),
        psi: None,
    })
}

impl Inner {
    /// Walks the container's writable layer: call where blocking is allowed.
    pub(super) fn container_stats(&self, record: &ContainerRecord) -> Result<ContainerStats> {
        let stats = self.cgroups.group(&record.cgroup)?.stats();
        let timestamp = now_ns();
        let (bytes, inodes) = crate::tree::usage(&self.container_dir(&record.id).join("upper"));
        let config = record.config();
        Ok(ContainerStats {
            attributes: Some(ContainerAttributes {
                id: record.id.clone(),
                metadata: config.metadata,
                labels: config.labels,
                annotations: config.annotations,
            }),
            cpu: cpu(&stats, timestamp),
            memory: memory(&stats, timestamp),
            writable_layer: Some(FilesystemUsage {
                timestamp,
                fs_id: Some(self.filesystem()),
                used_bytes: value(bytes),
                inodes_used: value(inodes),
            }),
            swap: Some(SwapUsage {
                timestamp,
                swap_usage_bytes: value(stats.swap),
                ..SwapUsage::default()
            }),
            io: None,
        })
    }

    pub(super) fn filesystem(&self) -> FilesystemIdentifier {
        FilesystemIdentifier { mountpoint: self.config.root.to_string_lossy().into_owned() }
    }

    /// Containers that run now; the ended ones use nothing.
    pub(super) fn running(
        &self,
        wanted: impl Fn(&ContainerRecord) -> bool,
    ) -> Vec<ContainerRecord> {
        let state = self.state();
        let mine = state.containers.values().filter(|c| c.record.running() && wanted(&c.record));
        mine.map(|c| c.record.clone()).collect()
    }

    /// A sandbox is the sum of its containers; its network's counters are the network's to tell.
    pub(super) fn sandbox_stats(&self, record: &SandboxRecord) -> Result<PodSandboxStats> {
        let containers = self.running(|c| c.sandbox_id == record.id);
        let mut total = GroupStats::default();
        for container in &containers {
            let stats = self.cgroups.group(&container.cgroup)?.stats();
            total.cpu_ns += stats.cpu_ns;
            total.memory += stats.memory;
            total.working_set += stats.working_set;
            total.rss += stats.rss;
            total.page_faults += stats.page_faults;
            total.major_page_faults += stats.major_page_faults;
            total.pids += stats.pids;
        }
        let timestamp = now_ns();
        let config = record.config();
        Ok(PodSandboxStats {
            attributes: Some(PodSandboxAttributes {
                id: record.id.clone(),
                metadata: config.metadata,
                labels: config.labels,
                annotations: config.annotations,
            }),
            linux: Some(LinuxPodSandboxStats {
                cpu: cpu(&total, timestamp),
                memory: memory(&total, timestamp),
                network: None,
                process: Some(ProcessUsage { timestamp, process_count: value(total.pids) }),
                containers: containers
                    .iter()
                    .map(|c| self.container_stats(c))
                    .collect::<Result<_>>()?,
                io: None,
            }),
        })
    }
}
