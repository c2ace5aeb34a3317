//! RUN: a command in a container of the image so far; what it changed becomes a layer.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use dockerfile::{Heredoc, Mount, MountKind, Network, Run};
use futures::StreamExt as _;
use runtime::cri::{self, ContainerConfig, ContainerEventType, ImageSpec, KeyValue};
use runtime::image::StoredImage;
use runtime::{Embedded, RuntimeService as _};

use crate::error::{Error, IoContext, Result};
use crate::output::Follower;

/// How often output is looked for while a command runs: often enough for a person who waits.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// The log's name in the scratch directory.
const LOG: &str = "run.log";

/// One RUN with everything decided.
pub(crate) struct Command {
    pub(crate) image: StoredImage,
    /// The image's layers, topmost first.
    pub(crate) layers: Vec<PathBuf>,
    pub(crate) words: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) workdir: String,
    pub(crate) network: Network,
    pub(crate) insecure: bool,
    pub(crate) mounts: Vec<cri::Mount>,
    /// An empty directory for the log and the like.
    pub(crate) scratch: PathBuf,
}

/// The command line of a RUN: heredocs become scripts, and a shell is put before a text.
pub(crate) fn words(run: &Run, shell: &[String]) -> Result<(Vec<String>, Option<Heredoc>)> {
    let mut words = run.command.words.clone();
    let mut script = None;
    if let Some(first) = run.heredocs.first() {
        let [text] = words.as_mut_slice() else {
            return Err(Error::refused("a heredoc needs the shell form of RUN"));
        };
        let alone = run.heredocs.len() == 1 && is_alone(text);
        if alone && first.content.starts_with("#!") {
            *text = format!("{SCRIPTS}/{}", first.name);
            script = Some(first.clone());
        } else if alone {
            *text = first.text();
        } else {
            for heredoc in &run.heredocs {
                text.push_str(&format!("\n{}{}", heredoc.content, heredoc.name));
            }
        }
    }
    if run.command.shell {
        words = shell.iter().cloned().chain(words).collect();
    }
    Ok((words, script))
}

/// Where scripts of heredocs are mounted.
pub(crate) const SCRIPTS: &str = "/dev/pipes";

/// Whether the command is nothing but the heredoc's announcement.
fn is_alone(text: &str) -> bool {
    let text = text.trim().trim_start_matches(|c: char| c.is_ascii_digit());
    let Some(name) = text.strip_prefix("<<") else { return false };
    let name = name.strip_prefix('-').unwrap_or(name).trim_start();
    let quoted = name.starts_with(['"', '\'']);
    !name.contains('<')
        && (quoted || !name.contains(char::is_whitespace))
        && !name.contains(['|', '>', ';', '&'])
}

/// A command that has ended.
pub(crate) struct Finished<'a> {
    runtime: &'a Embedded,
    sandbox: String,
    container: String,
    pub(crate) exit_code: i32,
    /// The last lines of the output.
    pub(crate) last_lines: String,
}

impl Finished<'_> {
    pub(crate) fn changes(&self) -> Result<PathBuf> {
        Ok(self.runtime.changes_of(&self.container)?)
    }

    pub(crate) async fn remove(self) -> Result<()> {
        Ok(self.runtime.remove_pod_sandbox(&self.sandbox).await?)
    }
}

/// Runs it and tells its output line by line; the changed files are in the returned container's upper directory
/// until `remove`.
pub(crate) async fn run<'a>(
    runtime: &'a Embedded,
    command: &Command,
    tell: &(dyn Fn(&str) + Send + Sync),
) -> Result<Finished<'a>> {
    let sandbox_config = sandbox(command)?;
    let request = cri::RunPodSandboxRequest {
        config: Some(sandbox_config.clone()),
        runtime_handler: String::new(),
    };
    let sandbox = runtime.run_pod_sandbox(request).await?;
    let output = Follower::new(&command.scratch.join(LOG), tell);
    let done = in_sandbox(runtime, command, &sandbox, (sandbox_config, output)).await;
    match done {
        Ok((container, exit_code, last_lines)) => {
            Ok(Finished { runtime, sandbox, container, exit_code, last_lines })
        }
        Err(error) => {
            // The first error is the one to tell; the next build removes what is left.
            if let Err(left) = runtime.remove_pod_sandbox(&sandbox).await {
                tracing::warn!(error = left.chain(), "the step's sandbox is not removed");
            }
            Err(error)
        }
    }
}

async fn in_sandbox(
    runtime: &Embedded,
    command: &Command,
    sandbox: &str,
    (sandbox_config, mut output): (cri::PodSandboxConfig, Follower<'_>),
) -> Result<(String, i32, String)> {
    let mut events = runtime.events().await?;
    let request = cri::CreateContainerRequest {
        pod_sandbox_id: sandbox.to_owned(),
        config: Some(container(command)),
        sandbox_config: Some(sandbox_config),
    };
    let id = runtime.create_container(request).await?;
    runtime.start_container(&id).await?;
    let log = command.scratch.join(LOG);
    let mut looks = tokio::time::interval(LOOK_INTERVAL);
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            _ = looks.tick() => {
                output.read().at("read", &log)?;
                continue;
            }
        };
        let Some(event) = event else {
            return Err(Error::refused("the runtime ended during the step"));
        };
        let event = event?;
        if event.container_id == id
            && event.container_event_type == ContainerEventType::Stopped as i32
        {
            break;
        }
    }
    let status = runtime.container_status(&id, false).await?.status.unwrap_or_default();
    Ok((id, status.exit_code, output.finish().at("read", &log)?))
}

fn sandbox(command: &Command) -> Result<cri::PodSandboxConfig> {
    let network = match command.network {
        Network::None => cri::NamespaceMode::Pod,
        Network::Default | Network::Host => cri::NamespaceMode::Node,
    };
    let options = cri::NamespaceOption {
        network: network as i32,
        pid: cri::NamespaceMode::Container as i32,
        ..cri::NamespaceOption::default()
    };
    let security = cri::LinuxSandboxSecurityContext {
        namespace_options: Some(options),
        privileged: command.insecure,
        ..cri::LinuxSandboxSecurityContext::default()
    };
    let resolver = match fs::read_to_string("/etc/resolv.conf") {
        Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
        other => other.at("read", "/etc/resolv.conf")?,
    };
    let list = |key: &str| -> Vec<String> {
        let lines = resolver.lines().filter_map(|l| l.trim().strip_prefix(key));
        lines.flat_map(|l| l.split_whitespace().map(str::to_owned)).collect()
    };
    Ok(cri::PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata {
            name: "build".to_owned(),
            uid: command.scratch.display().to_string(),
            namespace: "build".to_owned(),
            attempt: 0,
        }),
        hostname: "build".to_owned(),
        log_directory: command.scratch.display().to_string(),
        dns_config: Some(cri::DNSConfig {
            servers: list("nameserver "),
            searches: list("search "),
            options: list("options "),
        }),
        linux: Some(cri::LinuxPodSandboxConfig {
            security_context: Some(security),
            ..cri::LinuxPodSandboxConfig::default()
        }),
        ..cri::PodSandboxConfig::default()
    })
}

fn container(command: &Command) -> ContainerConfig {
    let env = command
        .env
        .iter()
        .map(|(key, value)| KeyValue { key: key.clone(), value: value.clone().into_bytes() });
    let security = cri::LinuxContainerSecurityContext {
        privileged: command.insecure,
        namespace_options: Some(cri::NamespaceOption {
            pid: cri::NamespaceMode::Container as i32,
            ..cri::NamespaceOption::default()
        }),
        seccomp: Some(cri::SecurityProfile {
            profile_type: cri::ProfileType::RuntimeDefault as i32,
            ..cri::SecurityProfile::default()
        }),
        ..cri::LinuxContainerSecurityContext::default()
    };
    ContainerConfig {
        metadata: Some(cri::ContainerMetadata { name: "run".to_owned(), attempt: 0 }),
        image: Some(ImageSpec { image: command.image.id.clone(), ..ImageSpec::default() }),
        command: command.words.clone(),
        envs: env.collect(),
        working_dir: command.workdir.clone(),
        mounts: command.mounts.clone(),
        log_path: LOG.to_owned(),
        linux: Some(cri::LinuxContainerConfig {
            security_context: Some(security),
            resources: None,
        }),
        ..ContainerConfig::default()
    }
}

/// Takes mount points that the container needed, and that hold nothing, out of what it changed.
pub(crate) fn remove_stubs(upper: &Path, layers: &[PathBuf], targets: &[String]) -> Result<()> {
    let mut targets: Vec<&str> = targets.iter().map(|t| t.trim_matches('/')).collect();
    targets.sort_by_key(|t| std::cmp::Reverse(t.len()));
    for target in targets {
        let mut path = Path::new(target);
        while path.components().next().is_some() {
            if !is_stub(upper, layers, path).at("inspect", upper.join(path))? {
                break;
            }
            let place = upper.join(path);
            let meta = fs::symlink_metadata(&place).at("inspect", &place)?;
            let done = if meta.is_dir() { fs::remove_dir(&place) } else { fs::remove_file(&place) };
            done.at("remove", &place)?;
            path = path.parent().unwrap_or(Path::new(""));
        }
    }
    Ok(())
}

/// Whether there is an empty file or directory that no layer has, or a directory that is as in the layers.
fn is_stub(upper: &Path, layers: &[PathBuf], path: &Path) -> io::Result<bool> {
    let place = upper.join(path);
    let meta = match fs::symlink_metadata(&place) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other?,
    };
    let empty = match () {
        () if meta.is_dir() => fs::read_dir(&place)?.next().is_none(),
        () => meta.is_file() && meta.len() == 0,
    };
    if !empty {
        return Ok(false);
    }
    for layer in layers {
        let below = match fs::symlink_metadata(layer.join(path)) {
            Err(e)
                if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
            {
                continue;
            }
            other => other?,
        };
        let same =
            (below.mode(), below.uid(), below.gid()) == (meta.mode(), meta.uid(), meta.gid());
        return Ok(meta.is_dir() && below.is_dir() && same);
    }
    Ok(true)
}

/// Paths that the runtime mounts over in every container.
pub(crate) const MOUNT_POINTS: [&str; 7] =
    ["/proc", "/dev", "/sys", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf", SCRIPTS];

/// A file system in memory for one step; it is taken away with this value.
pub(crate) struct Memory(PathBuf);

impl Memory {
    pub(crate) fn mount(at: &Path, size: u64) -> Result<Memory> {
        fs::create_dir_all(at).at("make", at)?;
        let options =
            if size == 0 { "mode=1777".to_owned() } else { format!("mode=1777,size={size}") };
        let options = std::ffi::CString::new(options).expect("digits and letters");
        let flags = rustix::mount::MountFlags::NODEV | rustix::mount::MountFlags::NOSUID;
        rustix::mount::mount("tmpfs", at, "tmpfs", flags, options.as_c_str())
            .at("mount a tmpfs at", at)?;
        Ok(Memory(at.to_owned()))
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let flags = rustix::mount::UnmountFlags::DETACH;
        if let Err(error) = rustix::mount::unmount(&self.0, flags) {
            tracing::warn!(%error, path = %self.0.display(), "tmpfs not unmounted");
        }
    }
}

/// A secret's file for a step.
pub(crate) fn secret_file(mount: &Mount, value: &[u8], path: &Path) -> Result<()> {
    fs::write(path, value).at("write", path)?;
    let mode = fs::Permissions::from_mode(mount.mode.unwrap_or(0o400));
    fs::set_permissions(path, mode).at("open", path)?;
    let (uid, gid) = (mount.uid.unwrap_or(0), mount.gid.unwrap_or(0));
    std::os::unix::fs::chown(path, Some(uid), Some(gid)).at("give away", path)
}

/// A secret's name: its id, or the file's.
pub(crate) fn secret_id(mount: &Mount) -> String {
    let named = [&mount.id, &mount.source].into_iter().find(|t| !t.is_empty());
    named.cloned().unwrap_or_else(|| {
        debug_assert!(mount.kind == MountKind::Secret);
        mount.target.rsplit('/').next().unwrap_or_default().to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_of(text: &str) -> (Vec<String>, bool) {
        let file = format!("FROM scratch\nRUN {text}");
        let file = dockerfile::File::parse("f", file.as_bytes()).unwrap();
        let dockerfile::Instruction::Run(run) = &file.stages[0].steps[0].instruction else {
            panic!()
        };
        let (words, script) = words(run, &["sh".to_owned(), "-c".to_owned()]).unwrap();
        (words, script.is_some())
    }

    #[test]
    fn heredocs_are_scripts_or_the_shells() {
        let list = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        assert_eq!(run_of("a  b").0, list(&["sh", "-c", "a  b"]));
        assert_eq!(run_of("[\"a\", \"b\"]").0, list(&["a", "b"]));
        assert_eq!(run_of("<<EOF\na\nb\nEOF\n").0, list(&["sh", "-c", "a\nb\n"]));
        assert_eq!(run_of("<<-'E F'\n\ta\nE F\n").0, list(&["sh", "-c", "a\n"]));
        let python = run_of("<<X\n#!/bin/py\nx\nX\n");
        assert_eq!(python, (list(&["sh", "-c", "/dev/pipes/X"]), true));
        let piped = run_of("<<X | cat\na\nX\n");
        assert_eq!(piped.0, list(&["sh", "-c", "<<X | cat\na\nX"]));
        let two = run_of("cat <<A <<B\n1\nA\n2\nB\n");
        assert_eq!(two.0, list(&["sh", "-c", "cat <<A <<B\n1\nA\n2\nB"]));
    }

    #[test]
    fn only_empty_mount_points_are_removed() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let (upper, layer) = (dir.path().join("upper"), dir.path().join("layer"));
        for path in ["upper/proc", "upper/etc", "upper/run/secrets", "upper/dev/kept", "layer/etc"]
        {
            fs::create_dir_all(dir.path().join(path)).unwrap();
        }
        fs::write(upper.join("etc/hosts"), "").unwrap();
        fs::write(upper.join("run/secrets/x"), "").unwrap();
        fs::write(upper.join("dev/kept/f"), "1").unwrap();
        let targets = ["/proc", "/dev", "/etc/hosts", "/run/secrets/x", "/none"].map(str::to_owned);
        remove_stubs(&upper, &[layer], &targets).unwrap();
        let left: Vec<_> = fs::read_dir(&upper).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["dev"]);
    }
}
