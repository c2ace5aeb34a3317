//! Debian packages that tests need and this machine lacks.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

/// Installs the packages of those programs that are not found: a name in the path or a whole path,
/// and the package that has it.
pub(crate) fn ensure(programs: &[(&str, &str)]) -> Result<()> {
    let missing: Vec<&str> = programs
        .iter()
        .filter(|(program, _)| !found(program))
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() { Ok(()) } else { install(&missing) }
}

fn found(program: &str) -> bool {
    if program.starts_with('/') {
        return Path::new(program).exists();
    }
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let also = ["/usr/sbin", "/sbin"].map(std::path::PathBuf::from);
    std::env::split_paths(&folders).chain(also).any(|folder| folder.join(program).exists())
}

fn install(missing: &[&str]) -> Result<()> {
    println!("installing for the tests: {}", missing.join(" "));
    let apt = |args: &[&str]| -> Result<()> {
        let mut command = Command::new("apt-get");
        command.args(args).env("DEBIAN_FRONTEND", "noninteractive").stdout(Stdio::null());
        match command.status() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => bail!("apt-get {} failed: {status}", args.join(" ")),
            Err(error) => {
                bail!("install {} by hand: apt-get cannot be run ({error})", missing.join(" "))
            }
        }
    };
    apt(&["update"])?;
    let mut install = vec!["install", "--yes", "--no-install-recommends"];
    install.extend(missing);
    apt(&install)
}
