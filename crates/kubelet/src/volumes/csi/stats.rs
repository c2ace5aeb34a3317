//! What drivers say of the volumes of a pod: how full they are, and whether they are well.

use csi::v1::{NodeGetVolumeStatsRequest, NodeRpcType, UsageUnit, VolumeUsage};
use k8s_openapi::api::core::v1::Pod;

use super::super::pod_dir;
use super::data::Data;
use super::drivers::Capabilities;
use super::names;
use crate::kubelet::Shared;
use crate::spec::{name_of, spec_of, uid_of};

/// Figures of one volume; what the driver does not tell is not known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct VolumeFigures {
    /// The entry of `spec.volumes`.
    pub(crate) volume: String,
    /// The claim's name.
    pub(crate) claim: Option<String>,
    pub(crate) capacity: Option<u64>,
    pub(crate) used: Option<u64>,
    pub(crate) available: Option<u64>,
    pub(crate) inodes: Option<u64>,
    pub(crate) inodes_used: Option<u64>,
    pub(crate) inodes_free: Option<u64>,
    /// Whether the driver finds something wrong with it.
    pub(crate) abnormal: Option<bool>,
}

fn read(usage: &[VolumeUsage]) -> VolumeFigures {
    let mut figures = VolumeFigures::default();
    let number = |n: i64| u64::try_from(n).ok();
    for usage in usage {
        match usage.unit() {
            UsageUnit::Bytes => {
                figures.capacity = number(usage.total);
                figures.used = number(usage.used);
                figures.available = number(usage.available);
            }
            UsageUnit::Inodes => {
                figures.inodes = number(usage.total);
                figures.inodes_used = number(usage.used);
                figures.inodes_free = number(usage.available);
            }
            UsageUnit::Unknown => {}
        }
    }
    figures
}

/// The pod's file systems that a driver has published. Drivers that do not answer are left out.
pub(crate) async fn of_pod(shared: &Shared, pod: &Pod) -> Vec<VolumeFigures> {
    let mut all = Vec::new();
    for volume in spec_of(pod).volumes.iter().flatten() {
        let uid = uid_of(pod);
        let Some(place) = shared.volumes.directory(uid, &volume.name) else { continue };
        let dir = pod_dir(&shared.config.root_dir, uid).join("volumes").join(names::ESCAPED);
        let Some(own) = place.parent().filter(|p| p.starts_with(&dir)) else { continue };
        let Ok(Some(data)) = Data::load(own) else { continue };
        let Some(mut figures) = ask(shared, &data, &place.to_string_lossy()).await else {
            continue;
        };
        figures.volume.clone_from(&volume.name);
        let claim = volume.persistent_volume_claim.as_ref().map(|c| c.claim_name.clone());
        let made = || format!("{}-{}", name_of(pod), volume.name);
        figures.claim = claim.or_else(|| volume.ephemeral.as_ref().map(|_| made()));
        all.push(figures);
    }
    all
}

async fn ask(shared: &Shared, data: &Data, path: &str) -> Option<VolumeFigures> {
    let driver = shared.volumes.csi.drivers.get(&data.driver_name).ok()?;
    let capabilities = Capabilities::of(&driver).await.ok()?;
    if !capabilities.has(NodeRpcType::GetVolumeStats) {
        return None;
    }
    let staging = names::staging(&shared.config.root_dir, &data.driver_name, &data.volume_handle);
    let request = NodeGetVolumeStatsRequest {
        volume_id: data.volume_handle.clone(),
        volume_path: path.to_owned(),
        staging_target_path: match staging.exists() {
            true => staging.to_string_lossy().into_owned(),
            false => String::new(),
        },
    };
    match driver.client.node_get_volume_stats(&request).await {
        Ok(answer) => {
            let mut figures = read(&answer.usage);
            let tells = capabilities.has(NodeRpcType::VolumeCondition);
            figures.abnormal = answer.volume_condition.filter(|_| tells).map(|c| c.abnormal);
            Some(figures)
        }
        Err(error) => {
            tracing::debug!(error = error.go_text(), path, "no statistics of a volume");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_by_unit_and_negative_ones_are_not_known() {
        let usage = |unit: UsageUnit, total, used, available| VolumeUsage {
            available,
            total,
            used,
            unit: unit as i32,
        };
        let figures =
            read(&[usage(UsageUnit::Bytes, 100, 40, 60), usage(UsageUnit::Inodes, 9, -1, 3)]);
        assert_eq!(
            (figures.capacity, figures.used, figures.available),
            (Some(100), Some(40), Some(60))
        );
        assert_eq!(
            (figures.inodes, figures.inodes_used, figures.inodes_free),
            (Some(9), None, Some(3))
        );
        assert_eq!(read(&[usage(UsageUnit::Unknown, 1, 1, 1)]), VolumeFigures::default());
    }
}
