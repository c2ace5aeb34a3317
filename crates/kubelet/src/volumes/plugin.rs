//! The seam of volume plugins: one value a kind, found by what the volume is made of.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::spec::Spec;
use super::token::Tokens;
use crate::kubelet::Shared;
use crate::objects::User;

/// What a volume is set up for, and with.
pub(crate) struct SetUp<'a> {
    pub(crate) shared: &'a Arc<Shared>,
    pub(crate) pod: &'a Pod,
    pub(crate) user: &'a User,
    pub(crate) tokens: &'a Tokens,
    pub(crate) spec: &'a Spec,
    /// The pod's `fsGroup`.
    pub(crate) group: Option<u32>,
}

/// A volume that is ready for containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ready {
    /// The directory, or the device.
    pub(crate) place: PathBuf,
    /// When it is to be set up again, to renew what is in it.
    pub(crate) refresh_at: Option<Timestamp>,
}

impl Ready {
    pub(crate) fn at(place: PathBuf) -> Ready {
        Ready { place, refresh_at: None }
    }
}

/// Which step of a volume's way into a pod failed, in upstream's words, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failed {
    pub(crate) step: &'static str,
    pub(crate) why: String,
}

impl Failed {
    pub(crate) fn new(step: &'static str, why: impl Into<String>) -> Failed {
        Failed { step, why: why.into() }
    }
}

/// A plain reason is one of the last step.
impl From<String> for Failed {
    fn from(why: String) -> Failed {
        Failed::new("MountVolume.SetUp failed", why)
    }
}

/// One kind of volume. Setting up is idempotent; taking down goes by what is found on the disk, so that an
/// agent that was started anew can do it.
#[async_trait]
pub(crate) trait VolumePlugin: Send + Sync {
    /// Upstream's name, as in `kubernetes.io/empty-dir`.
    fn name(&self) -> &'static str;

    fn supports(&self, spec: &Spec) -> bool;

    /// Whether it can give containers a device instead of a file system.
    fn supports_block(&self) -> bool {
        false
    }

    fn supports_mount_options(&self) -> bool {
        false
    }

    async fn set_up(&self, of: &SetUp<'_>) -> Result<Ready, Failed>;

    /// Undoes what only this plugin can undo of the pod's volumes. Plain mounts and files below the pod's
    /// directory go by themselves.
    async fn tear_down(&self, _shared: &Arc<Shared>, _uid: &str) -> Result<(), String> {
        Ok(())
    }
}
