//! Commands that the kubelet itself runs in containers: probes and hooks.
//!
//! Every command has a deadline. The runtime ends it, with all that it has started, when that is over
//! or when the call is dropped: a probe that is no longer wanted leaves nothing behind.

use std::time::Duration;

use runtime::cri::{ExecSyncRequest, ExecSyncResponse};

use crate::kubelet::Shared;
use crate::pod::plan::go_duration;

/// What the runtime may take to end a command that ran out of time (upstream's).
const CLEANUP: Duration = Duration::from_secs(120);

/// A command that was not run to its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ExecError {
    #[error("command timed out: {command:?} timed out after {after}")]
    TimedOut { command: String, after: String },
    #[error("{0}")]
    Failed(String),
}

/// Runs a command to its end, or until `limit` is over.
pub(crate) async fn run(
    shared: &Shared,
    container: &str,
    cmd: Vec<String>,
    limit: Duration,
) -> Result<ExecSyncResponse, ExecError> {
    let timed_out = ExecError::TimedOut { command: cmd.join(" "), after: go_duration(limit) };
    // Never 0, which would be for ever.
    let timeout = i64::try_from(limit.as_secs().max(1)).unwrap_or(i64::MAX);
    let request = ExecSyncRequest { container_id: container.to_owned(), cmd, timeout };
    let done = tokio::time::timeout(limit + CLEANUP, shared.runtime.exec_sync(request)).await;
    match done {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(runtime::Error::ExecTimeout(_))) | Err(_) => Err(timed_out),
        Ok(Err(error)) => Err(ExecError::Failed(error.chain())),
    }
}
