//! What a driver implements, and its tables of methods for [`grpc::server`].

use grpc::server::Methods;

pub use crate::service::{
    Controller, GroupController, Identity, Node, controller, group_controller, identity, node,
};

/// Longest question, in bytes: grpc-go's limit.
const MESSAGE_MAX: usize = 4 << 20;

/// A server without methods; the functions of this module add them.
pub fn methods() -> Methods {
    Methods::new(MESSAGE_MAX)
}
