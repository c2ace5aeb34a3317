//! Containers that attack: each test is a hole that runc or containerd had (its number beside it), or a
//! kind of it, tried from within a real container.
use std::os::unix::fs::MetadataExt;

use runtime::RuntimeService;
use runtime::cri::*;

use crate::harness::{Node, example, log_text, sh, with_context};

mod devices;
mod execs;
mod facts;
mod links;
mod others;
mod trees;

/// A container of busybox with the attacking program beside.
fn attacker(
    script: &str,
    change: impl FnOnce(&mut LinuxContainerSecurityContext),
) -> ContainerConfig {
    let mut config = with_context(script, change);
    config.mounts.push(Mount {
        container_path: "/attacker".to_owned(),
        host_path: example("attacker").to_string_lossy().into_owned(),
        readonly: true,
        ..Mount::default()
    });
    config
}

/// Capabilities beside the usual ones.
fn added(context: &mut LinuxContainerSecurityContext, names: &[&str]) {
    context.capabilities = Some(Capability {
        add_capabilities: names.iter().map(|n| (*n).to_owned()).collect(),
        ..Capability::default()
    });
}

/// Waits for a file in the container.
async fn wait_for(node: &Node, id: &str, file: &str) {
    node.exec(id, &format!("while [ ! -e {file} ]; do sleep 0.01; done")).await;
}
