//! What built-in admission decides, as pure functions: an object and what bears on it in, a change or
//! a reason to refuse it out. Which requests are asked about is the API server's business.

pub mod limits;
pub mod node_labels;
pub mod pod_security;
pub mod quota;
