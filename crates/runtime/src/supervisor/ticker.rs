//! Keeps the v1 attach lock warm around starts.
//!
//! On cgroup v1 the first attach after an idle moment waits for an RCU grace period (15 ms here); the
//! next ones within some 15 ms do not. A tiny process moves itself between two freezer groups
//! of its own every 8 ms (0.1 ms each), for a few seconds after every start, and otherwise sleeps.
//! With cgroup v2 containers are born in their group and none of this runs.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::pipe::{PipeFlags, pipe_with};

/// Milliseconds between two moves: 10 still works, 20 does not.
const PERIOD_MS: i32 = 8;
/// Moves after the last request: 4 s, the length of a burst of pods.
const MOVES: i32 = 500;

pub(super) struct Ticker {
    control: OwnedFd,
}

impl Ticker {
    /// `groups` are two existing v1 directories of one hierarchy.
    pub(super) fn start(groups: [&Path; 2]) -> io::Result<Ticker> {
        let procs = |dir: &Path| CString::new(dir.join("cgroup.procs").into_os_string().into_encoded_bytes());
        let files = [procs(groups[0])?, procs(groups[1])?];
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&write, true)?;
        // SAFETY: the process has one thread; the child only makes system calls on plain numbers.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => run(read.as_raw_fd(), &files),
            _ => Ok(Ticker { control: write }),
        }
    }

    pub(super) fn warm(&self) {
        // A full pipe means that enough requests are waiting.
        let _ = rustix::io::write(&self.control, b"w");
    }
}

fn run(control: i32, files: &[CString; 2]) -> ! {
    // SAFETY: C strings, plain numbers and local buffers; everything but `control` is closed first,
    // so that no container's stream is held open here.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::dup2(control, 3);
        libc::close_range(4, u32::MAX, 0);
        let groups = [
            libc::open(files[0].as_ptr(), libc::O_WRONLY),
            libc::open(files[1].as_ptr(), libc::O_WRONLY),
        ];
        let mut left = 0;
        loop {
            let mut wait = libc::pollfd { fd: 3, events: libc::POLLIN, revents: 0 };
            if libc::poll(&mut wait, 1, if left > 0 { PERIOD_MS } else { -1 }) > 0 {
                let mut bytes = [0u8; 64];
                if libc::read(3, bytes.as_mut_ptr().cast(), bytes.len()) <= 0 {
                    libc::_exit(0);
                }
                left = MOVES;
            }
            left -= 1;
            libc::write(groups[(left & 1) as usize], c"0".as_ptr().cast(), 1);
        }
    }
}
