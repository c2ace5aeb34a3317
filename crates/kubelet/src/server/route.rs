//! x
use std::sync::Arc;
use client::Tasks;
use super::*;
pub(super) async fn handle(_s: Arc<Shared>, _t: Tasks, _u: Option<NodeUser>, _r: Request) -> Response { answer(404,"x") }
