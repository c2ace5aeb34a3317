//! `hostPath`, as a pod's volume and as a PersistentVolume: a path of the host as it is.

use std::path::{Component, Path, PathBuf};

use async_trait::async_trait;
use k8s_openapi::api::core::v1::HostPathVolumeSource;

use crate::volumes::fs;
use crate::volumes::plugin::{Failed, Ready, SetUp, VolumePlugin};
use crate::volumes::spec::Spec;

pub(crate) struct HostPath;

fn source(spec: &Spec) -> Option<&HostPathVolumeSource> {
    let own = spec.volume.host_path.as_ref();
    own.or_else(|| spec.source().and_then(|s| s.host_path.as_ref()))
}

#[async_trait]
impl VolumePlugin for HostPath {
    fn name(&self) -> &'static str {
        "kubernetes.io/host-path"
    }

    fn supports(&self, spec: &Spec) -> bool {
        source(spec).is_some()
    }

    async fn set_up(&self, of: &SetUp<'_>) -> Result<Ready, Failed> {
        let source = source(of.spec).cloned().unwrap_or_default();
        let path = PathBuf::from(&source.path);
        stays_below(&path)?;
        // A path of the host may lie on a file system that does not answer.
        let work = tokio::task::spawn_blocking(move || fs::host_path(&source));
        work.await.map_err(|e| e.to_string())??;
        Ok(Ready::at(path))
    }
}

/// A path of an API object does not leave what it names.
pub(super) fn stays_below(path: &Path) -> Result<(), String> {
    match path.components().any(|c| c == Component::ParentDir) {
        true => Err(format!("invalid HostPath `{}`: must not contain '..'", path.display())),
        false => Ok(()),
    }
}
