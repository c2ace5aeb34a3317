//! Taking over what an earlier supervisor left running.
//!
//! Its containers are no children of ours: a pidfd tells of their end, and on kernels from 6.15 on
//! also of their exit code. Their named pipes are opened again; their terminals are gone.

use std::fs;
use std::os::fd::AsRawFd;
use std::path::Path;

use prost::Message;
use rustix::event::epoll::{self, EventData, EventFlags};

use super::exit::STATUS_FILE;
use super::flow::{Flow, Role};
use super::log::LogFile;
use super::start::{open_fifo, pidfd_open};
use super::{Entry, RUNS, Supervisor, TOKEN_ADOPTED};
use crate::wire::Run;

/// The wait status of an end that nobody saw: exit code 255, which is what the kubelet calls unknown.
const UNSEEN: i32 = 255 << 8;

#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    ids: [u32; 11],
    exit_code: i32,
}

/// `PIDFD_INFO_EXIT`.
const INFO_EXIT: u64 = 8;
/// `PIDFD_GET_INFO`: `_IOWR(0xff, 11, 64 bytes)`.
const GET_INFO: libc::c_ulong = 0xc040_ff0b;

impl Supervisor {
    pub(super) fn adopt_all(&mut self) {
        let Ok(dirs) = fs::read_dir(self.state_dir.join(RUNS)) else { return };
        for dir in dirs.flatten() {
            let Ok(bytes) = fs::read(dir.path().join(STATUS_FILE)) else { continue };
            match Run::decode(&bytes[..]) {
                Ok(run) => self.adopt(run, &dir.path()),
                Err(e) => eprintln!("{}: {e}", dir.path().display()),
            }
        }
    }

    fn adopt(&mut self, run: Run, dir: &Path) {
        let id = run.id.clone();
        let ended = run.ended;
        let same = start_ticks(run.pid) == Some(run.start_ticks);
        let pidfd = if ended || !same { None } else { pidfd_open(run.pid).ok() };
        let alive = pidfd.is_some();
        if let Some(fd) = &pidfd {
            let number = self.number();
            if let Err(e) = self.listen(fd, TOKEN_ADOPTED | number) {
                eprintln!("{id}: {e}");
            }
            self.adopted.insert(number, id.clone());
        }
        let log = (!ended && !run.log_path.is_empty())
            .then(|| LogFile::open(Path::new(&run.log_path), run.log_max_bytes, run.log_max_files));
        self.entries.insert(id.clone(), Entry { run, log, stdin: None, master: None, pidfd });
        if ended {
            return;
        }
        for (role, name) in [(Role::Stdout, "stdout"), (Role::Stderr, "stderr")] {
            if let Ok(flow) = open_fifo(&dir.join(name)).and_then(|fd| Flow::new(&id, role, fd)) {
                self.add_flow(flow);
            }
        }
        if !alive {
            self.finish(&id, UNSEEN);
        }
    }

    /// An adopted process has ended. Its exit code is there once its parent has collected it, which
    /// the pidfd tells by a hang-up: that is waited for, and nothing else.
    pub(super) fn adopted_ended(&mut self, number: u64) {
        let Some(id) = self.adopted.get(&number).cloned() else { return };
        let Some(pidfd) = self.entries.get(&id).and_then(|e| e.pidfd.as_ref()) else {
            self.adopted.remove(&number);
            return;
        };
        let mut info = PidfdInfo { mask: INFO_EXIT, ..PidfdInfo::default() };
        // SAFETY: the structure has the size that the request's number says.
        let done = unsafe { libc::ioctl(pidfd.as_raw_fd(), GET_INFO, &mut info) };
        let status = match done {
            0 if info.mask & INFO_EXIT != 0 => info.exit_code,
            0 => {
                let data = EventData::new_u64(TOKEN_ADOPTED | number);
                let waits = epoll::modify(&self.epoll, pidfd, data, EventFlags::empty());
                if waits.is_ok() {
                    return;
                }
                UNSEEN
            }
            _ => UNSEEN,
        };
        self.adopted.remove(&number);
        self.finish(&id, status);
    }
}

/// When a process started, in the kernel's ticks: the 22nd field, counted after the name, which may
/// hold anything.
pub(super) fn start_ticks(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()
}
