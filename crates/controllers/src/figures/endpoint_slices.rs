//! Figures of EndpointSlices (k8s.io/endpointslice `metrics`).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use telemetry::{HistogramVec, IntGaugeVec, Registry, exponential};

use crate::meta::Key;

pub(super) struct Families {
    added: HistogramVec,
    removed: HistogramVec,
    endpoints: IntGaugeVec,
    slices: IntGaugeVec,
    desired: IntGaugeVec,
    distributions: IntGaugeVec,
    services: Mutex<HashMap<Key, Counts>>,
}

impl Families {
    pub(super) fn new(registry: &Registry) -> Families {
        let bounds = exponential(2.0, 2.0, 15);
        let of = |what: &str| format!("endpoint_slice_controller_{what}");
        Families {
            added: registry.histograms(
                &of("endpoints_added_per_sync"),
                "Number of endpoints added on each Service sync",
                &[],
                &bounds,
            ),
            removed: registry.histograms(
                &of("endpoints_removed_per_sync"),
                "Number of endpoints removed on each Service sync",
                &[],
                &bounds,
            ),
            endpoints: registry.gauges(
                &of("endpoints_desired"),
                "Number of endpoints desired",
                &[],
            ),
            slices: registry.gauges(&of("num_endpoint_slices"), "Number of EndpointSlices", &[]),
            desired: registry.gauges(
                &of("desired_endpoint_slices"),
                "Number of EndpointSlices that would exist with perfect endpoint allocation",
                &[],
            ),
            distributions: registry.gauges(
                &of("services_count_by_traffic_distribution"),
                "Number of Services using some specific trafficDistribution",
                &["traffic_distribution"],
            ),
            services: Mutex::default(),
        }
    }
}

/// The slices and endpoints of one Service after a sync.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) endpoints: usize,
    pub(crate) slices: usize,
    /// Slices if each but the last one were full.
    pub(crate) desired: usize,
    pub(crate) traffic_distribution: Option<String>,
}

/// A Service's slices were written; so many endpoints are new in them, and so many are gone.
pub(crate) fn synced(service: &Key, counts: Counts, (added, removed): (usize, usize)) {
    let families = &super::FAMILIES.endpoint_slices;
    families.added.with_label_values::<&str>(&[]).observe(added as f64);
    families.removed.with_label_values::<&str>(&[]).observe(removed as f64);
    families.change(|services| drop(services.insert(service.clone(), counts)));
}

/// A Service is gone, or has no selector any more.
pub(crate) fn forget(service: &Key) {
    super::FAMILIES.endpoint_slices.change(|services| drop(services.remove(service)));
}

impl Families {
    fn change(&self, change: impl FnOnce(&mut HashMap<Key, Counts>)) {
        let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut services);
        let sum = |of: fn(&Counts) -> usize| {
            i64::try_from(services.values().map(of).sum::<usize>()).unwrap_or(i64::MAX)
        };
        self.endpoints.with_label_values::<&str>(&[]).set(sum(|c| c.endpoints));
        self.slices.with_label_values::<&str>(&[]).set(sum(|c| c.slices));
        self.desired.with_label_values::<&str>(&[]).set(sum(|c| c.desired));
        self.distributions.reset();
        for distribution in services.values().filter_map(|c| c.traffic_distribution.as_deref()) {
            self.distributions.with_label_values(&[distribution]).inc();
        }
    }
}
