//! Containers' logs: one that has grown too long is put aside under the time of day, and the runtime
//! goes on in a new file. Those put aside before are compressed; the oldest go.
//!
//! The newest file that was put aside stays as it is until the next: it may still be read by those that
//! follow the log.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use runtime::cri::{Container, ContainerFilter, ContainerState, ContainerStateValue};

use crate::beneath::Dir;
use crate::kubelet::Shared;
use crate::spec::labels;

/// Longest file that is compressed: far above what the runtime's own rotation lets a log become.
const COMPRESS_MAX: u64 = 1 << 30;

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
        if let Err(error) = rotate(shared, &container.id, &Arc::new(opened), &name).await {
            tracing::warn!(dir = %dir.display(), name, error, "log not rotated");
        }
    }
}

async fn rotate(shared: &Shared, id: &str, dir: &Arc<Dir>, name: &str) -> Result<(), String> {
    let keep = shared.config.log_max_files.saturating_sub(2) as usize;
    let (held, base) = (dir.clone(), name.to_owned());
    let tidied = tokio::task::spawn_blocking(move || tidy(&held, &base, keep)).await;
    tidied.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
    let now = jiff::tz::TimeZone::UTC.to_datetime(Timestamp::now());
    let aside = format!("{name}.{}", now.strftime("%Y%m%d-%H%M%S"));
    dir.rename(name, &aside).map_err(|e| e.to_string())?;
    if let Err(error) = shared.runtime.reopen_container_log(id).await {
        // It still writes to the old file: that must stay the current one.
        dir.rename(&aside, name).map_err(|e| e.to_string())?;
        return Err(error.chain());
    }
    Ok(())
}

const COMPRESSED: &str = ".gz";
const UNFINISHED: &str = ".tmp";

/// Removes what is left over and all but the newest `keep` of the files put aside, whose names sort by
/// time; compresses those.
fn tidy(dir: &Dir, name: &str, keep: usize) -> io::Result<()> {
    let prefix = format!("{name}.");
    let names = dir.names()?.into_iter().filter_map(|name| name.into_string().ok());
    let all: BTreeSet<String> = names.filter(|name| name.starts_with(&prefix)).collect();
    let is_left_over =
        |name: &&String| name.ends_with(UNFINISHED) || all.contains(&format!("{name}{COMPRESSED}"));
    let (left_over, mut kept): (Vec<_>, Vec<_>) = all.iter().partition(is_left_over);
    let surplus = kept.len().saturating_sub(keep);
    let old: Vec<_> = kept.drain(..surplus).collect();
    left_over.into_iter().chain(old).try_for_each(|name| dir.remove(name))?;
    let open = kept.into_iter().filter(|name| !name.ends_with(COMPRESSED));
    open.into_iter().try_for_each(|name| compress(dir, name))
}

fn compress(dir: &Dir, name: &str) -> io::Result<()> {
    let mut from = dir.file(name)?;
    let meta = from.metadata()?;
    // No log that was put aside is so long; nobody's sparse file is worth the time.
    if meta.len() > COMPRESS_MAX {
        return dir.remove(name);
    }
    let part = format!("{name}{UNFINISHED}");
    let file = dir.create_empty(&part)?;
    let mut to = flate2::write::GzEncoder::new(file, flate2::Compression::default());
    let written = io::copy(&mut from, &mut to).and_then(|_| to.finish());
    let written = written.and_then(|file| file.set_permissions(meta.permissions()));
    match written.and_then(|()| dir.rename(&part, format!("{name}{COMPRESSED}"))) {
        Ok(()) => dir.remove(name),
        Err(error) => dir.remove(&part).and(Err(error)),
    }
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
        tidy(&Dir::root(dir.path()).unwrap(), "0.log", 0).unwrap();
        let left = names.map(|name| dir.path().join(name).exists());
        assert_eq!(left, [true, false, false, true]);
    }

    #[test]
    fn those_put_aside_are_compressed_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let text = "2026-01-01T00:00:00Z stdout F hello\n".repeat(1000);
        std::fs::write(path("0.log.20260102-000000"), &text).unwrap();
        // A crash came between the archive and the removal, another one within an archive.
        std::fs::write(path("0.log.20260101-000000"), &text).unwrap();
        std::fs::write(path("0.log.20260101-000000.gz"), "archive").unwrap();
        std::fs::write(path("0.log.20260103-000000.tmp"), "part").unwrap();
        let opened = Dir::root(dir.path()).unwrap();
        for _ in 0..2 {
            tidy(&opened, "0.log", 3).unwrap();
            let mut left: Vec<_> =
                opened.names().unwrap().into_iter().map(|n| n.into_string().unwrap()).collect();
            left.sort();
            assert_eq!(left, ["0.log.20260101-000000.gz", "0.log.20260102-000000.gz"]);
        }
        let archive = std::fs::File::open(path("0.log.20260102-000000.gz")).unwrap();
        let read = io::read_to_string(flate2::read::GzDecoder::new(archive)).unwrap();
        assert_eq!(read, text);
        // A link that a pod put there is not followed.
        std::os::unix::fs::symlink("/etc/passwd", path("0.log.20260104-000000")).unwrap();
        assert!(tidy(&opened, "0.log", 3).is_err());
        assert!(!path("0.log.20260104-000000.gz").exists());
    }
}
