//! Figures that are counted from several places. They are the process's: labels of a test are its own.

use std::time::Duration;

use super::autoscaling::{Scaling, computed, reconciled};
use super::endpoint_slices::{Counts, forget, synced};
use super::figures;

fn figure(line: &str) -> Option<f64> {
    let text = figures();
    text.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(' ')?.parse().ok())
}

#[test]
fn services_are_summed_and_forgotten() {
    let key = |name: &str| ("figures-test".to_owned(), name.to_owned());
    let counts = |endpoints| Counts {
        endpoints,
        slices: 3,
        desired: 2,
        traffic_distribution: Some("PreferFigures".into()),
    };
    let total = || figure("endpoint_slice_controller_endpoints_desired").unwrap_or(0.0);
    let by_distribution = || {
        figure(
            "endpoint_slice_controller_services_count_by_traffic_distribution{traffic_distribution=\"PreferFigures\"}",
        )
    };
    synced(&key("a"), counts(120), (120, 0));
    synced(&key("b"), counts(1), (1, 0));
    assert_eq!(by_distribution(), Some(2.0));
    // Other tests of this process sync services, too: at least these are counted.
    assert!(total() >= 121.0);
    assert!(figure("endpoint_slice_controller_num_endpoint_slices").unwrap() >= 6.0);
    assert!(figure("endpoint_slice_controller_desired_endpoint_slices").unwrap() >= 4.0);
    assert!(figure("endpoint_slice_controller_endpoints_added_per_sync_count").unwrap() >= 2.0);
    forget(&key("a"));
    assert_eq!(by_distribution(), Some(1.0));
    forget(&key("b"));
    assert_eq!(by_distribution(), None);
}

#[test]
fn autoscalers_are_counted_by_what_they_do_and_why_not() {
    reconciled(Scaling::between(3, 1), Duration::from_millis(2));
    computed(Scaling::failed(true), "FiguresTest", Duration::from_millis(2));
    computed(Scaling::between(1, 3), "FiguresTest", Duration::from_millis(2));
    let count = |labels: &str| {
        figure(&format!(
            "horizontal_pod_autoscaler_controller_metric_computation_total{{{labels}}}"
        ))
    };
    assert_eq!(count("action=\"none\",error=\"spec\",metric_type=\"FiguresTest\""), Some(1.0));
    assert_eq!(count("action=\"scale_up\",error=\"none\",metric_type=\"FiguresTest\""), Some(1.0));
    let done = "horizontal_pod_autoscaler_controller_reconciliations_total{action=\"scale_down\",error=\"none\"}";
    assert!(figure(done).is_some_and(|n| n >= 1.0));
}

#[test]
fn evictions_of_a_zone_are_counted() {
    let evicted = |zone: &str| {
        figure(&format!("node_collector_evictions_total{{zone=\"{zone}\"}}")).unwrap_or(0.0)
    };
    super::node_evicted("figures", "a");
    super::node_evicted("figures", "a");
    assert_eq!(evicted("figures:\0:a"), 2.0, "regions and zones as upstream joins them");
    assert_eq!(evicted("figures:\0:b"), 0.0);
}
