//! Containers' logs: one that has grown too long is put aside under the time of day, the runtime
//! goes on in a new file, and the oldest of those put aside go.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use runtime::cri::{Container, ContainerFilter, ContainerState, ContainerStateValue};

use crate::beneath::Dir;
use crate::kubelet::Shared;
use crate::spec::labels;

/// The directory of a container's logs, and the name of the current file.
fn place(container: &Container) -> Option<(PathBuf, String)> {
    let label = |name: &str| container.labels.get(name);
    let (ns, pod) = (label(labels::POD_NAMESPACE)?, label(labels::POD_NAME)?);
    let (uid, name) = (label(labels::POD_UID)?, label(labels::CONTAINER_NAME)?);
    let attempt = container.metadata.as_ref()?.attempt;
    Some((Path::new(&format!("{ns}_{pod}_{uid}")).join(name), format!("{attempt}.log")))
}

pub(super) async fn rotate_all(shared: &Arc<Shared>) {
    let state = Some(ContainerStateValue { state: ContainerState::Running as i32 });
    let filter = ContainerFilter { state, ..ContainerFilter::default() };
    let containers = match shared.runtime.list_containers(filter).await {
        Ok(containers) => containers,
        Err(error) => return tracing::warn!(error = error.chain(), "logs not rotated"),
    };
    let max = shared.config.log_max_bytes;
    for container in containers {
        let Some((dir, name)) = place(&container) else { continue };
        let opened = Dir::root(&shared.config.log_dir).and_then(|top| top.open(&dir));
        let Ok(opened) = opened else { continue };
        let size = opened.stat(&name).ok().flatten().map_or(0, |stat| stat.st_size);
        if u64::try_from(size).unwrap_or(0) <= max {
            continue;
        }
        if let Err(error) = rotate(shared, &container.id, &opened, &name).await {
            tracing::warn!(dir = %dir.display(), name, error, "log not rotated");
        }
    }
}

async fn rotate(shared: &Shared, id: &str, dir: &Dir, name: &str) -> Result<(), String> {
    let now = jiff::tz::TimeZone::UTC.to_datetime(Timestamp::now());
    let aside = format!("{name}.{}", now.strftime("%Y%m%d-%H%M%S"));
    dir.rename(name, &aside).map_err(|e| e.to_string())?;
    if let Err(error) = shared.runtime.reopen_container_log(id).await {
        // It still writes to the old file: that must stay the current one.
        dir.rename(&aside, name).map_err(|e| e.to_string())?;
        return Err(error.chain());
    }
    let keep = shared.config.log_max_files.saturating_sub(1) as usize;
    prune(dir, name, keep).map_err(|e| e.to_string())
}

/// Removes all but the newest `keep` of the files put aside; their names sort by time.
fn prune(dir: &Dir, name: &str, keep: usize) -> io::Result<()> {
    let prefix = format!("{name}.");
    let mut aside = dir.names()?;
    aside.retain(|name| name.to_string_lossy().starts_with(&prefix));
    aside.sort();
    let surplus = aside.len().saturating_sub(keep);
    aside[..surplus].iter().try_for_each(|name| dir.remove(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_and_others_logs_stay() {
        let dir = tempfile::tempdir().unwrap();
        let names =
            ["0.log", "0.log.20260101-000000", "0.log.20260102-000000", "1.log.20250101-000000"];
        for name in names {
            std::fs::write(dir.path().join(name), "x").unwrap();
        }
        prune(&Dir::root(dir.path()).unwrap(), "0.log", 1).unwrap();
        let left = names.map(|name| dir.path().join(name).exists());
        assert_eq!(left, [true, false, true, true]);
    }
}
