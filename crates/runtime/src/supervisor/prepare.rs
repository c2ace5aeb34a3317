//! From a plan to the form that system calls take: C strings, pointers, open descriptors.
//!
//! All of it happens first, while the host's tree is in view and no filter is in force. Host paths are
//! opened or named here; paths inside the container stay names until there is a root to resolve them in.

use std::ffi::CString;
use std::io;
use std::os::fd::{IntoRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::ptr;

use rustix::fs::{Mode, OFlags, open};

use super::child::Inherited;
use super::mount;
use crate::wire::{Bind, Overlay, Plan, Step, StepKind};

/// Files of the process file system that may be mounted over: what tools fake for containers, as runc
/// has it. Nothing else below `/proc` may be.
const FAKED: [&str; 11] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/net/dev",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/sys/crypto/fips_enabled",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/uptime",
];

/// A path in the container, as the chain of its prefixes: `dev`, `dev/pts`.
pub(super) struct Target {
    pub(super) prefixes: Vec<CString>,
    /// Whether a missing one becomes a directory; otherwise a regular file.
    pub(super) directory: bool,
    /// No symbolic link may lead to it.
    pub(super) plain: bool,
    /// It may lie on the process file system.
    pub(super) on_proc: bool,
}

pub(super) enum Op {
    Overlay {
        lowers: Vec<CString>,
        upper: Option<[CString; 2]>,
        joined: CString,
        target: Option<Target>,
        /// Seen through the user namespace's mapping.
        mapped: bool,
        /// The mount, once it is made.
        fd: RawFd,
    },
    EmptyRoot,
    Mount {
        fs_type: CString,
        options: Vec<(CString, Option<CString>)>,
        attributes: u64,
        target: Target,
    },
    Bind {
        slot: usize,
        target: Target,
    },
    Node {
        target: Target,
        name: CString,
        mode: u32,
        device: u64,
        uid: u32,
        gid: u32,
    },
    Symlink {
        target: Target,
        name: CString,
        to: CString,
    },
    Mask(Target),
    ReadOnly(Target),
    Directory(Target),
    ReadOnlyRoot,
}

/// A bind mount's source: cloned before the root is built, while the host's tree is in view.
pub(super) struct Source {
    pub(super) name: String,
    pub(super) path: CString,
    pub(super) sub_path: Option<CString>,
    pub(super) read_only: bool,
    pub(super) recursive: bool,
    pub(super) attributes: u64,
    pub(super) propagation: u64,
    pub(super) mapped: bool,
    /// It must be a process file system, because it becomes `/proc`.
    pub(super) proc: bool,
    /// The detached mount, once it is made.
    pub(super) fd: RawFd,
}

pub(super) struct Filter {
    pub(super) program: libc::sock_fprog,
    /// Owns what `program` points to.
    _instructions: Vec<libc::sock_filter>,
}

/// Descriptors are plain numbers: they are closed by range, and end with the process.
pub(super) struct Prepared {
    pub(super) ops: Vec<Op>,
    pub(super) names: Vec<String>,
    pub(super) sources: Vec<Source>,
    pub(super) mount_point: CString,
    pub(super) namespaces: Vec<(RawFd, libc::c_int)>,
    /// The user namespace; -1 for the host's.
    pub(super) user_ns: RawFd,
    /// A pid namespace to be joined, where its process file system can be made from outside.
    pub(super) pid_ns: Option<RawFd>,
    pub(super) cgroup_procs: Vec<RawFd>,
    pub(super) programs: Vec<CString>,
    pub(super) argv: Vec<*const libc::c_char>,
    pub(super) envp: Vec<*const libc::c_char>,
    pub(super) cwd: CString,
    pub(super) groups: Vec<libc::gid_t>,
    pub(super) filters: Vec<Filter>,
    pub(super) oom_score_adj: Option<CString>,
    /// Words for failures that come when a filter may forbid to allocate.
    pub(super) execute: String,
    pub(super) not_found: String,
    pub(super) change_directory: String,
    _strings: Vec<CString>,
}

pub(super) type Problem = (String, io::Error);

pub(super) fn c(text: impl Into<Vec<u8>>) -> Result<CString, Problem> {
    CString::new(text).map_err(|_| ("string with a NUL byte".to_owned(), invalid()))
}

pub(super) fn invalid() -> io::Error {
    io::Error::from_raw_os_error(libc::EINVAL)
}

pub(super) fn prepare(plan: &Plan, join: RawFd) -> Result<Prepared, Problem> {
    let (strings, argv) = pointers(plan.args.iter().map(|a| a.clone().into_bytes()))?;
    let (env_strings, envp) = pointers(plan.env.iter().cloned())?;
    let program = plan.args.first().map_or("", String::as_str);
    let execute = format!("exec: {program:?}");
    let mut prepared = Prepared {
        ops: Vec::with_capacity(plan.steps.len()),
        names: Vec::with_capacity(plan.steps.len()),
        sources: Vec::new(),
        mount_point: c(plan.mount_point.as_str())?,
        namespaces: Vec::new(),
        user_ns: -1,
        pid_ns: if plan.exec_in.is_empty() { pid_namespace(join) } else { None },
        cgroup_procs: Vec::new(),
        programs: candidates(plan)?,
        argv,
        envp,
        cwd: c(plan.cwd.as_str())?,
        groups: plan.groups.clone(),
        filters: plan.seccomp.iter().map(|bytes| filter(bytes)).collect::<Result<_, _>>()?,
        oom_score_adj: plan.oom_score_adj.map(|v| c(v.to_string())).transpose()?,
        not_found: if program.contains('/') {
            execute.clone()
        } else {
            format!("{execute}: executable file not found in $PATH")
        },
        execute,
        change_directory: format!("chdir to cwd ({:?})", plan.cwd),
        _strings: strings.into_iter().chain(env_strings).collect(),
    };
    prepared.open_namespaces(plan)?;
    prepared.open_cgroups(plan)?;
    for step in &plan.steps {
        prepared.add_step(step)?;
    }
    Ok(prepared)
}

/// `PIDFD_GET_PID_NAMESPACE`.
const GET_PID_NAMESPACE: libc::c_ulong = 0xff05;

/// The pid namespace of the process, if a process file system can be made for it (from 6.18 on).
fn pid_namespace(join: RawFd) -> Option<RawFd> {
    if join < 0 {
        return None;
    }
    // SAFETY: plain numbers; the descriptor returned is new.
    let fd = unsafe { libc::ioctl(join, GET_PID_NAMESPACE, 0) };
    let context = mount::filesystem_context(c"proc").ok()?;
    let knows = fd >= 0 && mount::configure_fd(context, c"pidns", fd).is_ok();
    super::sys::close(context);
    knows.then_some(fd)
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
    if len == 0 || !bytes.len().is_multiple_of(8) {
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
        let on_proc = FAKED.contains(&path);
        Ok(Target { prefixes, directory, plain: false, on_proc })
    }

    /// The directory of `path`, and its last component.
    fn parent(path: &str) -> Result<(Target, CString), Problem> {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        Ok((Target::new(dir, true)?, c(name)?))
    }
}

fn open_at(what: &str, path: &str, flags: OFlags) -> Result<RawFd, Problem> {
    let opened = open(path, flags | OFlags::CLOEXEC, Mode::empty());
    opened.map(OwnedFd::into_raw_fd).map_err(|e| (format!("open {what} {path}"), e.into()))
}

impl Prepared {
    /// The user namespace comes last: joining the others needs the host's rights.
    fn open_namespaces(&mut self, plan: &Plan) -> Result<(), Problem> {
        if plan.exec_in.is_empty() {
            let pins = [
                (&plan.net_ns, libc::CLONE_NEWNET),
                (&plan.ipc_ns, libc::CLONE_NEWIPC),
                (&plan.uts_ns, libc::CLONE_NEWUTS),
                (&plan.user_ns, libc::CLONE_NEWUSER),
            ];
            for (path, kind) in pins.into_iter().filter(|(path, _)| !path.is_empty()) {
                self.namespaces.push((open_at("namespace", path, OFlags::RDONLY)?, kind));
            }
        }
        let user = self.namespaces.iter().find(|(_, kind)| *kind == libc::CLONE_NEWUSER);
        self.user_ns = user.map_or(-1, |(fd, _)| *fd);
        Ok(())
    }

    fn open_cgroups(&mut self, plan: &Plan) -> Result<(), Problem> {
        // An OCI runtime puts the container there itself.
        if plan.foreign.is_some() {
            return Ok(());
        }
        for dir in &plan.cgroup_v1_dirs {
            let file = format!("{dir}/cgroup.procs");
            self.cgroup_procs.push(open_at("cgroup", &file, OFlags::WRONLY)?);
        }
        Ok(())
    }

    /// Every descriptor that is still needed once the sources are open.
    pub(super) fn descriptors(&self, inherited: &Inherited) -> Vec<RawFd> {
        let mut all = vec![inherited.status, inherited.join];
        all.extend(inherited.stdio);
        all.extend(self.pid_ns);
        all.extend(self.namespaces.iter().map(|(fd, _)| *fd));
        all.extend(&self.cgroup_procs);
        all.extend(self.sources.iter().map(|s| s.fd));
        all.extend(self.ops.iter().filter_map(|op| match op {
            Op::Overlay { fd, .. } => Some(*fd),
            _ => None,
        }));
        all
    }

    fn add_step(&mut self, step: &Step) -> Result<(), Problem> {
        let Some(kind) = &step.kind else { return Err(("unknown step".to_owned(), invalid())) };
        let (op, name) = match kind {
            StepKind::Root(overlay) => {
                (overlay_op(overlay)?, "mount the image's layers".to_owned())
            }
            StepKind::EmptyRoot(_) => (Op::EmptyRoot, "mount an empty root".to_owned()),
            StepKind::Mount(m) => (
                Op::Mount {
                    fs_type: c(m.fs_type.as_str())?,
                    options: m.options.iter().map(|o| option(o)).collect::<Result<_, _>>()?,
                    attributes: m.attributes,
                    target: kernel_target(m)?,
                },
                format!("mount {} to {}", m.fs_type, m.target),
            ),
            StepKind::Bind(b) => self.bind(b)?,
            StepKind::Node(n) => {
                let (target, name) = Target::parent(&n.path)?;
                let op = Op::Node {
                    target,
                    name,
                    mode: n.mode,
                    device: n.device,
                    uid: n.uid,
                    gid: n.gid,
                };
                (op, format!("make device {}", n.path))
            }
            StepKind::Symlink(s) => {
                let (target, name) = Target::parent(&s.path)?;
                (
                    Op::Symlink { target, name, to: c(s.to.as_str())? },
                    format!("make link {}", s.path),
                )
            }
            StepKind::Mask(p) => (Op::Mask(Target::new(p, true)?), format!("mask {p}")),
            StepKind::ReadOnly(p) => {
                (Op::ReadOnly(Target::new(p, true)?), format!("make {p} read-only"))
            }
            StepKind::Directory(p) => {
                (Op::Directory(Target::new(p, true)?), format!("make directory {p}"))
            }
            StepKind::ReadOnlyRoot(_) => (Op::ReadOnlyRoot, "make the root read-only".to_owned()),
        };
        self.ops.push(op);
        self.names.push(name);
        Ok(())
    }

    fn bind(&mut self, b: &Bind) -> Result<(Op, String), Problem> {
        let source = Path::new(&b.source).join(&b.sub_path);
        let directory = source.metadata().is_ok_and(|m| m.is_dir());
        let target = Target::new(&b.target, directory)?;
        let clean = format!("/{}", target.prefixes.last().map_or("", |p| p.to_str().unwrap_or("")));
        if clean.starts_with("/proc/") && !target.on_proc {
            let text = format!("{clean:?} cannot be mounted because it is inside /proc");
            return Err((text, io::Error::from_raw_os_error(libc::EPERM)));
        }
        if clean == "/" {
            return Err(("a mount in place of the root".to_owned(), invalid()));
        }
        self.sources.push(Source {
            name: b.target.clone(),
            path: c(b.source.as_str())?,
            sub_path: (!b.sub_path.is_empty()).then(|| c(b.sub_path.as_str())).transpose()?,
            read_only: b.read_only,
            recursive: b.recursive_read_only,
            attributes: b.attributes,
            propagation: b.propagation,
            mapped: b.mapped,
            proc: clean == "/proc",
            fd: -1,
        });
        let op = Op::Bind { slot: self.sources.len() - 1, target };
        Ok((op, format!("mount {} to {}", source.display(), b.target)))
    }
}

/// An image may have a link in place of `/proc`, so that protected paths would be found elsewhere
/// (CVE-2023-27561): these two are made on ordinary directories only.
fn kernel_target(m: &crate::wire::MountFs) -> Result<Target, Problem> {
    let plain = ["proc", "sysfs"].contains(&m.fs_type.as_str());
    Ok(Target { plain, ..Target::new(&m.target, true)? })
}

fn option(text: &str) -> Result<(CString, Option<CString>), Problem> {
    match text.split_once('=') {
        Some((key, value)) => Ok((c(key)?, Some(c(value)?))),
        None => Ok((c(text)?, None)),
    }
}

fn overlay_op(o: &Overlay) -> Result<Op, Problem> {
    let lowers: Vec<CString> = o.lowers.iter().map(|l| c(l.as_str())).collect::<Result<_, _>>()?;
    let upper =
        if o.upper.is_empty() { None } else { Some([c(o.upper.as_str())?, c(o.work.as_str())?]) };
    let mut joined = format!("lowerdir={}", o.lowers.join(":"));
    if upper.is_some() {
        joined.push_str(&format!(",upperdir={},workdir={}", o.upper, o.work));
    }
    let target = if o.target.is_empty() { None } else { Some(Target::new(&o.target, true)?) };
    Ok(Op::Overlay { lowers, upper, joined: c(joined)?, target, mapped: o.mapped, fd: -1 })
}
