//! Figures of image volumes, under upstream's names (`pkg/kubelet/metrics`). They are the process's.

use std::sync::LazyLock;

use telemetry::{IntCounterVec, Registry};

/// What an error has when an image could not be mounted: the CRI's `ErrImageVolumeMountFailed`, and the embedded
/// runtime's words.
const MOUNT_FAILED: [&str; 2] = ["ImageVolumeMountFailed", "of an image volume"];

struct Families {
    registry: Registry,
    requested: IntCounterVec,
    mounted: IntCounterVec,
    failed: IntCounterVec,
}

static FAMILIES: LazyLock<Families> = LazyLock::new(|| {
    let registry = Registry::default();
    Families {
        requested: registry.counters(
            "kubelet_image_volume_requested_total",
            "Number of requested image volumes.",
            &[],
        ),
        mounted: registry.counters(
            "kubelet_image_volume_mounted_succeed_total",
            "Number of successful image volume mounts.",
            &[],
        ),
        failed: registry.counters(
            "kubelet_image_volume_mounted_errors_total",
            "Number of failed image volume mounts.",
            &[],
        ),
        registry,
    }
});

/// All figures, in Prometheus' text form.
pub(crate) fn figures() -> String {
    // Counters without labels are told from the start.
    for family in [&FAMILIES.requested, &FAMILIES.mounted, &FAMILIES.failed] {
        family.with_label_values::<&str>(&[]).inc_by(0);
    }
    FAMILIES.registry.families()
}

/// A container with so many image volumes was created, or was not for this reason.
pub(crate) fn count(volumes: usize, failure: Option<&str>) {
    let is_failed = failure.is_some_and(|why| MOUNT_FAILED.iter().any(|text| why.contains(text)));
    let outcome = if is_failed { &FAMILIES.failed } else { &FAMILIES.mounted };
    for family in [&FAMILIES.requested, outcome] {
        family.with_label_values::<&str>(&[]).inc_by(volumes as u64);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn mounts_are_counted_by_how_they_end() {
        super::count(2, None);
        super::count(1, Some("rpc error: ImageVolumeMountFailed: no space left"));
        let told = super::figures();
        let figure = |name: &str| {
            let name = format!("kubelet_image_volume_{name}_total ");
            told.lines().find_map(|line| line.strip_prefix(&name)?.parse::<u64>().ok())
        };
        // Other tests of this process create containers, too.
        assert!(figure("requested") >= Some(3));
        assert!(figure("mounted_succeed") >= Some(2));
        assert_eq!(figure("mounted_errors"), Some(1));
    }
}
