//! Small decisions about containers: signal names, device rules, paths, merged limits.

use std::path::Path;

use super::now_ns;
use super::records::ContainerRecord;
use crate::cgroup::DeviceRule;
use crate::cri::*;
use crate::error::{Error, IoContext, Result};
use crate::wire::Run;

/// The exit code of a container whose program could not be started: containerd's.
const START_FAILED: i32 = 128;

/// Zero and empty mean "as before".
pub(super) fn merge(have: &mut LinuxContainerResources, wanted: &LinuxContainerResources) {
    let pairs = [
        (&mut have.cpu_period, wanted.cpu_period),
        (&mut have.cpu_quota, wanted.cpu_quota),
        (&mut have.cpu_shares, wanted.cpu_shares),
        (&mut have.memory_limit_in_bytes, wanted.memory_limit_in_bytes),
        (&mut have.memory_swap_limit_in_bytes, wanted.memory_swap_limit_in_bytes),
        (&mut have.oom_score_adj, wanted.oom_score_adj),
    ];
    for (have, wanted) in pairs.into_iter().filter(|(_, wanted)| *wanted != 0) {
        *have = wanted;
    }
    for (have, wanted) in
        [(&mut have.cpuset_cpus, &wanted.cpuset_cpus), (&mut have.cpuset_mems, &wanted.cpuset_mems)]
    {
        if !wanted.is_empty() {
            have.clone_from(wanted);
        }
    }
    have.unified.extend(wanted.unified.clone());
}

pub(super) fn start_failed(record: &mut ContainerRecord, error: &Error) {
    let now = now_ns();
    record.run = Some(Run {
        id: record.id.clone(),
        ended: true,
        exit_code: START_FAILED,
        started_at: 0,
        finished_at: now,
        ..Run::default()
    });
    record.reason = "StartError".to_owned();
    record.message = error.chain();
}

/// A signal by name (with or without SIG) or number; SIGTERM when it is none.
pub(super) fn signal_number(name: &str) -> i32 {
    const NAMES: [(&str, i32); 31] = [
        ("HUP", 1),
        ("INT", 2),
        ("QUIT", 3),
        ("ILL", 4),
        ("TRAP", 5),
        ("ABRT", 6),
        ("BUS", 7),
        ("FPE", 8),
        ("KILL", 9),
        ("USR1", 10),
        ("SEGV", 11),
        ("USR2", 12),
        ("PIPE", 13),
        ("ALRM", 14),
        ("TERM", 15),
        ("STKFLT", 16),
        ("CHLD", 17),
        ("CONT", 18),
        ("STOP", 19),
        ("TSTP", 20),
        ("TTIN", 21),
        ("TTOU", 22),
        ("URG", 23),
        ("XCPU", 24),
        ("XFSZ", 25),
        ("VTALRM", 26),
        ("PROF", 27),
        ("WINCH", 28),
        ("IO", 29),
        ("PWR", 30),
        ("SYS", 31),
    ];
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |text: &str| text.parse::<i32>().unwrap_or(0);
    if let Ok(number) = short.parse::<i32>() {
        return number;
    }
    match (short.strip_prefix("RTMIN"), short.strip_prefix("RTMAX")) {
        (Some(rest), _) => 34 + offset(rest),
        (_, Some(rest)) => 64 + offset(rest),
        _ => NAMES.iter().find(|(n, _)| *n == short).map_or(libc::SIGTERM, |(_, number)| *number),
    }
}

pub(super) fn device_rules(config: &ContainerConfig) -> Result<Vec<DeviceRule>> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    config
        .devices
        .iter()
        .map(|device| {
            let meta =
                std::fs::metadata(&device.host_path).at("inspect device", &device.host_path)?;
            let kind = if meta.file_type().is_block_device() { b'b' } else { b'c' };
            let (major, minor) = (libc::major(meta.rdev()), libc::minor(meta.rdev()));
            let access = if device.permissions.is_empty() { "rwm" } else { &device.permissions };
            Ok(DeviceRule::new(kind, Some(major), Some(minor), access))
        })
        .collect()
}

/// What would be ignored, and must not be.
pub(super) fn refuse(config: &ContainerConfig) -> Result<()> {
    let context = crate::plan::context(config);
    if !context.apparmor_profile.is_empty() {
        let none = ["unconfined", "runtime/default"].contains(&context.apparmor_profile.as_str());
        if !none {
            return Err(no_apparmor());
        }
    }
    refuse_labels(context.apparmor.as_ref(), context.selinux_options.as_ref())?;
    config.mounts.iter().try_for_each(refuse_mount)?;
    match config.mounts.iter().find(|m| m.selinux_relabel && enforcing_selinux()) {
        Some(mount) => Err(Error::Unsupported(format!("relabelling {}", mount.container_path))),
        None => Ok(()),
    }
}

/// Mounts that would be writable, or spread, although the caller says that they are read-only.
fn refuse_mount(mount: &Mount) -> Result<()> {
    let image = mount.image.as_ref().is_some_and(|image| !image.image.is_empty());
    let private = mount.propagation == MountPropagation::Private as i32;
    let why = match (image, mount.recursive_read_only) {
        (true, _) if !mount.readonly => "an image volume is read-only",
        (_, true) if !mount.readonly => "recursive_read_only needs readonly",
        (_, true) if !private => "recursive_read_only needs private propagation",
        _ => return Ok(()),
    };
    Err(Error::Invalid(format!("mount {}: {why}", mount.container_path)))
}

fn no_apparmor() -> Error {
    Error::Unsupported("AppArmor profiles: no profile can be loaded here".to_owned())
}

fn enforcing_selinux() -> bool {
    Path::new("/sys/fs/selinux/enforce").exists()
}

/// Profiles and labels that would have to be set. Where the kernel has no SELinux, labels mean nothing,
/// as upstream's runtimes take it.
pub(super) fn refuse_labels(
    apparmor: Option<&SecurityProfile>,
    selinux: Option<&SELinuxOption>,
) -> Result<()> {
    if apparmor.is_some_and(|p| p.profile_type == ProfileType::Localhost as i32) {
        return Err(no_apparmor());
    }
    if selinux.is_some_and(|o| *o != SELinuxOption::default()) && enforcing_selinux() {
        return Err(Error::Unsupported("SELinux labels".to_owned()));
    }
    Ok(())
}

/// The log's place: the sandbox's directory and the container's name in it.
pub(super) fn log_path(sandbox: &PodSandboxConfig, config: &ContainerConfig) -> Result<String> {
    if sandbox.log_directory.is_empty() || config.log_path.is_empty() {
        return Ok(String::new());
    }
    let path = Path::new(&sandbox.log_directory).join(&config.log_path);
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).at("make", dir)?;
    }
    Ok(path.to_string_lossy().into_owned())
}

/// A host path that is not there becomes a directory, as other runtimes do.
pub(super) fn make_sources(config: &ContainerConfig) -> Result<()> {
    for mount in config.mounts.iter().filter(|m| !m.host_path.is_empty()) {
        if std::fs::symlink_metadata(&mount.host_path).is_err() {
            std::fs::create_dir_all(&mount.host_path).at("make", &mount.host_path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_that_say_read_only_are_read_only() {
        let private = MountPropagation::Private;
        let image = ImageSpec { image: "app".to_owned(), ..ImageSpec::default() };
        let mount = |readonly, recursive_read_only, propagation: MountPropagation, image| Mount {
            container_path: "/m".to_owned(),
            readonly,
            recursive_read_only,
            propagation: propagation as i32,
            image,
            ..Mount::default()
        };
        for (wanted, why) in [
            (mount(true, true, private, None), ""),
            (mount(false, false, MountPropagation::Bidirectional, None), ""),
            (mount(true, false, private, Some(image.clone())), ""),
            (mount(false, true, private, None), "recursive_read_only needs readonly"),
            (
                mount(true, true, MountPropagation::HostToContainer, None),
                "recursive_read_only needs private propagation",
            ),
            (
                mount(true, true, MountPropagation::Bidirectional, None),
                "recursive_read_only needs private propagation",
            ),
            (mount(false, false, private, Some(image.clone())), "an image volume is read-only"),
        ] {
            let said = refuse_mount(&wanted).map_err(|e| e.chain()).err().unwrap_or_default();
            assert!(said.ends_with(why) && said.is_empty() == why.is_empty(), "{said:?} {why:?}");
        }
    }

    #[test]
    fn signals_by_any_name() {
        for (name, number) in [
            ("SIGQUIT", 3),
            ("usr1", 10),
            ("9", 9),
            ("SIGRTMIN+3", 37),
            ("SIGRTMAX-1", 63),
            ("", 15),
        ] {
            assert_eq!(signal_number(name), number, "{name}");
        }
    }
}
