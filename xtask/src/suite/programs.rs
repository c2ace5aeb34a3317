//! The third-party programs of the suite: their versions, how each is installed and how it runs.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

pub(super) struct Program {
    /// Its folder in `xtask/clients`.
    pub(super) name: &'static str,
    /// Packages of PyPI.
    pub(super) packages: &'static [&'static str],
    /// What it needs beside them: a file's name, and the Debian package that has it.
    pub(super) debian: &'static [(&'static str, &'static str)],
    pub(super) language: Language,
}

pub(super) enum Language {
    Python,
    /// `Main.java`, with the jars of this package of PyPI.
    Java {
        package: &'static str,
    },
}

const fn python(name: &'static str, packages: &'static [&'static str]) -> Program {
    Program { name, packages, debian: &[], language: Language::Python }
}

pub(super) const PROGRAMS: [Program; 7] = [
    python("kopf", &["kopf==1.45.2", "kubernetes_asyncio==36.1.0"]),
    python("kr8s", &["kr8s==0.20.15"]),
    python("lightkube", &["lightkube==1.0.1", "lightkube-models==1.37.0.8"]),
    Program {
        name: "fabric8",
        packages: &[],
        debian: &[("javac", "openjdk-17-jdk-headless")],
        language: Language::Java { package: "pyspark==4.3.0" },
    },
    python("ansible", &["ansible==12.3.0", "kubernetes==36.0.3"]),
    Program {
        debian: &[("/usr/lib/postgresql/15/bin/postgres", "postgresql-15")],
        ..python("patroni", &["patroni[kubernetes]==4.1.5", "psycopg2-binary==2.9.13"])
    },
    Program { debian: &[("prometheus", "prometheus")], ..python("prometheus", &[]) },
];

/// The jars of Spark that are fabric8's client and what it needs.
const JARS: [&str; 8] = [
    "kubernetes-",
    "jackson-",
    "netty-",
    "vertx-",
    "slf4j-api-",
    "snakeyaml-",
    "commons-compress-",
    "commons-io-",
];

impl Program {
    /// What is installed: another list is installed anew.
    pub(super) fn versions(&self) -> String {
        match self.language {
            Language::Python => self.packages.join(" "),
            Language::Java { package } => package.to_owned(),
        }
    }

    /// Installs its packages into an empty folder.
    pub(super) fn install(&self, into: &Path) -> Result<()> {
        if let Language::Java { package } = self.language {
            return jars(package, into);
        }
        if self.packages.is_empty() {
            return Ok(());
        }
        let mut pip = pip("install");
        run(pip.arg("--target").arg(into).args(self.packages))
    }

    /// The command that runs it, in its folder.
    pub(super) fn command(&self, installed: &Path) -> Command {
        let sources = sources();
        let mut command = match self.language {
            Language::Python => {
                let mut command = Command::new("python3");
                let path = format!("{}:{}", installed.display(), sources.display());
                command.arg("main.py").env("PYTHONPATH", path).env("PYTHONDONTWRITEBYTECODE", "1");
                command
            }
            Language::Java { .. } => {
                let mut command = Command::new("java");
                command.arg("-cp").arg(format!("{}/*", installed.display())).arg("Main.java");
                command
            }
        };
        command.current_dir(sources.join(self.name));
        command
    }
}

/// Where the programs' sources are.
pub(super) fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

fn jars(package: &str, into: &Path) -> Result<()> {
    let mut pip = pip("download");
    run(pip.args(["--no-deps", "--no-binary", ":all:", package, "--dest"]).arg(into))?;
    let archive = std::fs::read_dir(into)?.flatten().map(|entry| entry.path()).next();
    let archive = archive.context("pip left no archive")?;
    let mut tar = Command::new("tar");
    tar.arg("-xzf").arg(&archive).arg("-C").arg(into);
    tar.args(["--strip-components=3", "--wildcards"]);
    run(tar.args(JARS.map(|name| format!("*/jars/{name}*.jar"))))?;
    std::fs::remove_file(archive).context("remove the archive")
}

fn pip(what: &str) -> Command {
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", what, "--quiet", "--disable-pip-version-check"]);
    pip
}

pub(super) fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
