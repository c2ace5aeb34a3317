//! Directories of pods that are gone: a crash in the middle of a pod's end leaves them.

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::beneath::Dir;
use crate::kubelet::Shared;
use crate::volumes;

pub(super) async fn remove(shared: &Arc<Shared>) {
    if !shared.pods.is_complete() {
        return;
    }
    for uid in names(&volumes::pods_dir(&shared.config.root_dir)) {
        // Looked for after the directory was seen: a new pod's directory comes after the pod.
        if shared.knows(&uid) {
            continue;
        }
        match volumes::remove_pod_dir(shared, &uid).await {
            Ok(()) => {
                shared.userns.release(&uid);
                tracing::info!(uid, "orphaned pod directory removed");
            }
            Err(error) => tracing::warn!(%error, uid, "orphaned pod directory not removed"),
        }
    }
    let shared = shared.clone();
    let logs = tokio::task::spawn_blocking(move || remove_logs(&shared));
    if let Ok(Err(error)) = logs.await {
        tracing::warn!(%error, "orphaned logs not removed");
    }
}

fn names(dir: &Path) -> Vec<String> {
    let names = Dir::root(dir).and_then(|dir| dir.names()).unwrap_or_default();
    names.into_iter().filter_map(|name| name.into_string().ok()).collect()
}

/// Logs lie in `<namespace>_<name>_<uid>`.
fn remove_logs(shared: &Shared) -> io::Result<()> {
    for name in names(&shared.config.log_dir) {
        let parts: Vec<&str> = name.split('_').collect();
        if let [_, _, uid] = parts.as_slice()
            && !shared.knows(uid)
        {
            Dir::root(&shared.config.log_dir)?.remove(&name)?;
        }
    }
    Ok(())
}
