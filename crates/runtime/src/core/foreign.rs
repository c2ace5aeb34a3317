//! Containers of OCI runtimes (runc, crun): the supervisor has the runtime's program create them, and is their
//! parent as it is that of its own; the agent starts, signals and deletes them by the same program.
//!
//! A bundle below the state directory has the specification, and the image's layers mounted. Sandboxes, cgroups,
//! streams, logs and figures are the embedded runtime's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount, move_mount, unmount,
};
use tokio::process::Command;

use super::Inner;
use super::records::ContainerRecord;
use super::streams::{Pipes, pipes};
use crate::cri::{RuntimeHandler, RuntimeHandlerFeatures};
use crate::error::{Error, IoContext, Result};
use crate::plan::{self, oci};
use crate::service::StreamOptions;
use crate::wire::{Foreign, Overlay, Plan, Run, StepKind};

/// Longest that an OCI runtime may take for one command: it compiles a filter and makes a few dozen mounts.
const LIMIT: Duration = Duration::from_secs(60);
/// The environment of OCI runtimes.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Bytes of a runtime's own log that are looked at.
const LOG_MAX: u64 = 64 << 10;

/// The program of one runtime handler.
#[derive(Clone, Debug)]
pub(super) struct OciRuntime {
    name: String,
    program: PathBuf,
    /// Where it keeps its states.
    root: PathBuf,
    /// Where the bundles are.
    bundles: PathBuf,
}

impl OciRuntime {
    fn bundle(&self, id: &str) -> PathBuf {
        self.bundles.join(id)
    }

    /// The command line, with the runtime's errors in a file.
    fn line(&self, bundle: &Path, rest: &[&str]) -> Vec<String> {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let mut line = vec![text(&self.program), "--root".to_owned(), text(&self.root)];
        line.extend(["--log".to_owned(), text(&log(bundle))]);
        line.extend(["--log-format".to_owned(), "json".to_owned()]);
        line.extend(rest.iter().map(|word| (*word).to_owned()));
        line
    }

    /// Runs one command to its end.
    async fn run(&self, bundle: &Path, rest: &[&str]) -> Result<()> {
        let line = self.line(bundle, rest);
        let mut command = Command::new(&self.program);
        command.args(&line[1..]).env_clear().envs(PATH.split_once('='));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.kill_on_drop(true).spawn().map_err(|e| self.missing(e))?;
        let ended = tokio::time::timeout(LIMIT, child.wait()).await;
        let status = ended.map_err(|_| self.failed(rest[0], "it does not end"))?;
        let status = status.map_err(|e| self.failed(rest[0], &e.to_string()))?;
        if status.success() {
            return Ok(());
        }
        let said = said(bundle).unwrap_or_else(|| status.to_string());
        Err(self.failed(rest[0], &said))
    }

    fn failed(&self, what: &str, why: &str) -> Error {
        Error::Precondition(format!("OCI runtime {} {what} failed: {why}", self.name))
    }

    fn missing(&self, source: std::io::Error) -> Error {
        let path = self.program.display();
        Error::Precondition(format!("runtime handler {:?}: {path}: {source}", self.name))
    }

    /// Whether the program is there.
    pub(super) fn check(&self) -> Result<()> {
        use std::os::unix::fs::PermissionsExt as _;
        let found = fs::metadata(&self.program).map_err(|e| self.missing(e))?;
        let can_run = found.is_file() && found.permissions().mode() & 0o111 != 0;
        if can_run {
            Ok(())
        } else {
            Err(self.missing(std::io::ErrorKind::PermissionDenied.into()))
        }
    }
}

fn log(bundle: &Path) -> PathBuf {
    bundle.join("log.json")
}

/// The runtime's last error, in its own words.
fn said(bundle: &Path) -> Option<String> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    fs::File::open(log(bundle)).ok()?.take(LOG_MAX).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let error = |line: &str| -> Option<String> {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        (line["level"] == "error").then(|| line["msg"].as_str().map(str::to_owned)).flatten()
    };
    text.lines().rev().find_map(error)
}

impl Inner {
    /// The OCI runtime of a handler; `None` for the embedded one.
    pub(super) fn oci_runtime(&self, handler: &str) -> Result<Option<OciRuntime>> {
        if ["", "trireme"].contains(&handler) {
            return Ok(None);
        }
        let Some(program) = self.config.handlers.get(handler) else {
            return Err(Error::Invalid(format!("no runtime for {handler:?} is configured")));
        };
        let dir = self.config.state_dir.join("oci");
        Ok(Some(OciRuntime {
            name: handler.to_owned(),
            program: program.clone(),
            root: dir.join(handler),
            bundles: dir.join("bundles"),
        }))
    }

    /// The handlers whose programs are there.
    pub(super) fn oci_handlers(&self) -> Vec<RuntimeHandler> {
        let names = self.config.handlers.keys();
        let is_there = |name: &&String| {
            self.oci_runtime(name).ok().flatten().is_some_and(|runtime| runtime.check().is_ok())
        };
        let features =
            RuntimeHandlerFeatures { recursive_read_only_mounts: true, user_namespaces: false };
        let handler =
            |name: &String| RuntimeHandler { name: name.clone(), features: Some(features.clone()) };
        names.filter(is_there).map(handler).collect()
    }

    /// The OCI runtime that a container is run by. One that is configured no longer cannot be asked.
    pub(super) fn oci_runtime_of(&self, record: &ContainerRecord) -> Result<Option<OciRuntime>> {
        let handler = {
            let state = self.state();
            state.sandboxes.get(&record.sandbox_id).map(|s| s.record.handler.clone())
        };
        self.oci_runtime(&handler.unwrap_or_default())
    }

    /// Creates and starts a container; nothing of it runs when that fails.
    pub(super) async fn start_in_oci(
        &self,
        runtime: &OciRuntime,
        record: &ContainerRecord,
    ) -> Result<Run> {
        let created = self.create_in_oci(runtime, record).await;
        let started = match created {
            Ok(run) => {
                let bundle = runtime.bundle(&record.id);
                runtime.run(&bundle, &["start", &record.id]).await.map(|()| run)
            }
            Err(e) => Err(e),
        };
        if started.is_err() {
            let deleted = self.delete_in_oci(runtime, &record.id).await;
            if let Err(e) = deleted {
                tracing::warn!(container = record.id, "after a failed start: {}", e.chain());
            }
            self.wait_for_end(&record.id).await;
        }
        started
    }

    async fn create_in_oci(&self, runtime: &OciRuntime, record: &ContainerRecord) -> Result<Run> {
        runtime.check()?;
        let plan = record.plan.clone().unwrap_or_default();
        let bundle = runtime.bundle(&record.id);
        let outside = self.outside(record, &plan, &bundle)?;
        let spec = oci::spec(&plan, &outside)?;
        let (place, root) = (bundle.clone(), runtime.root.clone());
        let (steps, overlays) = (plan.steps.clone(), outside.overlays.clone());
        let make = move || {
            super::private::directory(&root)?;
            super::private::directory(&place)?;
            write(&place.join("config.json"), &spec)?;
            for overlay in steps.iter().filter_map(|step| match &step.kind {
                Some(StepKind::Root(overlay)) => Some(overlay),
                _ => None,
            }) {
                let found = overlays.iter().find(|(target, _)| *target == overlay.target);
                let point = found.map_or_else(|| place.join("rootfs"), |(_, at)| at.into());
                mount_layers(overlay, &point)?;
            }
            Ok(())
        };
        let made = tokio::task::spawn_blocking(make).await;
        made.map_err(|e| Error::Supervisor(e.to_string()))??;
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let (place, pid_file) = (text(bundle.clone()), text(bundle.join("pid")));
        let mut rest = vec!["create", "--bundle", &place, "--pid-file", &pid_file];
        if plan.tty {
            rest.extend(["--console-socket", crate::wire::CONSOLE]);
        }
        rest.push(&record.id);
        let line = runtime.line(&bundle, &rest);
        let launch = launch(&plan, line, place.clone(), pid_file.clone());
        let started = self.client.start(&launch, &[]);
        self.in_time(runtime, &bundle, &record.id, started).await.map(|(run, _)| run)
    }

    /// Waits for what the supervisor has been asked for; tells the runtime's own words when it failed.
    async fn in_time<T>(
        &self,
        runtime: &OciRuntime,
        bundle: &Path,
        id: &str,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        tokio::pin!(work);
        let done = match tokio::time::timeout(LIMIT, &mut work).await {
            Ok(done) => done,
            Err(_) => {
                self.signal(id, libc::SIGKILL).await?;
                work.await.and(Err(runtime.failed("create", "it does not end")))
            }
        };
        done.map_err(|e| match (said(bundle), e) {
            (Some(said), Error::Start { .. }) => runtime.failed("create", &said),
            (_, other) => other,
        })
    }

    /// The parts of a specification that are no part of the plan.
    fn outside(
        &self,
        record: &ContainerRecord,
        plan: &Plan,
        bundle: &Path,
    ) -> Result<oci::Outside> {
        let config = record.config();
        let context = plan::context(&config);
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let pid_ns = match plan.pid_ns_of.as_str() {
            "" => None,
            other => Some(format!("/proc/{}/ns/pid", self.pid_of(other)?)),
        };
        let overlays = plan.steps.iter().filter_map(|step| match &step.kind {
            Some(StepKind::Root(overlay)) if !overlay.target.is_empty() => Some(&overlay.target),
            _ => None,
        });
        let place = |(at, target): (usize, &String)| {
            (target.clone(), text(bundle.join(format!("image-{at}"))))
        };
        Ok(oci::Outside {
            root: text(bundle.join("rootfs")),
            pid_ns,
            cgroups_path: record.cgroup.clone(),
            devices: oci::devices(&config)?,
            seccomp: oci::filter(&context, &self.config)?,
            overlays: overlays.enumerate().map(place).collect(),
            available: own_capabilities()?,
            least_oom_score: least_oom_score()?,
        })
    }

    fn pid_of(&self, id: &str) -> Result<i32> {
        let state = self.state();
        let run = match (state.others.get(id), state.containers.get(id)) {
            (Some(other), _) => other.borrow().clone(),
            (None, Some(container)) => container.record.run.clone(),
            (None, None) => None,
        };
        let run = run.filter(|run| !run.ended);
        let gone = || Error::Precondition(format!("container {id} is not running"));
        run.map(|run| run.pid).ok_or_else(gone)
    }

    /// The plan by which the supervisor runs another process in a container of an OCI runtime.
    pub(super) fn exec_in_oci(
        &self,
        runtime: &OciRuntime,
        container: &str,
        exec: &Plan,
    ) -> Result<(Plan, Bundle)> {
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let bundle = Bundle(runtime.bundle(container).join(format!("exec-{}", exec.id)));
        fs::create_dir(&bundle.0).at("make", &bundle.0)?;
        let outside = oci::Outside {
            available: own_capabilities()?,
            least_oom_score: least_oom_score()?,
            ..oci::Outside::default()
        };
        let file = bundle.0.join("process.json");
        write(&file, &oci::process(exec, &outside)?)?;
        let (file, pid_file) = (text(file), text(bundle.0.join("pid")));
        let mut rest = vec!["exec", "--detach", "--process", &file, "--pid-file", &pid_file];
        if exec.tty {
            rest.extend(["--console-socket", crate::wire::CONSOLE]);
        }
        rest.push(container);
        let line = runtime.line(&bundle.0, &rest);
        let place = text(bundle.0.clone());
        Ok((launch(exec, line, place, pid_file), bundle))
    }

    /// What an exec by an OCI runtime has failed of.
    pub(super) fn exec_failed(runtime: &OciRuntime, bundle: &Bundle, error: Error) -> Error {
        match (said(&bundle.0), error) {
            (Some(said), Error::Start { .. }) => runtime.failed("exec", &said),
            (_, other) => other,
        }
    }

    /// A signal by way of the runtime, which may know more than one process.
    pub(super) async fn signal_in_oci(
        &self,
        runtime: &OciRuntime,
        id: &str,
        number: i32,
    ) -> Result<()> {
        runtime.run(&runtime.bundle(id), &["kill", id, &number.to_string()]).await
    }

    /// Forgets what an OCI runtime has of a container that has ended, also when the runtime is not there any more.
    pub(super) async fn release_in_oci(&self, record: &ContainerRecord) -> Result<()> {
        let id = &record.id;
        let why = match self.oci_runtime_of(record) {
            Ok(None) => return Ok(()),
            Ok(Some(runtime)) => match self.delete_in_oci(&runtime, id).await {
                Ok(()) => return Ok(()),
                Err(e) => e,
            },
            Err(e) => e,
        };
        tracing::warn!(container = id, "deleted without its OCI runtime: {}", why.chain());
        let bundle = self.config.state_dir.join("oci/bundles").join(id);
        let work = move || if bundle.exists() { release(&bundle) } else { Ok(()) };
        tokio::task::spawn_blocking(work).await.map_err(|e| Error::Supervisor(e.to_string()))?
    }

    /// Ends and forgets a container of an OCI runtime, with its mounts. Idempotent.
    async fn delete_in_oci(&self, runtime: &OciRuntime, id: &str) -> Result<()> {
        let bundle = runtime.bundle(id);
        if !bundle.exists() {
            return Ok(());
        }
        if runtime.root.join(id).exists() {
            runtime.run(&bundle, &["delete", "--force", id]).await?;
        }
        let work = move || release(&bundle);
        tokio::task::spawn_blocking(work).await.map_err(|e| Error::Supervisor(e.to_string()))?
    }

    /// Until the end of what was created and not started has been told.
    async fn wait_for_end(&self, id: &str) {
        let watch = self.state().containers.get(id).map(|c| c.run.subscribe());
        let Some(watch) = watch.filter(|w| w.borrow().is_some()) else { return };
        let _late = tokio::time::timeout(LIMIT, super::streams::exit(watch)).await;
    }
}

/// A folder that goes with this value.
pub(super) struct Bundle(PathBuf);

impl Drop for Bundle {
    fn drop(&mut self) {
        if let Err(e) = fs::remove_dir_all(&self.0) {
            tracing::debug!("remove {}: {e}", self.0.display());
        }
    }
}

/// No streams of the caller's: a terminal comes otherwise.
pub(super) fn no_streams() -> Result<Pipes> {
    pipes(StreamOptions::default(), true)
}

/// The runtime's program, with the streams, the log and the cgroups of the process that it makes.
fn launch(plan: &Plan, line: Vec<String>, dir: String, pid_file: String) -> Plan {
    Plan {
        id: plan.id.clone(),
        exec_in: plan.exec_in.clone(),
        cgroup_dir: plan.cgroup_dir.clone(),
        cgroup_v1_dirs: plan.cgroup_v1_dirs.clone(),
        stdin: plan.stdin && !plan.tty,
        stdin_once: plan.stdin_once,
        args: line,
        env: vec![PATH.as_bytes().to_vec()],
        cwd: dir,
        log_path: plan.log_path.clone(),
        log_max_bytes: plan.log_max_bytes,
        log_max_files: plan.log_max_files,
        foreign: Some(Foreign { pid_file, terminal: plan.tty }),
        ..Plan::default()
    }
}

fn write(path: &Path, value: &serde_json::Value) -> Result<()> {
    fs::write(path, value.to_string()).at("write", path)
}

/// Puts an image's layers together at a place of the host's.
fn mount_layers(overlay: &Overlay, point: &Path) -> Result<()> {
    fs::create_dir_all(point).at("make", point)?;
    let new = || -> rustix::io::Result<()> {
        let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        for lower in &overlay.lowers {
            fsconfig_set_string(&fs, "lowerdir+", lower.as_str())?;
        }
        if !overlay.upper.is_empty() {
            fsconfig_set_string(&fs, "upperdir", overlay.upper.as_str())?;
            fsconfig_set_string(&fs, "workdir", overlay.work.as_str())?;
        }
        fsconfig_create(&fs)?;
        let made = fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(&made, "", rustix::fs::CWD, point, flags)
    };
    match new() {
        // Kernels before 6.8 do not know `lowerdir+`.
        Err(rustix::io::Errno::INVAL) => {
            let mut options = format!("lowerdir={}", overlay.lowers.join(":"));
            if !overlay.upper.is_empty() {
                options += &format!(",upperdir={},workdir={}", overlay.upper, overlay.work);
            }
            let options = std::ffi::CString::new(options).map_err(std::io::Error::other);
            let options = options.at("mount the image's layers at", point)?;
            mount("overlay", point, "overlay", MountFlags::empty(), options.as_c_str())
        }
        other => other,
    }
    .at("mount the image's layers at", point)
}

/// Unmounts what is mounted in a bundle, and removes it.
fn release(bundle: &Path) -> Result<()> {
    let entries = fs::read_dir(bundle).at("list", bundle)?;
    for entry in entries {
        let path = entry.at("list", bundle)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name != "rootfs" && !name.starts_with("image-") {
            continue;
        }
        match unmount(&path, UnmountFlags::DETACH) {
            Ok(()) | Err(rustix::io::Errno::NOENT | rustix::io::Errno::INVAL) => {}
            Err(e) => return Err(e).at("unmount", &path),
        }
        fs::remove_dir(&path).at("remove", &path)?;
    }
    fs::remove_dir_all(bundle).at("remove", bundle)
}

/// A field of `/proc/self/status`.
fn own_status(field: &str) -> Result<String> {
    let path = "/proc/self/status";
    let text = fs::read_to_string(path).at("read", path)?;
    let found = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    Ok(found.unwrap_or_default().trim().to_owned())
}

/// Capabilities that this process can hand on.
fn own_capabilities() -> Result<u64> {
    Ok(u64::from_str_radix(&own_status("CapBnd")?, 16).unwrap_or(0))
}

/// Without CAP_SYS_RESOURCE a score cannot become lower than it is.
fn least_oom_score() -> Result<i32> {
    const SYS_RESOURCE: u64 = 1 << 24;
    if own_capabilities()? & SYS_RESOURCE != 0 {
        return Ok(-1000);
    }
    let path = "/proc/self/oom_score_adj";
    let text = fs::read_to_string(path).at("read", path)?;
    Ok(text.trim().parse().unwrap_or(0))
}
