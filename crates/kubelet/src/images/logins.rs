//! Where logins come from: the pod's pull secrets, the node's own files, and plugins.

use std::path::{Path, PathBuf};

use client::EventType;
use k8s_openapi::api::core::v1::Secret;

use super::Wanted;
use super::keyring::{Keyring, Login};
use crate::kubelet::Shared;
use crate::pod::pod_reference;
use crate::spec::{namespace_of, spec_of};

/// Longest file of logins that is read.
const FILE_MAX: u64 = 1 << 20;

/// All logins for a repository: the pod's own before the node's, and plugins' last.
pub(super) async fn of(
    shared: &Shared,
    wanted: &Wanted<'_>,
    repository: &str,
) -> Result<Vec<Login>, String> {
    let secrets = secrets(shared, wanted).await;
    let mut found = Keyring::of(secrets.iter())?.lookup(repository);
    found.extend(node_keyring(&shared.config.root_dir).lookup(repository));
    found.extend(shared.providers.logins(&shared.client, wanted.pod, repository).await);
    Ok(found)
}

async fn secrets(shared: &Shared, wanted: &Wanted<'_>) -> Vec<Secret> {
    let spec = spec_of(wanted.pod);
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    let named = spec.image_pull_secrets.iter().flatten().filter(|s| !s.name.is_empty());
    for secret in named {
        let namespace = namespace_of(wanted.pod);
        match shared.objects.secret(wanted.user, namespace, &secret.name).await {
            Ok(Some(secret)) => found.push((*secret).clone()),
            _ => missing.push(secret.name.clone()),
        }
    }
    if !missing.is_empty() {
        let message = format!(
            "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
            missing.join(", ")
        );
        let about = pod_reference(wanted.pod);
        let reason = "FailedToRetrieveImagePullSecret";
        shared.recorder.event(&about, EventType::Warning, reason, message);
    }
    found
}

/// The node's logins, read anew for each pull so that a changed file counts. Upstream looks into the
/// folder that the kubelet was started in, too; a cluster is started from any folder, so this does not.
fn node_keyring(root: &Path) -> Keyring {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let new = [root.to_owned(), home.join(".docker"), "/.docker".into()];
    let old = [root.to_owned(), home, "/".into()];
    let mut keyring = Keyring::default();
    let new = new.iter().map(|dir| (dir.join("config.json"), false));
    let old = old.iter().map(|dir| (dir.join(".dockercfg"), true));
    for (file, is_old) in new.chain(old) {
        let Some(content) = read(&file) else { continue };
        // The first that can be read is the one.
        let mut one = Keyring::default();
        match one.read(&content, is_old, None) {
            Ok(()) => {
                keyring = one;
                break;
            }
            Err(error) => tracing::debug!(file = %file.display(), error, "no file of logins"),
        }
    }
    keyring
}

fn read(file: &Path) -> Option<Vec<u8>> {
    use std::io::Read;
    let mut content = Vec::new();
    std::fs::File::open(file).ok()?.take(FILE_MAX).read_to_end(&mut content).ok()?;
    Some(content)
}
