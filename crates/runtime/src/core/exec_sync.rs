//! Commands with a deadline: probes and hooks.
//!
//! Each runs in a cgroup of its own below its container's. At its deadline, when its caller gives up, or
//! when this process is started again, everything in that group ends, whatever it has forked. What a
//! command leaves running when it ends by itself stays, as upstream: a hook may start a server.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
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
/// Bytes of a stream that every command may return, whatever others do.
const OUTPUT_FREE: usize = 64 << 10;
/// Bytes beyond that which all commands that run may hold together: this process holds the control
/// plane, and a pod may have hundreds of probes that print at once.
const OUTPUT_TOTAL: usize = 64 << 20;
static OUTPUT_HELD: AtomicUsize = AtomicUsize::new(0);

/// What one stream takes of the total, until it is dropped.
#[derive(Default)]
struct Held(usize);

impl Held {
    fn take(&mut self, bytes: usize) -> bool {
        let fits = |held: usize| held.checked_add(bytes).filter(|all| *all <= OUTPUT_TOTAL);
        let taken = OUTPUT_HELD.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits).is_ok();
        self.0 += if taken { bytes } else { 0 };
        taken
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        OUTPUT_HELD.fetch_sub(self.0, Ordering::AcqRel);
    }
}

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
        let streams = StreamOptions { stdout: true, stderr: true, ..StreamOptions::default() };
        let pipes = pipes(streams, true)?;
        // An OCI runtime puts the command where the container is.
        let leaf = match self.oci_runtime_of(&record)? {
            Some(_) => None,
            None => self.cgroups.group(&record.cgroup)?.make_leaf(&id)?,
        };
        let container = record.plan.unwrap_or_default();
        let plan = plan::exec(&container, id.clone(), request.cmd, false, leaf.as_ref());
        let started = self.start_exec(&plan, &pipes.theirs).await;
        // The container's ends only: the output must end with its last writer.
        drop(pipes.theirs);
        let watch = match started {
            Ok((watch, _)) => watch,
            Err(e) => {
                // A supervisor that was killed while it started the command may have started it.
                if let Some(leaf) = leaf {
                    leaf.end().await?;
                }
                return Err(e);
            }
        };
        let mut response = ExecSyncResponse::default();
        let mut held = [Held::default(), Held::default()];
        let outputs = [(pipes.stdout, &mut response.stdout), (pipes.stderr, &mut response.stderr)];
        let run = tokio::select! {
            run = finished(exit(watch), outputs, &mut held) => Ok(run),
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
    [of_out, of_err]: &mut [Held; 2],
) -> Result<Run> {
    let outputs = async {
        let [(stdout, out), (stderr, err)] = outputs;
        tokio::join!(collect(stdout, out, of_out), collect(stderr, err, of_err));
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
async fn collect(stream: Option<Input>, out: &mut Vec<u8>, held: &mut Held) {
    let Some(mut stream) = stream else { return };
    let mut buffer = vec![0u8; 32 << 10];
    while let Ok(count) = stream.read(&mut buffer).await {
        if count == 0 {
            return;
        }
        let room = OUTPUT_LIMIT.saturating_sub(out.len()).min(count);
        if out.len() + room <= OUTPUT_FREE || held.take(room) {
            out.extend_from_slice(&buffer[..room]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_commands_share_a_total() {
        let mut first = Held::default();
        assert!(first.take(OUTPUT_TOTAL));
        let mut second = Held::default();
        assert!(!second.take(1));
        drop(first);
        assert!(second.take(1));
    }
}
