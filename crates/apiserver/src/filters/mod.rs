//! The filter chain: what every request passes before it is routed. One file a filter, outermost first:
//! authenticate, memory, unsent, trace, audit, impersonate, deadline, flow, authorize.

pub(crate) mod audit;
pub(crate) mod authenticate;
mod authorize;
mod deadline;
pub(crate) mod flow;
mod impersonate;
mod memory;
mod trace;
mod unsent;

use std::sync::Arc;

use crate::delegates::Router;
use crate::parts::Parts;

/// Requests whose user is known: where in-process clients enter.
pub(crate) type Known = audit::Audit<Worked>;
type Worked =
    impersonate::Impersonate<deadline::Deadline<flow::FlowControl<authorize::Authorize<Router>>>>;
/// Requests from the network.
pub(crate) type Network =
    authenticate::Authenticate<memory::MemoryGuard<unsent::UnsentGuard<trace::Trace<Arc<Known>>>>>;

/// The chain of one server, with both its entrances.
pub(crate) struct Filters {
    pub(crate) network: Network,
    pub(crate) known: Arc<Known>,
}

impl Filters {
    pub(crate) fn new(server: &Arc<Parts>) -> Filters {
        let authorizer = &server.identity.authorizer;
        let router = Router::new(server.clone());
        let authorize = authorize::Authorize { authorizer: authorizer.clone(), next: router };
        let flow = flow::FlowControl { server: server.clone(), next: authorize };
        let deadline = deadline::Deadline {
            limits: server.limits,
            closing: server.closing.clone(),
            next: flow,
        };
        let impersonate =
            impersonate::Impersonate { authorizer: authorizer.clone(), next: deadline };
        let known = Arc::new(audit::Audit { auditor: server.auditor.clone(), next: impersonate });
        let trace = trace::Trace { tracer: server.tracer.clone(), next: known.clone() };
        let unsent = unsent::UnsentGuard { in_flight: server.in_flight.clone(), next: trace };
        let memory = memory::MemoryGuard { in_flight: server.in_flight.clone(), next: unsent };
        let network = authenticate::Authenticate {
            identity: server.identity.clone(),
            metrics: server.metrics.clone(),
            auditor: server.auditor.clone(),
            next: memory,
        };
        Filters { network, known }
    }
}
