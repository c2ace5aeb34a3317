//! All volumes of a pod made ready, one after the other: each is resolved, checked and set up by itself, so
//! that the others are made though one fails, and each failure is told.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Volume};

use super::plugin::{Failed, SetUp, VolumePlugin};
use super::table::find;
use super::{Tokens, affinity, claims, plugin_dir};
use crate::kubelet::Shared;
use crate::node;
use crate::objects::User;
use crate::spec::{spec_of, uid_of};

const MODE_ONE_POD: &str = "ReadWriteOncePod";

/// What a `FailedMount` or `FailedMapVolume` event says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// Why a volume is not ready: it is not known yet what it is, or a step failed.
enum Missing {
    Unprocessed(String),
    Failed { name: String, is_block: bool, failed: Failed },
}

/// Makes all volumes of the pod; when to call again for the sake of what changes in time.
pub(crate) async fn mount(
    shared: &Arc<Shared>,
    pod: &Pod,
    user: &User,
    tokens: &Tokens,
) -> Result<Option<Timestamp>, Vec<Failure>> {
    let mut refresh: Option<Timestamp> = None;
    let mut missing = Vec::new();
    // Images are the runtime's to mount, container by container.
    for volume in spec_of(pod).volumes.iter().flatten().filter(|v| v.image.is_none()) {
        match one(shared, pod, volume, user, tokens).await {
            Ok(at) => refresh = [refresh, at].into_iter().flatten().min(),
            Err(why) => missing.push((volume.name.clone(), why)),
        }
    }
    if missing.is_empty() { Ok(refresh) } else { Err(failures(&missing)) }
}

fn failures(missing: &[(String, Missing)]) -> Vec<Failure> {
    let names = |of: &dyn Fn(&Missing) -> bool| {
        let names = missing.iter().filter(|(_, m)| of(m)).map(|(name, _)| name.as_str());
        names.collect::<Vec<_>>().join(" ")
    };
    let mut out = Vec::new();
    let mut unprocessed = Vec::new();
    for (_, why) in missing {
        match why {
            Missing::Unprocessed(why) => unprocessed.push(why.as_str()),
            Missing::Failed { name, is_block, failed: Failed { step, why } } => out.push(Failure {
                reason: if *is_block { "FailedMapVolume" } else { "FailedMount" },
                message: match why.as_str() {
                    "" => format!("{step} for volume \"{name}\" "),
                    why => format!("{step} for volume \"{name}\" : {why}"),
                },
            }),
        }
    }
    if !unprocessed.is_empty() {
        let message = format!(
            "Unable to attach or mount volumes: unmounted volumes=[{}], unattached volumes=[], failed to process volumes=[{}]: {}",
            names(&|_| true),
            names(&|m| matches!(m, Missing::Unprocessed(_))),
            unprocessed.join("; ")
        );
        out.push(Failure { reason: "FailedMount", message });
    }
    out
}

async fn one(
    shared: &Arc<Shared>,
    pod: &Pod,
    volume: &Volume,
    user: &User,
    tokens: &Tokens,
) -> Result<Option<Timestamp>, Missing> {
    let spec = claims::resolve(&shared.client, pod, volume).await.map_err(Missing::Unprocessed)?;
    let plugin = find(&spec).map_err(Missing::Unprocessed)?;
    let group = spec_of(pod).security_context.as_ref().and_then(|s| s.fs_group);
    let group = group.and_then(|g| u32::try_from(g).ok());
    let of = SetUp { shared, pod, user, tokens, spec: &spec, group };
    let (name, is_block) = (spec.name().to_owned(), spec.is_block());
    let failed = |failed| Missing::Failed { name, is_block, failed };
    check(&of, plugin).map_err(failed.clone())?;
    let ready = plugin.set_up(&of).await.map_err(failed)?;
    // The kubelet finds its own directories by their names.
    if plugin_dir(volume).is_none() {
        let unique = spec.persistent.is_some().then(|| super::unique_name(&spec, plugin.name()));
        shared.volumes.note(uid_of(pod), &volume.name, ready.place, spec.is_block(), unique);
    }
    Ok(ready.refresh_at)
}

/// What holds for every plugin.
fn check(of: &SetUp<'_>, plugin: &dyn VolumePlugin) -> Result<(), Failed> {
    let Some(persistent) = &of.spec.persistent else { return Ok(()) };
    let is_block = of.spec.is_block();
    if is_block && !plugin.supports_block() {
        let why = format!("{} does not support block volumes", plugin.name());
        return Err(Failed::new("MapVolume.FindMapperPluginBySpec failed", why));
    }
    let own = of.shared.node.get("", &of.shared.config.node_name);
    let own = own.unwrap_or_else(|| Arc::new(node::expected(&of.shared.config)));
    affinity::check(&persistent.volume, &own).map_err(|why| {
        let step = match is_block {
            true => "MapVolume.NodeAffinity check failed",
            false => "MountVolume.NodeAffinity check failed",
        };
        Failed::new(step, why)
    })?;
    if !is_block && !of.spec.mount_options().is_empty() && !plugin.supports_mount_options() {
        let why = "mount options are not supported for this volume type";
        return Err(Failed::new("MountVolume.MountOptionSupport check failed", why));
    }
    one_pod(of, plugin)
}

/// The scheduler looks after it, too; pods may be bound by anybody.
fn one_pod(of: &SetUp<'_>, plugin: &dyn VolumePlugin) -> Result<(), Failed> {
    let unique = super::unique_name(of.spec, plugin.name());
    let only = of.spec.access_modes() == [MODE_ONE_POD];
    if !only || !of.shared.volumes.is_used_elsewhere(uid_of(of.pod), &unique) {
        return Ok(());
    }
    let step = match of.spec.is_block() {
        true => "MapVolume.SetUpDevice failed",
        false => "MountVolume.SetUp failed",
    };
    let why = "volume uses the ReadWriteOncePod access mode and is already in use by another pod";
    Err(Failed::new(step, why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_is_told_and_claims_that_wait_are_told_together() {
        let step = Missing::Failed {
            name: "pv".into(),
            is_block: false,
            failed: Failed::from("no".to_owned()),
        };
        let block = Missing::Failed {
            name: "raw".into(),
            is_block: true,
            failed: Failed::new("Volume not attached according to node status", ""),
        };
        let all = [
            (
                "a".to_owned(),
                Missing::Unprocessed("error processing PVC ns/a: PVC is not bound".into()),
            ),
            ("b".to_owned(), step),
            ("c".to_owned(), block),
        ];
        let told: Vec<_> = failures(&all).into_iter().map(|f| (f.reason, f.message)).collect();
        assert_eq!(
            told,
            [
                ("FailedMount", "MountVolume.SetUp failed for volume \"pv\" : no".to_owned()),
                (
                    "FailedMapVolume",
                    "Volume not attached according to node status for volume \"raw\" ".to_owned()
                ),
                (
                    "FailedMount",
                    "Unable to attach or mount volumes: unmounted volumes=[a b c], unattached volumes=[], failed to process volumes=[a]: error processing PVC ns/a: PVC is not bound".to_owned()
                ),
            ]
        );
    }
}
