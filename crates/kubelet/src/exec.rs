//! Commands that the kubelet itself runs in containers: probes and hooks.
//!
//! Every command has a deadline, and the runtime ends the command with all it has started when that
//! is over. The call therefore runs to its end in a task of the node, also when whoever asked (a
//! probe, a hook) is gone: a call that is dropped half-way would leave its process behind.

use std::time::Duration;

use runtime::cri::{ExecSyncRequest, ExecSyncResponse};
use tokio::sync::oneshot;

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
    let runtime = shared.runtime.clone();
    let (sender, answer) = oneshot::channel();
    shared.tasks.spawn("exec", async move {
        let done = tokio::time::timeout(limit + CLEANUP, runtime.exec_sync(request)).await;
        // Who asked may be gone.
        let _gone = sender.send(done);
    });
    match answer.await {
        Ok(Ok(Ok(response))) => Ok(response),
        Ok(Ok(Err(runtime::Error::ExecTimeout(_))) | Err(_)) => Err(timed_out),
        Ok(Ok(Err(error))) => Err(ExecError::Failed(error.chain())),
        Err(_) => Err(ExecError::Failed("the node agent is ending".into())),
    }
}
