//! Volumes whose files the kubelet writes: `configMap`, `secret`, `downwardAPI`, `projected`.

use async_trait::async_trait;

use crate::volumes::plugin::{Failed, Ready, SetUp, VolumePlugin};
use crate::volumes::spec::Spec;
use crate::volumes::{Place, payload, plugin_dir};

/// One of these kinds, by its name.
pub(crate) struct Written(pub(crate) &'static str);

#[async_trait]
impl VolumePlugin for Written {
    fn name(&self) -> &'static str {
        self.0
    }

    fn supports(&self, spec: &Spec) -> bool {
        plugin_dir(&spec.volume) == Some(self.0)
    }

    async fn set_up(&self, of: &SetUp<'_>) -> Result<Ready, Failed> {
        let volume = &of.spec.volume;
        let made = payload::of(of.shared, of.pod, volume, of.user, of.tokens).await?;
        // All but config maps hold what must not reach the disk.
        let memory = volume.config_map.is_none().then_some(None);
        let place = Place::new(of, self.0, memory).make_off_thread(Some(made.files)).await?;
        Ok(Ready { place, refresh_at: made.refresh_at })
    }
}
