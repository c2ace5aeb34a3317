//! A cluster in a process of its own: `up -d` and `server -d`.

use std::io::BufRead as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::progress::say;
use super::{ClusterPaths, folder};

/// How the line begins that ends the waiting.
pub(super) const READY_LINE: &str = "Cluster is ready";

/// Tells the process that it is its own session's: neither Ctrl-C nor the end of the terminal that it
/// was started from is for it.
const OWN_SESSION: &str = "--own-session";

/// Hidden flag of commands that can run in a process of their own.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Session {
    #[arg(long, hide = true)]
    own_session: bool,
}

impl Session {
    /// Leaves the session of the terminal, if this process was told to.
    pub(super) fn enter(&self) -> Result<()> {
        if self.own_session {
            rustix::process::setsid().context("begin a session of its own")?;
            // The working directory would keep a file system busy.
            std::env::set_current_dir("/").context("leave the working directory")?;
        }
        Ok(())
    }
}

/// What a user does next.
pub(super) fn next_steps(paths: &ClusterPaths) -> String {
    format!(
        "\nkubeconfig: {0}\n\nNext:\n  export KUBECONFIG={0}\n  kubectl create deployment hello --image=trireme.local/demo:v1\n  kubectl get pods -w",
        paths.kubeconfig().display()
    )
}

/// Starts this program again with `args`, shows its progress, and leaves when it is ready.
pub(super) fn detached(args: &[String], paths: &ClusterPaths) -> Result<()> {
    folder::make_private(&paths.root)?;
    let log = std::fs::File::create(paths.log())
        .with_context(|| format!("write {}", paths.log().display()))?;
    let mut command = Command::new("/proc/self/exe");
    command.arg0("trireme").args(args).args(["--name", &paths.name, OWN_SESSION]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
    let mut child = command.spawn().context("start the cluster's process")?;
    let output = child.stdout.take().context("the cluster's output")?;
    for line in std::io::BufReader::new(output).lines() {
        let line = line?;
        say(&line);
        if line.starts_with(READY_LINE) {
            say(&next_steps(paths));
            return Ok(());
        }
    }
    let status = child.wait()?;
    let log = std::fs::read_to_string(paths.log()).unwrap_or_default();
    bail!("the cluster did not start ({status}): {}", log.trim())
}
