//! The parts of a server.

use std::net::IpAddr;
use std::sync::Arc;

use ::metrics::ResourceMetrics;
use audit::Auditor;
use flowcontrol::FlowControl;
use telemetry::checks::HealthChecks;
use telemetry::zpages::Component;
use tokio_util::sync::CancellationToken;

use crate::aggregate::Aggregator;
use crate::dialer::NodeAccess;
use crate::legacy_tokens::LegacyTokens;
use crate::life::Life;
use discovery::documents::Documents;
use resources::health_check::HealthCheck;
use resources::identity::Identity;
use resources::limits::{InFlight, Limits};
use resources::metrics::Metrics;
use resources::resources::Resources;

/// The parts of a server. Filters and delegates hold those that they need.
pub(crate) struct Parts {
    pub(crate) identity: Arc<Identity>,
    pub(crate) legacy_tokens: Arc<LegacyTokens>,
    pub(crate) resources: Resources,
    pub(crate) nodes: NodeAccess,
    pub(crate) auditor: Option<Arc<Auditor>>,
    /// Records requests, if anything does.
    pub(crate) tracer: Option<Arc<traces::Tracer>>,
    pub(crate) flow_control: Arc<FlowControl>,
    pub(crate) aggregator: Arc<Aggregator>,
    /// What nodes and pods use, if this server tells it.
    pub(crate) resource_metrics: Option<ResourceMetrics>,
    pub(crate) in_flight: Arc<InFlight>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) limits: Limits,
    pub(crate) advertise: (IpAddr, u16),
    /// For `/statusz` and `/flagz`.
    pub(crate) component: Component,
    pub(crate) life: Life,
    pub(crate) health_checks: Vec<Arc<dyn HealthCheck>>,
    /// The results of all health checks, for `/metrics/slis`.
    pub(crate) checked: HealthChecks,
    /// The other parts of the control plane, for ComponentStatuses.
    pub(crate) components: Vec<Arc<dyn HealthCheck>>,
    /// Documents that all clients share.
    pub(crate) documents: Documents,
    /// Cancelled when the server stops serving: streams end, connections finish what they do.
    pub(crate) closing: CancellationToken,
}
