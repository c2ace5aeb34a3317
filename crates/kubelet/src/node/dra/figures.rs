//! Metrics of the claim manager, under upstream's names.

use prometheus::HistogramVec;

pub(super) struct Figures {
    registry: telemetry::Registry,
    pub(super) operations: HistogramVec,
    pub(super) calls: HistogramVec,
}

/// Fifteen bounds from a tenth of a second to 40 s, each as many times the one before.
fn buckets() -> Vec<f64> {
    telemetry::exponential(0.1, 400f64.powf(1.0 / 14.0), 15)
}

impl Default for Figures {
    fn default() -> Figures {
        let registry = telemetry::Registry::default();
        let operations = registry.histograms(
            "dra_operations_duration_seconds",
            "Latency histogram in seconds for the duration of handling all ResourceClaims referenced by a pod when the pod starts or stops. Identified by the name of the operation (PrepareResources or UnprepareResources) and separated by the success of the operation. The number of failed operations is provided through the histogram's overall count.",
            &["operation_name", "is_error"],
            &buckets(),
        );
        let calls = registry.histograms(
            "dra_grpc_operations_duration_seconds",
            "Duration in seconds of the DRA gRPC operations",
            &["driver_name", "method_name", "grpc_status_code"],
            &buckets(),
        );
        Figures { registry, operations, calls }
    }
}

impl Figures {
    pub(super) fn text(&self) -> String {
        self.registry.families()
    }
}
