//! The resource pipeline: verbs, admission around them, field management, subresources, and the forms of responses.
//!
//! A [`call::Call`] is one request about one resource. The pipeline gets who asks as data and the resource as a
//! strategy; connections, and where requests come from, are not known here.

pub mod admission;
pub mod admission_options;
pub mod admit;
pub mod audited_tokens;
pub mod body;
pub mod call;
pub mod health_check;
pub mod identity;
pub mod limits;
pub mod managed;
pub mod metrics;
pub mod ports;
pub mod resources;
pub mod respond;
pub mod scale_view;
pub mod verbs;
pub mod versions;
pub mod virtuals;
