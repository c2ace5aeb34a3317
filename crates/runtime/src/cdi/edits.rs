//! CDI edits of a container.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

use super::spec::{ContainerEdits, DeviceNode, Mount};
use crate::cgroup::DeviceRule;
use crate::error::{Error, IoContext as _, Result};

/// A device node that the container gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CdiNode {
    pub(crate) path: String,
    pub(crate) host_path: String,
    /// With the type bits.
    pub(crate) mode: u32,
    pub(crate) device: u64,
    /// The container's user, when the file names nobody.
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    access: String,
}

impl CdiNode {
    /// Its rule; pipes have none.
    pub(crate) fn rule(&self) -> Option<DeviceRule> {
        let kind = match self.mode & libc::S_IFMT {
            libc::S_IFBLK => b'b',
            libc::S_IFCHR => b'c',
            _ => return None,
        };
        let (major, minor) = (libc::major(self.device), libc::minor(self.device));
        let access = match self.access.as_str() {
            "" => "rwm",
            "none" => return None,
            some => some,
        };
        Some(DeviceRule::new(kind, Some(major), Some(minor), access))
    }
}

/// A file or directory of the host that the container gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CdiMount {
    pub(crate) source: String,
    pub(crate) target: String,
    pub(crate) read_only: bool,
    /// `MOUNT_ATTR_*`.
    pub(crate) attributes: u64,
    pub(crate) propagation: u64,
}

/// All of a container's devices together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Edits {
    /// Name and value.
    pub(super) env: Vec<(String, String)>,
    pub(crate) nodes: Vec<CdiNode>,
    pub(crate) mounts: Vec<CdiMount>,
    pub(super) groups: Vec<u32>,
}

impl Edits {
    /// Adds more; a later one takes the place of an earlier one of the same path or name.
    pub(super) fn add(&mut self, more: &ContainerEdits) -> Result<()> {
        if let Some(what) = more.unsupported() {
            return Err(Error::Unsupported(what));
        }
        for pair in &more.env {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            self.env.retain(|(other, _)| other != name);
            self.env.push((name.to_owned(), value.to_owned()));
        }
        for node in &more.device_nodes {
            let node = resolve(node)?;
            self.nodes.retain(|other| other.path != node.path);
            self.nodes.push(node);
        }
        for mount in &more.mounts {
            let mount = bind(mount)?;
            self.mounts.retain(|other| other.target != mount.target);
            self.mounts.push(mount);
        }
        self.groups.extend(more.additional_gids.iter().filter(|gid| **gid != 0));
        Ok(())
    }
}

fn type_bits(kind: &str) -> u32 {
    match kind {
        "b" => libc::S_IFBLK,
        "p" => libc::S_IFIFO,
        _ => libc::S_IFCHR,
    }
}

/// Attributes that the file leaves out come from the host's device.
fn resolve(node: &DeviceNode) -> Result<CdiNode> {
    let host_path = if node.host_path.is_empty() { &node.path } else { &node.host_path };
    let is_whole = !node.kind.is_empty() && (node.major != 0 || node.kind == "p");
    let found = std::fs::metadata(host_path);
    let (mut mode, mut device) = (type_bits(&node.kind), libc::makedev(node.major, node.minor));
    match found {
        Err(_) if is_whole => {}
        Err(error) => {
            return Err(error).at("stat CDI host device", host_path);
        }
        Ok(meta) => {
            let kind = meta.file_type();
            let is_device = kind.is_char_device() || kind.is_block_device() || kind.is_fifo();
            if !is_whole && !is_device {
                return Err(Error::Invalid(format!(
                    "CDI host device {host_path}: not a device node"
                )));
            }
            if !is_whole {
                if !node.kind.is_empty() && type_bits(&node.kind) != meta.mode() & libc::S_IFMT {
                    return Err(Error::Invalid(format!(
                        "CDI device ({:?}, {host_path:?}), host type mismatch",
                        node.path
                    )));
                }
                mode = meta.mode() & libc::S_IFMT;
                device = meta.rdev();
            }
            mode |= meta.mode() & 0o7777;
        }
    }
    if let Some(given) = node.file_mode {
        mode = mode & libc::S_IFMT | given & 0o7777;
    } else if mode & 0o7777 == 0 {
        // runc's for a device without a mode of its own.
        mode |= 0o666;
    }
    Ok(CdiNode {
        path: node.path.clone(),
        host_path: host_path.clone(),
        mode,
        device,
        uid: node.uid,
        gid: node.gid,
        access: node.permissions.clone(),
    })
}

fn bind(mount: &Mount) -> Result<CdiMount> {
    let refused = |what: String| {
        Err(Error::Unsupported(format!("CDI mount {}: {what}", mount.container_path)))
    };
    if !["", "bind", "none"].contains(&mount.kind.as_str()) {
        return refused(format!("type {}", mount.kind));
    }
    if !mount.container_path.starts_with('/') {
        let text = format!("CDI mount path {:?} is not absolute", mount.container_path);
        return Err(Error::Invalid(text));
    }
    std::fs::metadata(&mount.host_path).at("inspect CDI mount", &mount.host_path)?;
    let mut bound = CdiMount {
        source: mount.host_path.clone(),
        target: mount.container_path.clone(),
        read_only: false,
        attributes: 0,
        propagation: libc::MS_PRIVATE,
    };
    for option in &mount.options {
        match option.as_str() {
            "ro" => bound.read_only = true,
            "rw" => bound.read_only = false,
            "nosuid" => bound.attributes |= libc::MOUNT_ATTR_NOSUID,
            "nodev" => bound.attributes |= libc::MOUNT_ATTR_NODEV,
            "noexec" => bound.attributes |= libc::MOUNT_ATTR_NOEXEC,
            "private" | "rprivate" => bound.propagation = libc::MS_PRIVATE,
            "slave" | "rslave" => bound.propagation = libc::MS_SLAVE,
            "shared" | "rshared" => bound.propagation = libc::MS_SHARED,
            "bind" | "rbind" | "suid" | "dev" | "exec" | "" => {}
            other => return refused(format!("option {other}")),
        }
    }
    Ok(bound)
}
