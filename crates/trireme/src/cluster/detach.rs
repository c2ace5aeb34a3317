//! A cluster in a process of its own: `up -d` and `server -d`.

use std::io::BufRead as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::ClusterPaths;
use super::progress::say;

/// How the line begins that ends the waiting.
pub(super) const READY_LINE: &str = "Cluster is ready";

/// What a user does next.
pub(super) fn next_steps(paths: &ClusterPaths) -> String {
    format!(
        "\nkubeconfig: {0}\n\nNext:\n  export KUBECONFIG={0}\n  kubectl create deployment hello --image=trireme.local/demo:v1\n  kubectl get pods -w",
        paths.kubeconfig().display()
    )
}

/// Starts this program again with `args`, shows its progress, and leaves when it is ready.
pub(super) fn detached(args: &[String], paths: &ClusterPaths) -> Result<()> {
    std::fs::create_dir_all(&paths.root)
        .with_context(|| format!("create {}", paths.root.display()))?;
    let log = std::fs::File::create(paths.log())
        .with_context(|| format!("write {}", paths.log().display()))?;
    let mut command = Command::new("/proc/self/exe");
    command.arg0("trireme").args(args).args(["--name", &paths.name]);
    // A process group of its own: the terminal's Ctrl-C is not for it.
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).process_group(0);
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
