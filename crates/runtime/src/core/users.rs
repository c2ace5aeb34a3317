//! A pod's user namespace: what may be asked, what it means on the host, and whether this kernel can.

use std::path::Path;

use super::sandbox::namespaces;
use super::{Inner, new_id, on_node};
use crate::cri::{IDMapping, NamespaceMode, NamespaceOption, PodSandboxConfig, UserNamespace};
use crate::error::{Error, IoContext, Result};
use crate::plan;
use crate::wire::UserNamespaceAsk;

/// Lines that the kernel takes of a mapping.
const MAX_LINES: usize = 340;
/// A mapping to try with: any ids above the host's own.
const PROBE: IDMapping = IDMapping { host_id: 65_536, container_id: 0, length: 65_536 };

/// The user namespace that a pod asks for, or none; an error for one that cannot be given.
pub(super) fn wanted(options: &NamespaceOption) -> Result<Option<UserNamespace>> {
    let Some(users) = &options.userns_options else { return Ok(None) };
    let mapped = !users.uids.is_empty() || !users.gids.is_empty();
    match NamespaceMode::try_from(users.mode) {
        Ok(NamespaceMode::Node) if mapped => {
            Err(Error::Invalid("id mappings without a user namespace".to_owned()))
        }
        Ok(NamespaceMode::Node) => Ok(None),
        Ok(NamespaceMode::Pod) => check(options, users).map(|()| Some(users.clone())),
        _ => Err(Error::Unsupported(format!("user namespace mode {}", users.mode))),
    }
}

fn check(options: &NamespaceOption, users: &UserNamespace) -> Result<()> {
    for (mode, what) in [(options.network, "network"), (options.pid, "pid"), (options.ipc, "ipc")] {
        if on_node(mode) {
            let text = format!("a user namespace with the host's {what} namespace");
            return Err(Error::Unsupported(text));
        }
    }
    for (list, what) in [(&users.uids, "uid"), (&users.gids, "gid")] {
        let valid = |m: &IDMapping| {
            let end = |id: u32| id.checked_add(m.length).is_some_and(|end| end <= i32::MAX as u32);
            m.length > 0 && m.host_id > 0 && end(m.host_id) && end(m.container_id)
        };
        let root = list.iter().any(|m| m.container_id == 0);
        if list.len() > MAX_LINES || !root || !list.iter().all(valid) {
            return Err(Error::Invalid(format!("{what} mappings of a user namespace: {list:?}")));
        }
    }
    Ok(())
}

/// The host's number for an id of the container's.
pub(super) fn on_host(list: &[IDMapping], id: u32) -> Option<u32> {
    let line = list.iter().find(|m| id >= m.container_id && id - m.container_id < m.length)?;
    Some(line.host_id + (id - line.container_id))
}

/// The host's numbers for the user namespace's root.
pub(super) fn root_on_host(users: &UserNamespace) -> Option<(u32, u32)> {
    on_host(&users.uids, 0).zip(on_host(&users.gids, 0))
}

/// The form of `/proc/PID/uid_map`.
fn lines(list: &[IDMapping]) -> String {
    list.iter().map(|m| format!("{} {} {}\n", m.container_id, m.host_id, m.length)).collect()
}

pub(super) fn ask(users: &UserNamespace, net: bool, ipc: bool) -> UserNamespaceAsk {
    UserNamespaceAsk { uid_map: lines(&users.uids), gid_map: lines(&users.gids), net, ipc }
}

/// The user namespace of a sandbox; a container may not ask for another one.
pub(super) fn of_container(
    sandbox: &PodSandboxConfig,
    options: Option<&NamespaceOption>,
) -> Result<Option<UserNamespace>> {
    let pod = wanted(&namespaces(sandbox))?;
    let asked = options.filter(|o| o.userns_options.is_some());
    let same = asked.is_none_or(|o| {
        let none = UserNamespace { mode: NamespaceMode::Node as i32, ..UserNamespace::default() };
        o.userns_options.as_ref() == Some(pod.as_ref().unwrap_or(&none))
    });
    if same {
        return Ok(pod);
    }
    Err(Error::Invalid("user namespace config for sandbox is different from container".to_owned()))
}

impl Inner {
    /// Whether containers can have user namespaces here: tried once, with a root of mapped layers.
    pub(super) async fn has_user_namespaces(&self) -> bool {
        *self
            .user_namespaces
            .get_or_init(|| async {
                let done = self.try_user_namespace().await;
                if let Err(e) = &done {
                    tracing::info!("no user namespaces: {}", e.chain());
                }
                done.is_ok()
            })
            .await
    }

    async fn try_user_namespace(&self) -> Result<()> {
        let users =
            UserNamespace { mode: NamespaceMode::Pod as i32, uids: vec![PROBE], gids: vec![PROBE] };
        let fds = self.client.user_namespace(ask(&users, false, false)).await?;
        let first = fds.first().ok_or_else(|| Error::Supervisor("no namespace came".to_owned()))?;
        let dir = self.config.root.join("images/tmp").join(new_id());
        let done = self.run_probe(&dir, std::os::fd::AsRawFd::as_raw_fd(first)).await;
        crate::tree::remove(&dir).at("remove", &dir)?;
        done
    }

    async fn run_probe(&self, dir: &Path, user_ns: i32) -> Result<()> {
        for name in ["lower", "upper", "work"] {
            let path = dir.join(name);
            std::fs::create_dir_all(&path).at("make", &path)?;
        }
        let owner = Some(PROBE.host_id);
        std::os::unix::fs::chown(dir.join("upper"), owner, owner).at("give away", dir)?;
        let user_ns = format!("/proc/{}/fd/{user_ns}", std::process::id());
        let id = new_id();
        let plan = plan::probe(&id, dir, user_ns);
        let (receiver, _) = self.start_exec(&plan, &[]).await?;
        self.kill(&id, receiver).await?;
        self.forget(&id).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(mode: NamespaceMode, lines: &[(u32, u32, u32)]) -> NamespaceOption {
        let list: Vec<IDMapping> = lines
            .iter()
            .map(|(container_id, host_id, length)| IDMapping {
                container_id: *container_id,
                host_id: *host_id,
                length: *length,
            })
            .collect();
        let users = UserNamespace { mode: mode as i32, uids: list.clone(), gids: list };
        NamespaceOption { userns_options: Some(users), ..NamespaceOption::default() }
    }

    #[test]
    fn only_mappings_that_isolate_are_taken() {
        use NamespaceMode as M;
        assert!(wanted(&options(M::Pod, &[(0, 65_536, 65_536)])).unwrap().is_some());
        assert!(wanted(&options(M::Node, &[])).unwrap().is_none());
        for lines in [
            &[][..],
            &[(0, 0, 65_536)],
            &[(1, 65_536, 65_536)],
            &[(0, 65_536, 0)],
            &[(0, u32::MAX, 2)],
            &[(0, 1 << 30, 1 << 30)],
        ] {
            assert!(wanted(&options(M::Pod, lines)).is_err(), "{lines:?}");
        }
        assert!(wanted(&options(M::Node, &[(0, 65_536, 1)])).is_err());
        assert!(wanted(&options(M::Container, &[(0, 65_536, 1)])).is_err());
        for host in ["net", "pid", "ipc"] {
            let mut with = options(M::Pod, &[(0, 65_536, 65_536)]);
            let field = match host {
                "net" => &mut with.network,
                "pid" => &mut with.pid,
                _ => &mut with.ipc,
            };
            *field = M::Node as i32;
            assert!(wanted(&with).is_err(), "{host}");
        }
    }

    #[test]
    fn ids_have_numbers_on_the_host() {
        let list = options(NamespaceMode::Pod, &[(0, 70_000, 10), (100, 90_000, 5)]);
        let list = list.userns_options.unwrap().uids;
        assert_eq!(on_host(&list, 9), Some(70_009));
        assert_eq!(on_host(&list, 104), Some(90_004));
        assert_eq!(on_host(&list, 10), None);
        assert_eq!(lines(&list), "0 70000 10\n100 90000 5\n");
    }
}
