//! Control groups, v1 and v2, written by hand.
//!
//! A [`Group`] is one path in every hierarchy the machine has: on v2 one directory, on v1 one for each
//! controller, on a hybrid machine also one in the unified tree (for `cgroup.kill`, which needs no
//! controller). Limits are those of the CRI's `LinuxContainerResources`. Public, because the
//! kubelet keeps its pod and QoS groups by the same means.

mod devices;
mod figures;
mod leaf;
mod limits;
mod stats;

#[cfg(test)]
mod tests;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, IoContext, Result};

pub use devices::DeviceRule;
pub(crate) use leaf::Leaf;
pub use stats::GroupStats;

/// Controllers that v2 groups hand down, as far as the kernel has them.
const V2_CONTROLLERS: [&str; 6] = ["cpu", "cpuset", "hugetlb", "io", "memory", "pids"];

#[derive(Clone, Debug)]
struct V1 {
    controllers: Vec<String>,
    mount: PathBuf,
}

/// What cgroup hierarchies the machine has.
#[derive(Clone, Debug)]
pub struct Hierarchies {
    v1: Vec<V1>,
    unified: Option<PathBuf>,
}

/// One path in all hierarchies.
#[derive(Clone, Debug)]
pub struct Group {
    /// Controllers (comma-joined as mounted) and directory.
    v1: Vec<(Vec<String>, PathBuf)>,
    unified: Option<PathBuf>,
}

impl Hierarchies {
    /// Finds what is mounted at and below `root`.
    pub fn detect(root: &Path) -> Result<Hierarchies> {
        let file = "/proc/self/mountinfo";
        // Others' mounts may have names that are no text.
        let text = fs::read(file).at("read", file)?;
        let found = parse(&String::from_utf8_lossy(&text), root);
        if found.v1.is_empty() && found.unified.is_none() {
            let message = format!("no cgroup hierarchy is mounted below {}", root.display());
            return Err(Error::Precondition(message));
        }
        Ok(found)
    }

    /// A v2 tree at `root`, whatever is mounted there.
    pub fn unified_at(root: impl Into<PathBuf>) -> Hierarchies {
        Hierarchies { v1: Vec::new(), unified: Some(root.into()) }
    }

    /// Whether limits go to v2.
    pub fn is_v2(&self) -> bool {
        self.v1.is_empty()
    }

    /// Whether groups have the files of a controller. The unified tree of a hybrid machine hands none down.
    pub fn has(&self, controller: &str) -> bool {
        let unified = self.unified.as_ref().filter(|_| self.is_v2());
        let unified = unified.map(|root| root.join("cgroup.controllers"));
        let listed = || unified.and_then(|file| fs::read_to_string(file).ok()).unwrap_or_default();
        self.v1(controller).is_some() || listed().split_whitespace().any(|c| c == controller)
    }

    /// Where a v1 controller is mounted.
    pub fn v1(&self, controller: &str) -> Option<&Path> {
        let has = |v: &&V1| v.controllers.iter().any(|c| c == controller);
        self.v1.iter().find(has).map(|v| v.mount.as_path())
    }

    /// The group at `path`, whether it exists or not.
    pub fn group(&self, path: &str) -> Result<Group> {
        let path = path.trim_start_matches('/');
        if path.split('/').any(|p| p == ".." || p.is_empty()) {
            return Err(Error::Invalid(format!("cgroup path {path:?}")));
        }
        let v1 = self.v1.iter().map(|v| (v.controllers.clone(), v.mount.join(path))).collect();
        Ok(Group { v1, unified: self.unified.as_ref().map(|u| u.join(path)) })
    }

    /// Makes the group at `path`, with its parents; one that exists is left as it is.
    pub fn create(&self, path: &str) -> Result<Group> {
        let group = self.group(path)?;
        for (v1, (_, dir)) in self.v1.iter().zip(&group.v1) {
            let cpuset = v1.controllers.iter().any(|c| c == "cpuset");
            make_below(&v1.mount, dir, |dir| if cpuset { inherit_cpuset(dir) } else { Ok(()) })?;
        }
        if let (Some(root), Some(dir)) = (&self.unified, &group.unified) {
            let hand_down = self.is_v2();
            make_below(root, dir, |dir| {
                let parent = dir.parent().filter(|_| hand_down);
                parent.map_or(Ok(()), enable_controllers)
            })?;
        }
        Ok(group)
    }
}

/// Makes `dir` and its missing parents below `root`, and each of them usable, top-down. Also those that
/// exist: another thread, or a process that was killed, may have made one and not come further.
fn make_below(root: &Path, dir: &Path, usable: impl Fn(&Path) -> Result<()>) -> Result<()> {
    let Ok(rest) = dir.strip_prefix(root) else { return Ok(()) };
    let mut at = root.to_owned();
    for part in rest.components() {
        at.push(part);
        match fs::create_dir(&at) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                return Err(e).at("make cgroup", &at);
            }
            _ => usable(&at)?,
        }
    }
    Ok(())
}

/// A new v1 cpuset group has no CPUs and no memory nodes, and refuses processes until it has.
fn inherit_cpuset(dir: &Path) -> Result<()> {
    let Some(parent) = dir.parent() else { return Ok(()) };
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let own = fs::read(dir.join(file)).at("read", dir.join(file))?;
        if own.trim_ascii().is_empty() {
            let value = fs::read(parent.join(file)).at("read", parent.join(file))?;
            fs::write(dir.join(file), value).at("write", dir.join(file))?;
        }
    }
    Ok(())
}

/// Lets the children of a v2 group have what the group has. One at a time: a refused one spares the others.
fn enable_controllers(parent: &Path) -> Result<()> {
    let available = fs::read_to_string(parent.join("cgroup.controllers"))
        .at("read", parent.join("cgroup.controllers"))?;
    let enabled = fs::read_to_string(parent.join("cgroup.subtree_control")).unwrap_or_default();
    let has = |list: &str, name: &str| list.split_whitespace().any(|c| c == name);
    for controller in V2_CONTROLLERS {
        if has(&available, controller) && !has(&enabled, controller) {
            let file = parent.join("cgroup.subtree_control");
            if let Err(e) = fs::write(&file, format!("+{controller}")) {
                tracing::warn!(file = %file.display(), controller, "controller stays off: {e}");
            }
        }
    }
    Ok(())
}

/// Reads `mountinfo`: the fifth field is the mount point; type and options come after ` - `.
fn parse(mountinfo: &str, root: &Path) -> Hierarchies {
    let mut found = Hierarchies { v1: Vec::new(), unified: None };
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let Some(mount) = left.split(' ').nth(4).map(PathBuf::from) else { continue };
        if !mount.starts_with(root) {
            continue;
        }
        let mut right = right.split(' ');
        match right.next() {
            Some("cgroup2") => found.unified = Some(mount),
            Some("cgroup") => {
                let options = right.nth(1).unwrap_or("");
                let skip = ["rw", "ro", "xattr", "clone_children", "noprefix"];
                let controllers = options
                    .split(',')
                    .filter(|o| !skip.contains(o) && !o.starts_with("release_agent"))
                    .map(str::to_owned)
                    .collect();
                found.v1.push(V1 { controllers, mount });
            }
            _ => {}
        }
    }
    found
}

impl Group {
    /// The v1 directory of a controller.
    fn v1_dir(&self, controller: &str) -> Option<&Path> {
        let has = |(list, _): &&(Vec<String>, PathBuf)| list.iter().any(|c| c == controller);
        self.v1.iter().find(has).map(|(_, dir)| dir.as_path())
    }

    /// All v1 directories, to attach to.
    pub fn v1_dirs(&self) -> impl Iterator<Item = &Path> {
        self.v1.iter().map(|(_, dir)| dir.as_path())
    }

    /// The v2 directory, to be born in.
    pub fn unified_dir(&self) -> Option<&Path> {
        self.unified.as_deref()
    }

    pub fn is_v2(&self) -> bool {
        self.v1.is_empty()
    }

    pub fn exists(&self) -> bool {
        self.v1_dirs().chain(self.unified_dir()).any(Path::exists)
    }

    /// Moves a process into the group.
    pub fn attach(&self, pid: u32) -> Result<()> {
        for dir in self.v1_dirs().chain(self.unified_dir()) {
            let file = dir.join("cgroup.procs");
            fs::write(&file, pid.to_string()).at("join", &file)?;
        }
        Ok(())
    }

    /// The processes in the group and below it.
    pub fn pids(&self) -> Vec<i32> {
        let mut pids = Vec::new();
        if let Some(dir) = self.unified_dir().or_else(|| self.v1_dirs().next()) {
            collect_pids(dir, &mut pids);
        }
        pids
    }

    /// Ends every process in it and below it.
    pub fn kill(&self) -> Result<()> {
        if let Some(dir) = self.unified_dir()
            && fs::write(dir.join("cgroup.kill"), "1").is_ok()
        {
            return Ok(());
        }
        for pid in self.pids().into_iter().filter(|pid| *pid > 1) {
            // SAFETY: plain numbers; the pid was in the group a moment ago.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
        Ok(())
    }

    /// Removes the group and those below it; refused by the kernel while processes are in it.
    pub fn remove(&self) -> Result<()> {
        self.v1_dirs().chain(self.unified_dir()).try_for_each(remove_tree)
    }
}

/// The processes in a group's directory and below it.
pub(crate) fn collect_pids(dir: &Path, pids: &mut Vec<i32>) {
    let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    pids.extend(text.lines().filter_map(|l| l.parse::<i32>().ok()));
    for child in children(dir) {
        collect_pids(&child, pids);
    }
}

fn children(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let dirs = entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
    dirs.map(|e| e.path()).collect()
}

fn remove_tree(dir: &Path) -> Result<()> {
    for child in children(dir) {
        remove_tree(&child)?;
    }
    match fs::remove_dir(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e).at("remove cgroup", dir),
        _ => Ok(()),
    }
}
