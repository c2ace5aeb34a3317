//! The container's file system as a list of steps.
//!
//! Order: the root, the kernel's file systems, devices, the caller's mounts (parents before children;
//! one of the caller's replaces one of ours at the same place), masks, and read-only at the very end.

use std::collections::HashSet;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;

use super::Input;
use crate::cdi::CdiMount;
use crate::cri::{LinuxContainerSecurityContext, Mount, MountPropagation};
use crate::error::{Error, IoContext, Result};
use crate::wire::{Bind, MountFs, Node, Overlay, Step, StepKind, Symlink};

/// Where a container's parts are on the host.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layout {
    /// Topmost first.
    pub(crate) layers: Vec<PathBuf>,
    pub(crate) upper: PathBuf,
    pub(crate) work: PathBuf,
    pub(crate) shm: PathBuf,
    pub(crate) mount_point: PathBuf,
    /// What the caller's mounts of images show, by the mount's place in its list: a file, or a directory's
    /// part in each layer, topmost first.
    pub(crate) image_mounts: Vec<(usize, PathBuf)>,
}

const RDONLY: u64 = 1;
const NOSUID: u64 = 2;
const NODEV: u64 = 4;
const NOEXEC: u64 = 8;
const STRICTATIME: u64 = 0x20;

/// Paths of /proc and /sys that tell or change the host, when the caller names none: the CRI's usual ones.
const MASKED: [&str; 10] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Every container's devices: name, major, minor.
const NODES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];
const LINKS: [(&str, &str); 5] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/ptmx", "pts/ptmx"),
];

fn filesystem(fs_type: &str, target: &str, attributes: u64, options: &[&str]) -> StepKind {
    StepKind::Mount(MountFs {
        fs_type: fs_type.to_owned(),
        target: target.to_owned(),
        attributes,
        options: options.iter().map(|o| (*o).to_owned()).collect(),
    })
}

pub(super) fn steps(
    input: &Input<'_>,
    context: &LinuxContainerSecurityContext,
    cwd: &str,
) -> Result<Vec<Step>> {
    let text = |p: &PathBuf| p.to_string_lossy().into_owned();
    let layout = &input.layout;
    let replaced: HashSet<&str> =
        input.config.mounts.iter().map(|m| m.container_path.trim_end_matches('/')).collect();
    let mut list = vec![StepKind::Root(Overlay {
        lowers: layout.layers.iter().map(text).collect(),
        upper: text(&layout.upper),
        work: text(&layout.work),
        target: String::new(),
        mapped: input.users.is_some(),
    })];
    kernel_filesystems(input, context.privileged, &mut list);
    list.retain(|step| !matches!(step, StepKind::Mount(m) if replaced.contains(m.target.as_str())));
    devices(input, context.privileged, &mut list)?;
    if !replaced.contains("/dev/shm") {
        list.push(bind(text(&layout.shm), "/dev/shm".to_owned()));
    }
    list.extend(callers(input)?);
    list.push(StepKind::Directory(cwd.to_owned()));
    if !context.privileged {
        protect(context, &mut list);
    }
    if context.readonly_rootfs {
        list.push(StepKind::ReadOnlyRoot(true));
    }
    Ok(list.into_iter().map(|kind| Step { kind: Some(kind) }).collect())
}

fn kernel_filesystems(input: &Input<'_>, privileged: bool, list: &mut Vec<StepKind>) {
    let quiet = NOSUID | NODEV | NOEXEC;
    let sys = if privileged { quiet } else { quiet | RDONLY };
    list.extend([
        filesystem("proc", "/proc", quiet, &[]),
        filesystem("tmpfs", "/dev", NOSUID | STRICTATIME, &["mode=755", "size=65536k"]),
        filesystem(
            "devpts",
            "/dev/pts",
            NOSUID | NOEXEC,
            &["newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        filesystem("mqueue", "/dev/mqueue", quiet, &[]),
        filesystem("sysfs", "/sys", sys, &[]),
    ]);
    if input.is_v2 {
        list.push(filesystem("cgroup2", "/sys/fs/cgroup", sys, &[]));
        return;
    }
    list.push(filesystem("tmpfs", "/sys/fs/cgroup", quiet, &["mode=755", "size=1024k"]));
    for dir in &input.v1_dirs {
        let Some(controller) = controller_name(dir, input) else { continue };
        list.push(bind(dir.to_string_lossy().into_owned(), format!("/sys/fs/cgroup/{controller}")));
    }
    // A container that could write here could lift its own limits.
    if !privileged {
        list.push(StepKind::ReadOnly("/sys/fs/cgroup".to_owned()));
    }
}

/// The hierarchy's directory name: the first component below the root that all share.
fn controller_name(dir: &std::path::Path, input: &Input<'_>) -> Option<String> {
    let unified = input.unified_dir.as_ref().or(input.v1_dirs.iter().find(|d| *d != dir))?;
    let common = dir.components().zip(unified.components()).take_while(|(a, b)| a == b).count();
    dir.components().nth(common).map(|c| c.as_os_str().to_string_lossy().into_owned())
}

fn bind(source: String, target: String) -> StepKind {
    StepKind::Bind(Bind { source, target, propagation: libc::MS_PRIVATE, ..Bind::default() })
}

fn devices(input: &Input<'_>, privileged: bool, list: &mut Vec<StepKind>) -> Result<()> {
    let node = |path: String, kind: u32, major, minor| {
        let device = libc::makedev(major, minor);
        StepKind::Node(Node { path, mode: kind | 0o666, device, uid: 0, gid: 0 })
    };
    for (name, major, minor) in NODES {
        let path = format!("/dev/{name}");
        list.push(if input.users.is_some() {
            host_device(path.clone(), path)
        } else {
            node(path, libc::S_IFCHR, major, minor)
        });
    }
    for (path, to) in LINKS {
        list.push(StepKind::Symlink(Symlink { path: path.to_owned(), to: to.to_owned() }));
    }
    if privileged && input.users.is_none() {
        host_devices(list);
    }
    for device in &input.config.devices {
        let meta = std::fs::metadata(&device.host_path).at("inspect device", &device.host_path)?;
        let kind = meta.file_type();
        if !kind.is_char_device() && !kind.is_block_device() {
            return Err(Error::Invalid(format!("{} is no device", device.host_path)));
        }
        if input.users.is_some() {
            list.push(host_device(device.host_path.clone(), device.container_path.clone()));
            continue;
        }
        list.push(StepKind::Node(Node {
            path: device.container_path.clone(),
            mode: meta.mode(),
            device: meta.rdev(),
            uid: meta.uid(),
            gid: meta.gid(),
        }));
    }
    cdi_nodes(input, list);
    Ok(())
}

/// In a user namespace no device can be made: the host's is shown, on a mount through which its inode
/// cannot be changed.
fn host_device(source: String, target: String) -> StepKind {
    let propagation = libc::MS_PRIVATE;
    StepKind::Bind(Bind { source, target, propagation, read_only: true, ..Bind::default() })
}

/// A privileged container sees every device of the host that lies directly in /dev.
fn host_devices(list: &mut Vec<StepKind>) {
    let Ok(entries) = std::fs::read_dir("/dev") else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Ok(meta) = entry.metadata() else { continue };
        let kind = meta.file_type();
        let own = NODES.iter().any(|n| n.0 == name) || ["ptmx", "console"].contains(&name.as_str());
        if own || !(kind.is_char_device() || kind.is_block_device()) {
            continue;
        }
        list.push(StepKind::Node(Node {
            path: format!("/dev/{name}"),
            mode: meta.mode(),
            device: meta.rdev(),
            uid: meta.uid(),
            gid: meta.gid(),
        }));
    }
}

/// The caller's mounts, parents first.
fn callers(input: &Input<'_>) -> Result<Vec<StepKind>> {
    let depth = |path: &str| path.split('/').filter(|p| !p.is_empty()).count();
    let own = input.config.mounts.iter().enumerate();
    let own = own.map(|(index, m)| Ok((depth(&m.container_path), caller(input, index, m)?)));
    let cdi = input.edits.mounts.iter().map(|m| Ok((depth(&m.target), of_device(input, m))));
    let mut all = own.chain(cdi).collect::<Result<Vec<_>>>()?;
    all.sort_by_key(|(depth, _)| *depth);
    Ok(all.into_iter().map(|(_, step)| step).collect())
}

/// A mount of a CDI device.
fn of_device(input: &Input<'_>, mount: &CdiMount) -> StepKind {
    StepKind::Bind(Bind {
        source: mount.source.clone(),
        target: mount.target.clone(),
        read_only: mount.read_only,
        propagation: mount.propagation,
        attributes: mount.attributes,
        mapped: input.users.is_some(),
        ..Bind::default()
    })
}

/// The nodes of CDI devices, which are the container's user's unless they are somebody's.
fn cdi_nodes(input: &Input<'_>, list: &mut Vec<StepKind>) {
    for node in &input.edits.nodes {
        if input.users.is_some() {
            list.push(host_device(node.host_path.clone(), node.path.clone()));
            continue;
        }
        list.push(StepKind::Node(Node {
            path: node.path.clone(),
            mode: node.mode,
            device: node.device,
            uid: node.uid.unwrap_or(input.user.uid),
            gid: node.gid.unwrap_or(input.user.gid),
        }));
    }
}

fn caller(input: &Input<'_>, index: usize, mount: &Mount) -> Result<StepKind> {
    if !mount.container_path.starts_with('/') {
        return Err(Error::Invalid(format!(
            "mount path {:?} is not absolute",
            mount.container_path
        )));
    }
    let target = mount.container_path.clone();
    if mount.image.as_ref().is_some_and(|i| !i.image.is_empty()) {
        let layers = input.layout.image_mounts.iter().filter(|(i, _)| *i == index);
        let mut lowers: Vec<String> =
            layers.map(|(_, path)| path.to_string_lossy().into_owned()).collect();
        if lowers.len() > 1 {
            let mapped = input.users.is_some();
            return Ok(StepKind::Root(Overlay { lowers, target, mapped, ..Overlay::default() }));
        }
        // One layer (or a part of it) is simply bound.
        let Some(source) = lowers.pop() else {
            return Err(Error::Unsupported("a volume of an image without layers".to_owned()));
        };
        return Ok(StepKind::Bind(Bind {
            source,
            target,
            sub_path: String::new(),
            read_only: true,
            recursive_read_only: true,
            propagation: libc::MS_PRIVATE,
            mapped: input.users.is_some(),
            attributes: 0,
        }));
    }
    let mapped = mapping(input, mount)?;
    let propagation = match MountPropagation::try_from(mount.propagation) {
        Ok(MountPropagation::Bidirectional) => libc::MS_SHARED,
        Ok(MountPropagation::HostToContainer) => libc::MS_SLAVE,
        _ => libc::MS_PRIVATE,
    };
    Ok(StepKind::Bind(Bind {
        source: mount.host_path.clone(),
        target,
        read_only: mount.readonly,
        recursive_read_only: mount.recursive_read_only,
        propagation,
        sub_path: String::new(),
        mapped,
        attributes: 0,
    }))
}

/// A mount's mapping must be its pod's: another one would need a namespace of its own.
fn mapping(input: &Input<'_>, mount: &Mount) -> Result<bool> {
    if mount.uid_mappings.is_empty() && mount.gid_mappings.is_empty() {
        return Ok(false);
    }
    if input
        .users
        .as_ref()
        .is_some_and(|u| u.uids == mount.uid_mappings && u.gids == mount.gid_mappings)
    {
        return Ok(true);
    }
    let what = format!("mount {}: id mappings other than its pod's", mount.container_path);
    Err(Error::Unsupported(what))
}

fn protect(context: &LinuxContainerSecurityContext, list: &mut Vec<StepKind>) {
    // An empty list from the kubelet means `procMount: Unmasked`; it always sends a full one otherwise.
    // Other callers leave both empty and want the usual protection: the two cannot be told apart, so
    // the safe reading wins unless a caller sends one list only.
    let usual = context.masked_paths.is_empty() && context.readonly_paths.is_empty();
    if usual {
        list.extend(MASKED.iter().map(|p| StepKind::Mask((*p).to_owned())));
        list.extend(READ_ONLY.iter().map(|p| StepKind::ReadOnly((*p).to_owned())));
    } else {
        list.extend(context.masked_paths.iter().cloned().map(StepKind::Mask));
        list.extend(context.readonly_paths.iter().cloned().map(StepKind::ReadOnly));
    }
}
