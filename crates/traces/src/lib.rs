//! Distributed traces: spans with W3C contexts, sent to a collector by OTLP over gRPC.
//!
//! A component has a [`Tracer`] if it is configured to (upstream's `TracingConfiguration`), and begins the outermost
//! spans with it. Whatever runs below finds the span in its task ([`within`], [`start`]) and begins children of it;
//! where there is none, nothing is recorded and nothing allocated. Spans that have ended wait in a bounded queue;
//! what does not fit, or what no collector takes, is dropped and counted.

mod config;
mod context;
mod current;
mod export;
mod message;
mod queue;
mod span;
mod tracer;

pub use config::{Configuration, Endpoint, from_fields};
pub use context::{SpanContext, TRACEPARENT, TRACESTATE};
pub use current::{current, inject, start, within};
pub use message::{AnyValue, ExportTraceServiceRequest, ExportTraceServiceResponse, any_value};
pub use queue::Counts;
pub use span::{Kind, Span, Value};
pub use tracer::Tracer;
