//! A group for one exec below its container's: to end all of its processes, whatever sessions and
//! parents they have chosen.
//!
//! It is one directory in one hierarchy: the unified one (which kills a group at once and needs no
//! controller for it), else the v1 freezer. Limits stay those of the container.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Group, collect_pids};
use crate::error::{Error, IoContext, Result};

/// The names that leaves begin with.
const PREFIX: &str = "exec-";
/// How long killed processes may take to be gone: longer means stuck in the kernel.
const LIMIT: Duration = Duration::from_secs(30);
/// Between two looks whether they are gone.
const PAUSE: Duration = Duration::from_millis(2);
/// Times that processes left behind are moved: a new one may be forked meanwhile.
const MOVES: usize = 8;

#[derive(Clone, Debug)]
pub(crate) struct Leaf {
    dir: PathBuf,
    unified: bool,
}

impl Group {
    fn leaf_parent(&self) -> Option<(&Path, bool)> {
        let unified = self.unified_dir().map(|dir| (dir, true));
        unified.or_else(|| self.v1_dir("freezer").map(|dir| (dir, false)))
    }

    /// Makes the leaf of an exec; none where no hierarchy is fit for it.
    pub(crate) fn make_leaf(&self, id: &str) -> Result<Option<Leaf>> {
        let Some((parent, unified)) = self.leaf_parent() else { return Ok(None) };
        let dir = parent.join(format!("{PREFIX}{id}"));
        fs::create_dir(&dir).at("make cgroup", &dir)?;
        Ok(Some(Leaf { dir, unified }))
    }

    /// Leaves that are there: what an earlier agent has begun.
    pub(crate) fn leaves(&self) -> Vec<Leaf> {
        let Some((parent, unified)) = self.leaf_parent() else { return Vec::new() };
        let named = |dir: &PathBuf| {
            dir.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(PREFIX.as_bytes()))
        };
        let dirs = super::children(parent).into_iter().filter(named);
        dirs.map(|dir| Leaf { dir, unified }).collect()
    }
}

impl Leaf {
    /// The v2 directory to be born in.
    pub(crate) fn unified_dir(&self) -> Option<&Path> {
        self.unified.then_some(self.dir.as_path())
    }

    /// The v1 directory to join in place of the container's own.
    pub(crate) fn v1_dir(&self) -> Option<&Path> {
        (!self.unified).then_some(self.dir.as_path())
    }

    fn pids(&self) -> Vec<i32> {
        let mut pids = Vec::new();
        collect_pids(&self.dir, &mut pids);
        pids
    }

    fn kill_once(&self) {
        if fs::write(self.dir.join("cgroup.kill"), "1").is_ok() {
            return;
        }
        for pid in self.pids().into_iter().filter(|pid| *pid > 1) {
            // SAFETY: plain numbers; the pid was in the group a moment ago.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
    }

    /// Ends every process, and removes the group.
    pub(crate) async fn end(self) -> Result<()> {
        let deadline = tokio::time::Instant::now() + LIMIT;
        loop {
            self.kill_once();
            match fs::remove_dir(&self.dir) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
                Ok(()) => return Ok(()),
                Err(_) if tokio::time::Instant::now() < deadline => {}
                Err(_) => {
                    let what = format!("processes of {} do not end", self.dir.display());
                    return Err(Error::Precondition(what));
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Removes the group; a process that its exec left running on purpose becomes the container's.
    pub(crate) fn release(self) {
        let procs = self.dir.parent().map(|p| p.join("cgroup.procs"));
        for _ in 0..MOVES {
            if fs::remove_dir(&self.dir).is_ok() {
                return;
            }
            for (pid, procs) in self.pids().iter().zip(procs.iter().cycle()) {
                // It may have ended meanwhile.
                let _ = fs::write(procs, pid.to_string());
            }
        }
        // The container's end takes it along.
        tracing::debug!("{} stays until its container ends", self.dir.display());
    }
}
