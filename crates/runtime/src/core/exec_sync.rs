//! Commands with a deadline: probes and hooks.
//!
//! Each runs in a cgroup of its own below its container's. At its deadline, when its caller gives up, or
//! when this process is started again, everything in that group ends, whatever it has forked. What a
//! command leaves running when it ends by itself stays, as upstream: a hook may start a server.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::sync::oneshot;

use super::streams::{exit, pipes};
use super::{Inner, new_id};
use crate::cgroup::Leaf;
use crate::cri::{ExecSyncRequest, ExecSyncResponse};
use crate::error::{Error, Result};
use crate::plan;
use crate::service::{Input, StreamOptions};
use crate::wire::Run;

/// Bytes of one stream that are returned; the rest is read and dropped (CVE-2022-1708).
const OUTPUT_LIMIT: usize = 16 << 20;
/// How long output may still come after an exec's end: a child of it may hold the pipe.
const OUTPUT_GRACE: Duration = Duration::from_millis(500);

/// Why a command was not waited for.
enum Given {
    Up,
    Late,
}

impl Inner {
    pub(super) async fn exec_sync(
        self: &Arc<Self>,
        request: ExecSyncRequest,
    ) -> Result<ExecSyncResponse> {
        // Dropped with this future: the task below learns that its caller has gone.
        let (_caller, gone) = oneshot::channel::<()>();
        let inner = self.clone();
        let task = tokio::spawn(async move { inner.run_command(request, gone).await });
        task.await.map_err(|e| Error::Supervisor(e.to_string()))?
    }

    async fn run_command(
        &self,
        request: ExecSyncRequest,
        gone: oneshot::Receiver<()>,
    ) -> Result<ExecSyncResponse> {
        let record = self.exec_target(&request.container_id, &request.cmd)?;
        let id = new_id();
        let leaf = self.cgroups.group(&record.cgroup)?.make_leaf(&id)?;
        let container = record.plan.unwrap_or_default();
        let plan = plan::exec(&container, id.clone(), request.cmd, false, leaf.as_ref());
        let streams = StreamOptions { stdout: true, stderr: true, ..StreamOptions::default() };
        let pipes = pipes(streams, true)?;
        let started = self.start_exec(&plan, &pipes.theirs).await;
        // The container's ends only: the output must end with its last writer.
        drop(pipes.theirs);
        let watch = match started {
            Ok((watch, _)) => watch,
            Err(e) => {
                if let Some(leaf) = leaf {
                    leaf.release();
                }
                return Err(e);
            }
        };
        let mut response = ExecSyncResponse::default();
        let outputs = [(pipes.stdout, &mut response.stdout), (pipes.stderr, &mut response.stderr)];
        let run = tokio::select! {
            run = finished(exit(watch), outputs) => Ok(run),
            given = limit(request.timeout, gone) => Err(given),
        };
        match run {
            Ok(run) => {
                let run = self.settle(run, leaf).await?;
                response.exit_code = run.exit_code;
                Ok(response)
            }
            Err(given) => {
                self.end_command(&id, leaf).await?;
                Err(match given {
                    Given::Late => Error::ExecTimeout(request.timeout),
                    Given::Up => Error::Supervisor("the caller has gone".to_owned()),
                })
            }
        }
    }

    /// A command that has ended, or whose end nobody saw: then it may run on, and must not.
    async fn settle(&self, run: Result<Run>, leaf: Option<Leaf>) -> Result<Run> {
        match (&run, leaf) {
            (Ok(run), Some(leaf)) if !run.unseen => leaf.release(),
            (_, Some(leaf)) => leaf.end().await?,
            (_, None) => {}
        }
        run
    }

    async fn end_command(&self, id: &str, leaf: Option<Leaf>) -> Result<()> {
        match leaf {
            Some(leaf) => leaf.end().await,
            None => self.signal(id, libc::SIGKILL).await,
        }
    }

    /// Commands whose callers ended with an earlier agent.
    pub(super) fn end_abandoned_execs(&self) {
        for record in self.running(|_| true) {
            let Ok(group) = self.cgroups.group(&record.cgroup) else { continue };
            for leaf in group.leaves() {
                let container = record.id.clone();
                drop(tokio::spawn(async move {
                    if let Err(e) = leaf.end().await {
                        tracing::warn!(container, "{}", e.chain());
                    }
                }));
            }
        }
    }
}

/// Until the deadline, or until the caller has gone.
async fn limit(seconds: i64, gone: oneshot::Receiver<()>) -> Given {
    let late = async {
        match u64::try_from(seconds) {
            Ok(seconds) if seconds > 0 => tokio::time::sleep(Duration::from_secs(seconds)).await,
            _ => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = gone => Given::Up,
        () = late => Given::Late,
    }
}

/// The end of the process, and its output.
async fn finished(
    exit: impl Future<Output = Result<Run>>,
    outputs: [(Option<Input>, &mut Vec<u8>); 2],
) -> Result<Run> {
    let outputs = async {
        let [(stdout, out), (stderr, err)] = outputs;
        tokio::join!(collect(stdout, out), collect(stderr, err));
    };
    tokio::pin!(outputs, exit);
    tokio::select! {
        run = &mut exit => {
            let _ = tokio::time::timeout(OUTPUT_GRACE, outputs).await;
            run
        }
        () = &mut outputs => exit.await,
    }
}

/// Reads to the end, keeps the first bytes.
async fn collect(stream: Option<Input>, out: &mut Vec<u8>) {
    let Some(mut stream) = stream else { return };
    let mut buffer = vec![0u8; 32 << 10];
    while let Ok(count) = stream.read(&mut buffer).await {
        if count == 0 {
            return;
        }
        let room = OUTPUT_LIMIT.saturating_sub(out.len()).min(count);
        out.extend_from_slice(&buffer[..room]);
    }
}
