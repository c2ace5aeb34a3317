//! From a plan to what the child needs byte by byte: C strings, pointers, open descriptors.
//!
//! All of it happens before the clone, because the child must neither allocate nor take a lock. Host
//! paths are opened here or named here; paths inside the container stay names, because only the
//! child sees them.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::ptr;

use rustix::fs::{Mode, OFlags, open};

use crate::wire::{Overlay, Plan, Step, StepKind};

/// A path in the container, as the chain of its prefixes: `dev`, `dev/pts`.
pub(super) struct Target {
    pub(super) prefixes: Vec<CString>,
    /// What to make when it is missing; otherwise a regular file.
    pub(super) directory: bool,
}

pub(super) enum Op {
    Overlay { lowers: Vec<CString>, upper: Option<(CString, CString)>, joined: CString, target: Option<Target> },
    EmptyRoot,
    Mount { fs_type: CString, options: Vec<(CString, Option<CString>)>, attributes: u64, target: Target },
    Bind { slot: usize, read_only: bool, recursive: bool, propagation: u64, target: Target },
    Node { target: Target, name: CString, mode: u32, device: u64, uid: u32, gid: u32 },
    Symlink { target: Target, name: CString, to: CString },
    Mask(Target),
    ReadOnly(Target),
    Directory(Target),
    ReadOnlyRoot,
}

/// A bind mount's source: cloned before the root is built, while the host's tree is still in view.
pub(super) struct Source {
    pub(super) path: CString,
    pub(super) sub_path: Option<CString>,
    /// Filled in by the child.
    pub(super) fd: RawFd,
}

pub(super) struct Filter {
    pub(super) program: libc::sock_fprog,
    /// Owns what `program` points to.
    _instructions: Vec<libc::sock_filter>,
}

pub(super) struct Prepared {
    pub(super) ops: Vec<Op>,
    pub(super) names: Vec<String>,
    pub(super) sources: Vec<Source>,
    pub(super) mount_point: CString,
    pub(super) namespaces: Vec<(OwnedFd, libc::c_int)>,
    pub(super) cgroup: Option<OwnedFd>,
    pub(super) cgroup_procs: Vec<OwnedFd>,
    pub(super) programs: Vec<CString>,
    pub(super) argv: Vec<*const libc::c_char>,
    pub(super) envp: Vec<*const libc::c_char>,
    pub(super) cwd: CString,
    pub(super) groups: Vec<libc::gid_t>,
    pub(super) filters: Vec<Filter>,
    pub(super) oom_score_adj: Option<CString>,
    pub(super) clone_flags: u64,
    _strings: Vec<CString>,
}

pub(super) type Problem = (String, io::Error);

pub(super) fn c(text: impl Into<Vec<u8>>) -> Result<CString, Problem> {
    CString::new(text).map_err(|_| ("string with a NUL byte".to_owned(), invalid()))
}

pub(super) fn invalid() -> io::Error {
    io::Error::from_raw_os_error(libc::EINVAL)
}

pub(super) fn prepare(plan: &Plan) -> Result<Prepared, Problem> {
    let (strings, argv) = pointers(plan.args.iter().map(|a| a.clone().into_bytes()))?;
    let (env_strings, envp) = pointers(plan.env.iter().cloned())?;
    let mut prepared = Prepared {
        ops: Vec::with_capacity(plan.steps.len()),
        names: Vec::with_capacity(plan.steps.len()),
        sources: Vec::new(),
        mount_point: c(plan.mount_point.as_str())?,
        namespaces: Vec::new(),
        cgroup: None,
        cgroup_procs: Vec::new(),
        programs: candidates(plan)?,
        argv,
        envp,
        cwd: c(plan.cwd.as_str())?,
        groups: plan.groups.clone(),
        filters: plan.seccomp.iter().map(|bytes| filter(bytes)).collect::<Result<_, _>>()?,
        oom_score_adj: plan.oom_score_adj.map(|v| c(v.to_string())).transpose()?,
        clone_flags: flags(plan),
        _strings: strings.into_iter().chain(env_strings).collect(),
    };
    prepared.open_namespaces(plan)?;
    prepared.open_cgroups(plan)?;
    for step in &plan.steps {
        prepared.add_step(step)?;
    }
    Ok(prepared)
}

fn flags(plan: &Plan) -> u64 {
    let mut flags = 0;
    if plan.new_pid_ns {
        flags |= libc::CLONE_NEWPID as u64;
    }
    if plan.exec_in.is_empty() {
        flags |= libc::CLONE_NEWNS as u64;
    }
    flags
}

type Pointers = (Vec<CString>, Vec<*const libc::c_char>);

fn pointers(list: impl Iterator<Item = Vec<u8>>) -> Result<Pointers, Problem> {
    let strings: Vec<CString> = list.map(c).collect::<Result<_, _>>()?;
    let pointers = strings.iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect();
    Ok((strings, pointers))
}

/// The files to try for `args[0]`: itself when it has a slash, else one in each directory of PATH.
fn candidates(plan: &Plan) -> Result<Vec<CString>, Problem> {
    let Some(name) = plan.args.first() else { return Ok(Vec::new()) };
    if name.contains('/') || name.is_empty() {
        return Ok(vec![c(name.as_str())?]);
    }
    let path = plan.env.iter().find_map(|e| e.strip_prefix(b"PATH=")).unwrap_or(b"");
    path.split(|b| *b == b':')
        .filter(|dir| !dir.is_empty())
        .map(|dir| c([dir, b"/", name.as_bytes()].concat()))
        .collect()
}

fn filter(bytes: &[u8]) -> Result<Filter, Problem> {
    let bad = || ("seccomp filter".to_owned(), invalid());
    let instructions: Vec<libc::sock_filter> = bytes
        .chunks_exact(8)
        .map(|b| libc::sock_filter {
            code: u16::from_ne_bytes([b[0], b[1]]),
            jt: b[2],
            jf: b[3],
            k: u32::from_ne_bytes([b[4], b[5], b[6], b[7]]),
        })
        .collect();
    let len = u16::try_from(instructions.len()).map_err(|_| bad())?;
    if len == 0 || bytes.len() % 8 != 0 {
        return Err(bad());
    }
    let program = libc::sock_fprog { len, filter: instructions.as_ptr().cast_mut() };
    Ok(Filter { program, _instructions: instructions })
}

impl Target {
    fn new(path: &str, directory: bool) -> Result<Target, Problem> {
        let mut prefixes = Vec::new();
        let mut whole = String::new();
        for part in path.split('/').filter(|p| !p.is_empty() && *p != ".") {
            if part == ".." {
                return Err((format!("path {path:?} has a .."), invalid()));
            }
            if !whole.is_empty() {
                whole.push('/');
            }
            whole.push_str(part);
            prefixes.push(c(whole.as_str())?);
        }
        Ok(Target { prefixes, directory })
    }

    /// The directory of `path`, and its last component.
    fn parent(path: &str) -> Result<(Target, CString), Problem> {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        Ok((Target::new(dir, true)?, c(name)?))
    }
}

impl Prepared {
    fn open_namespaces(&mut self, plan: &Plan) -> Result<(), Problem> {
        let pins = [
            (&plan.net_ns, libc::CLONE_NEWNET),
            (&plan.ipc_ns, libc::CLONE_NEWIPC),
            (&plan.uts_ns, libc::CLONE_NEWUTS),
        ];
        for (path, kind) in pins {
            if !path.is_empty() {
                let fd = open(path.as_str(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                    .map_err(|e| (format!("open namespace {path}"), e.into()))?;
                self.namespaces.push((fd, kind));
            }
        }
        Ok(())
    }

    fn open_cgroups(&mut self, plan: &Plan) -> Result<(), Problem> {
        if !plan.cgroup_dir.is_empty() {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let fd = open(plan.cgroup_dir.as_str(), flags, Mode::empty())
                .map_err(|e| (format!("open cgroup {}", plan.cgroup_dir), e.into()))?;
            self.cgroup = Some(fd);
        }
        for dir in &plan.cgroup_v1_dirs {
            let file = format!("{dir}/cgroup.procs");
            let fd = open(file.as_str(), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
                .map_err(|e| (format!("open {file}"), e.into()))?;
            self.cgroup_procs.push(fd);
        }
        Ok(())
    }

    fn add_step(&mut self, step: &Step) -> Result<(), Problem> {
        let Some(kind) = &step.kind else { return Err(("unknown step".to_owned(), invalid())) };
        let (op, name) = match kind {
            StepKind::Root(overlay) => (overlay_op(overlay)?, "mount the image's layers".to_owned()),
            StepKind::EmptyRoot(_) => (Op::EmptyRoot, "mount an empty root".to_owned()),
            StepKind::Mount(m) => (
                Op::Mount {
                    fs_type: c(m.fs_type.as_str())?,
                    options: m.options.iter().map(|o| option(o)).collect::<Result<_, _>>()?,
                    attributes: m.attributes,
                    target: Target::new(&m.target, true)?,
                },
                format!("mount {} to {}", m.fs_type, m.target),
            ),
            StepKind::Bind(b) => {
                self.sources.push(Source {
                    path: c(b.source.as_str())?,
                    sub_path: (!b.sub_path.is_empty()).then(|| c(b.sub_path.as_str())).transpose()?,
                    fd: -1,
                });
                let source = Path::new(&b.source).join(&b.sub_path);
                let directory = source.metadata().is_ok_and(|m| m.is_dir());
                let op = Op::Bind {
                    slot: self.sources.len() - 1,
                    read_only: b.read_only,
                    recursive: b.recursive_read_only,
                    propagation: b.propagation,
                    target: Target::new(&b.target, directory)?,
                };
                (op, format!("mount {} to {}", source.display(), b.target))
            }
            StepKind::Node(n) => {
                let (target, name) = Target::parent(&n.path)?;
                let op = Op::Node { target, name, mode: n.mode, device: n.device, uid: n.uid, gid: n.gid };
                (op, format!("make device {}", n.path))
            }
            StepKind::Symlink(s) => {
                let (target, name) = Target::parent(&s.path)?;
                (Op::Symlink { target, name, to: c(s.to.as_str())? }, format!("make link {}", s.path))
            }
            StepKind::Mask(p) => (Op::Mask(Target::new(p, true)?), format!("mask {p}")),
            StepKind::ReadOnly(p) => (Op::ReadOnly(Target::new(p, true)?), format!("make {p} read-only")),
            StepKind::Directory(p) => (Op::Directory(Target::new(p, true)?), format!("make directory {p}")),
            StepKind::ReadOnlyRoot(_) => (Op::ReadOnlyRoot, "make the root read-only".to_owned()),
        };
        self.ops.push(op);
        self.names.push(name);
        Ok(())
    }

    /// Every descriptor that the child uses after it has begun: they must lie above its streams.
    pub(super) fn raw_cgroup(&self) -> RawFd {
        self.cgroup.as_ref().map_or(-1, |fd| fd.as_raw_fd())
    }
}

fn option(text: &str) -> Result<(CString, Option<CString>), Problem> {
    match text.split_once('=') {
        Some((key, value)) => Ok((c(key)?, Some(c(value)?))),
        None => Ok((c(text)?, None)),
    }
}

fn overlay_op(o: &Overlay) -> Result<Op, Problem> {
    let lowers: Vec<CString> = o.lowers.iter().map(|l| c(l.as_str())).collect::<Result<_, _>>()?;
    let upper = if o.upper.is_empty() { None } else { Some((c(o.upper.as_str())?, c(o.work.as_str())?)) };
    let mut joined = format!("lowerdir={}", o.lowers.join(":"));
    if upper.is_some() {
        joined.push_str(&format!(",upperdir={},workdir={}", o.upper, o.work));
    }
    let target = if o.target.is_empty() { None } else { Some(Target::new(&o.target, true)?) };
    Ok(Op::Overlay { lowers, upper, joined: c(joined)?, target })
}
