//! `cargo xtask test`: everything, on a fresh machine, installing what tests need.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{clients, debian, kernel};

/// A program a test runs, and the Debian package it comes from.
const PROGRAMS: [(&str, &str); 23] = [
    ("busybox", "busybox-static"),
    ("curl", "curl"),
    ("nft", "nftables"),
    ("conntrack", "conntrack"),
    ("ip", "iproute2"),
    ("ping", "iputils-ping"),
    ("docker-registry", "docker-registry"),
    ("skopeo", "skopeo"),
    ("sysctl", "procps"),
    ("etcd", "etcd-server"),
    ("etcdctl", "etcd-client"),
    ("kubectl", "kubernetes-client"),
    ("pip3", "python3-pip"),
    ("node", "nodejs"),
    ("npm", "npm"),
    ("containerd", "containerd"),
    ("runc", "runc"),
    ("crun", "crun"),
    ("/usr/lib/cni/ptp", "containernetworking-plugins"),
    ("htpasswd", "apache2-utils"),
    ("xz", "xz-utils"),
    ("bzip2", "bzip2"),
    ("e2fsck", "e2fsprogs"),
];

pub(crate) fn run(extra: &[&str]) -> Result<()> {
    debian::ensure(&PROGRAMS)?;
    let target = std::env::var("CARGO_TARGET_DIR").ok();
    let mut cargo = Command::new("cargo");
    cargo.args(["test", "--workspace", "--no-fail-fast"]).args(extra);
    if let Some(target) = &target {
        cargo.env("CARGO_TARGET_DIR", target);
    }
    let folder = std::path::absolute(target.as_deref().unwrap_or("target"))?.join("clients");
    for missing in clients::install(&folder) {
        println!("A TEST WILL FAIL: {missing}");
    }
    cargo.env("TRIREME_TEST_CLIENTS", folder);
    match virtual_machine(target.as_deref().unwrap_or("target")) {
        Ok(kernel) => drop(cargo.env("TRIREME_TEST_KERNEL", kernel)),
        Err(why) => println!("SKIPPED: the test in a virtual machine: {why:#}"),
    }
    let status = cargo.status().context("run cargo test")?;
    if !status.success() {
        bail!("tests failed");
    }
    Ok(())
}

/// What the machine needs beside the programs all tests need; without it one test says so.
fn virtual_machine(target: &str) -> Result<std::path::PathBuf> {
    debian::ensure(&[("qemu-system-x86_64", "qemu-system-x86"), ("strip", "binutils")])?;
    kernel::unpacked(std::path::Path::new(target))?.canonicalize().context("the kernel's folder")
}
