//! Clients in other languages, for the end-to-end tests: from their registries, into a folder beside
//! the build, in the versions named here.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Language, and the package with its version.
const PYTHON: (&str, &str) = ("python", "kubernetes==36.0.3");
const JAVASCRIPT: (&str, &str) = ("javascript", "@kubernetes/client-node@1.4.0");
/// Holds the package that a folder has, once it is there whole.
const COMPLETE: &str = "complete";

type Installer = fn(&Path, &str) -> Result<()>;

/// Installs what is missing below `folder`; says which clients cannot be had.
pub(crate) fn install(folder: &Path) -> Vec<String> {
    let wanted = [(PYTHON, python as Installer), (JAVASCRIPT, javascript)];
    let missing = wanted.into_iter().filter_map(|((language, package), install)| {
        let done = ensure(&folder.join(language), package, |into| install(into, package));
        done.err().map(|error| format!("the {language} client: {error:#}"))
    });
    missing.collect()
}

fn python(into: &Path, package: &str) -> Result<()> {
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
    pip.arg("--target").arg(into).arg(package);
    run(pip)
}

fn javascript(into: &Path, package: &str) -> Result<()> {
    let mut npm = Command::new("npm");
    npm.args(["install", "--silent", "--no-audit", "--no-fund", "--prefix"]).arg(into);
    npm.arg(package);
    run(npm)
}

/// Installs a package into a folder of its own, unless it is there in this version.
pub(crate) fn ensure(
    folder: &Path,
    package: &str,
    install: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    let mark = folder.join(COMPLETE);
    if std::fs::read_to_string(&mark).is_ok_and(|there| there == package) {
        return Ok(());
    }
    if folder.exists() {
        std::fs::remove_dir_all(folder).context("remove another version")?;
    }
    std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    println!("installing for the tests: {package}");
    install(folder)?;
    std::fs::write(&mark, package).with_context(|| format!("write {}", mark.display()))
}

fn run(mut command: Command) -> Result<()> {
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
