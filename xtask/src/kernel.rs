//! The kernel of the tests' virtual machine: Debian's, unpacked beside the build, never installed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Debian's package that depends on the newest kernel for virtual machines.
const LATEST: &str = "linux-image-cloud-amd64";

/// The folder with the kernel's files, fetched when it is not there yet.
pub(crate) fn unpacked(target: &Path) -> Result<PathBuf> {
    let folder = target.join("test-kernel");
    if folder.join("lib/modules").exists() {
        return Ok(folder);
    }
    let beside = target.join("test-kernel.new");
    if beside.exists() {
        std::fs::remove_dir_all(&beside).context("remove what an earlier try left")?;
    }
    std::fs::create_dir_all(&beside).with_context(|| format!("create {}", beside.display()))?;
    let package = newest()?;
    println!("fetching {package} for the tests' virtual machine");
    output(Command::new("apt-get").args(["download", &package]).current_dir(&beside))?;
    let archive = std::fs::read_dir(&beside)?.flatten().map(|e| e.path()).next();
    let archive = archive.context("apt-get download left no file")?;
    output(Command::new("dpkg").arg("-x").arg(&archive).arg(&beside))?;
    std::fs::remove_file(&archive)?;
    std::fs::rename(&beside, &folder)?;
    Ok(folder)
}

fn newest() -> Result<String> {
    let shown = output(Command::new("apt-cache").args(["depends", LATEST]))?;
    let first = shown.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
    Ok(first.with_context(|| format!("apt knows no {LATEST}"))?.to_owned())
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
