//! All volume plugins.

use super::plugin::VolumePlugin;
use super::plugins::written::Written;
use super::spec::Spec;
use super::{csi, plugins};

/// In the order in which they are asked.
static PLUGINS: [&dyn VolumePlugin; 10] = [
    &plugins::empty_dir::EmptyDir,
    &Written("kubernetes.io/configmap"),
    &Written("kubernetes.io/secret"),
    &Written("kubernetes.io/projected"),
    &Written("kubernetes.io/downward-api"),
    &plugins::host_path::HostPath,
    &plugins::local::Local,
    &plugins::nfs::Nfs,
    &csi::Csi,
    &plugins::retired::Retired,
];

pub(super) fn all() -> impl Iterator<Item = &'static dyn VolumePlugin> {
    PLUGINS.into_iter()
}

/// The plugin of the volume.
pub(super) fn find(spec: &Spec) -> Result<&'static dyn VolumePlugin, String> {
    all().find(|plugin| plugin.supports(spec)).ok_or_else(|| "no volume plugin matched".to_owned())
}
