//! `cargo xtask test`: everything, on a fresh machine, installing what tests need.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// A program a test runs, and the Debian package it comes from.
const PROGRAMS: [(&str, &str); 10] = [
    ("busybox", "busybox-static"),
    ("nft", "nftables"),
    ("conntrack", "conntrack"),
    ("ip", "iproute2"),
    ("ping", "iputils-ping"),
    ("docker-registry", "docker-registry"),
    ("skopeo", "skopeo"),
    ("etcd", "etcd-server"),
    ("etcdctl", "etcd-client"),
    ("kubectl", "kubernetes-client"),
];

pub(crate) fn run(extra: &[&str]) -> Result<()> {
    install_missing()?;
    let target = std::env::var("CARGO_TARGET_DIR").ok();
    let mut cargo = Command::new("cargo");
    cargo.args(["test", "--workspace", "--no-fail-fast"]).args(extra);
    if let Some(target) = target {
        cargo.env("CARGO_TARGET_DIR", target);
    }
    let status = cargo.status().context("run cargo test")?;
    if !status.success() {
        bail!("tests failed");
    }
    Ok(())
}

fn found(program: &str) -> bool {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let also = ["/usr/sbin", "/sbin"].map(std::path::PathBuf::from);
    std::env::split_paths(&folders).chain(also).any(|folder| folder.join(program).exists())
}

fn install_missing() -> Result<()> {
    let missing: Vec<&str> = PROGRAMS
        .iter()
        .filter(|(program, _)| !found(program))
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
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
    install.extend(&missing);
    apt(&install)
}
