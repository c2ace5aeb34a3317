//! User namespaces: made by a process that only exists for it, mapped from outside, and kept by whoever
//! holds the descriptors.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;

use super::Supervisor;
use super::launcher::Job;
use super::prepare::Problem;
use super::start::status_pair;
use crate::wire::UserNamespaceAsk;

impl Supervisor {
    /// The user namespace, uts, and as asked net and ipc: the latter belong to the first.
    pub(super) fn user_namespace(&self, ask: &UserNamespaceAsk) -> Result<Vec<OwnedFd>, Problem> {
        let at = |e: io::Error| ("make a user namespace".to_owned(), e);
        let wanted = [
            ("user", libc::CLONE_NEWUSER, true),
            ("uts", libc::CLONE_NEWUTS, true),
            ("net", libc::CLONE_NEWNET, ask.net),
            ("ipc", libc::CLONE_NEWIPC, ask.ipc),
        ];
        let wanted = wanted.into_iter().filter(|(_, _, on)| *on);
        let flags = wanted.clone().fold(0, |sum, (_, flag, _)| sum | flag as u64);
        // Dropped at the end of this function, and with it the process ends.
        let (_ours, theirs) = status_pair().map_err(at)?;
        let job = Job { flags, hold: true, present: true, ..Job::default() };
        let pid = self.launcher.launch(&job, &[&theirs]).map_err(at)?;
        drop(theirs);
        for (file, map) in [("uid_map", &ask.uid_map), ("gid_map", &ask.gid_map)] {
            fs::write(format!("/proc/{pid}/{file}"), map)
                .map_err(|e| (format!("write the user namespace's {file}"), e))?;
        }
        let open = |kind| File::open(format!("/proc/{pid}/ns/{kind}")).map(OwnedFd::from);
        wanted.map(|(kind, _, _)| open(kind).map_err(at)).collect()
    }
}
