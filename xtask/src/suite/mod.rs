//! `cargo xtask clients`: third-party programs, unmodified, each against one cluster of one node.

mod programs;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::{clients, debian};
use programs::{PROGRAMS, Program, run, sources};

/// What every program needs: a file's name, and the Debian package that has it.
const NEEDED: [(&str, &str); 3] =
    [("kubectl", "kubernetes-client"), ("busybox", "busybox-static"), ("pip3", "python3-pip")];
/// A program has this long.
const PATIENCE: Duration = Duration::from_secs(300);
/// Between two looks at whether it has ended.
const LOOK: Duration = Duration::from_millis(100);

/// Runs the programs of these names, or all: `[--trireme <binary>] [name…]`.
pub(crate) fn main(args: &[&str]) -> Result<()> {
    let (binary, names) = match args {
        ["--trireme", binary, names @ ..] => (Some(*binary), names),
        names => (None, names),
    };
    for name in names {
        let known = PROGRAMS.iter().any(|program| program.name == *name);
        ensure!(known, "there is no program {name}; there are {}", known_names());
    }
    let chosen = |program: &&Program| names.is_empty() || names.contains(&program.name);
    let chosen: Vec<_> = PROGRAMS.iter().filter(chosen).collect();
    let target = PathBuf::from(std::env::var_os("CARGO_TARGET_DIR").unwrap_or("target".into()));
    let target = std::path::absolute(target)?;
    let needed = chosen.iter().flat_map(|program| program.debian).chain(&NEEDED);
    debian::ensure(&needed.copied().collect::<Vec<_>>())?;
    let binary = match binary {
        Some(binary) => std::path::absolute(binary)?,
        None => built(&target)?,
    };
    let cluster = Cluster::start(binary)?;
    let mut failed = Vec::new();
    for program in chosen {
        let began = Instant::now();
        let done = one(program, &target, &cluster);
        let seconds = began.elapsed().as_secs_f64();
        match done {
            Ok(()) => println!("PASS {} ({seconds:.1} s)", program.name),
            Err(error) => {
                println!("FAIL {} ({seconds:.1} s): {error:#}", program.name);
                failed.push(program.name);
            }
        }
    }
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

fn known_names() -> String {
    PROGRAMS.map(|program| program.name).join(", ")
}

fn built(target: &Path) -> Result<PathBuf> {
    let status = Command::new("cargo").args(["build", "--package", "trireme"]).status();
    ensure!(status.context("run cargo")?.success(), "trireme does not build");
    let below = [
        target.join(format!("{}-unknown-linux-gnu/debug", std::env::consts::ARCH)),
        target.join("debug"),
    ];
    let found = below.into_iter().map(|folder| folder.join("trireme")).find(|file| file.exists());
    found.context("cargo left no binary where it was looked for: name it with --trireme")
}

fn one(program: &Program, target: &Path, cluster: &Cluster) -> Result<()> {
    let folder = target.join("third-party").join(program.name);
    clients::ensure(&folder, &program.versions(), |into| program.install(into))?;
    let mut command = program.command(&folder);
    command.env("KUBECONFIG", cluster.kubeconfig()).env("HOME", &cluster.folder);
    let mut running = command.stdin(Stdio::null()).spawn().context("start it")?;
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = running.try_wait()? {
            ensure!(status.success(), "{status}");
            return Ok(());
        }
        if Instant::now() > end {
            running.kill().and_then(|()| running.wait()).context("end it")?;
            bail!("not done after {} s", PATIENCE.as_secs());
        }
        std::thread::sleep(LOOK);
    }
}

/// A cluster of the suite's own: nothing is added to this host's network.
struct Cluster {
    binary: PathBuf,
    folder: PathBuf,
    /// Of this run alone: clusters of one name share their cgroups, wherever their files are.
    name: String,
}

const BUSYBOX: &str = "trireme.local/busybox:v1";

impl Cluster {
    fn start(binary: PathBuf) -> Result<Cluster> {
        // Short: unix socket paths end at 108 bytes.
        let folder = PathBuf::from(format!("/tmp/tric{}", std::process::id()));
        std::fs::create_dir(&folder).with_context(|| format!("create {}", folder.display()))?;
        let name = format!("clients{}", std::process::id());
        let cluster = Cluster { binary, folder, name };
        run(&mut cluster.trireme(&["up", "--detach", "--host-routes=none"]))?;
        let archive = cluster.folder.join("busybox.tar");
        let mut python = Command::new("python3");
        run(python.arg(sources().join("image.py")).arg(&archive).arg(BUSYBOX))?;
        run(cluster.trireme(&["image", "import"]).arg(&archive))?;
        Ok(cluster)
    }

    fn trireme(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        let (command_word, rest) = args.split_at(1);
        command.args(command_word).args(["--name", &self.name]).args(rest);
        command.env("TRIREME_ROOT", &self.folder).stdin(Stdio::null());
        command
    }

    fn kubeconfig(&self) -> PathBuf {
        self.folder.join(&self.name).join("kubeconfig")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Err(error) = run(&mut self.trireme(&["reset", "--yes"])) {
            println!("the cluster in {} could not be removed: {error:#}", self.folder.display());
            return;
        }
        if let Err(error) = std::fs::remove_dir_all(&self.folder) {
            println!("{} could not be removed: {error}", self.folder.display());
        }
    }
}
