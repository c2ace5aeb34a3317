//! What is in configMap, secret, downwardAPI and projected volumes.

use std::collections::BTreeMap;
use std::path::{Component, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, ProjectedVolumeSource, Secret, Volume,
    VolumeProjection,
};

use super::atomic::{File, Files};
use super::token::{self, Tokens};
use crate::kubelet::Shared;
use crate::objects::User;
use crate::spec::downward::{self, Addresses};
use crate::spec::{find_container, namespace_of};

/// The API's default for all of these kinds.
const MODE_DEFAULT: i32 = 0o644;
/// The kernel's limit of a path, which upstream's writer meets too.
const PATH_MAX: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Payload {
    pub(super) files: Files,
    pub(super) refresh_at: Option<Timestamp>,
}

type Data = BTreeMap<String, Vec<u8>>;

struct Maker<'a> {
    shared: &'a Arc<Shared>,
    pod: &'a Pod,
    user: &'a User,
    tokens: &'a Tokens,
    made: Payload,
}

pub(super) async fn of(
    shared: &Arc<Shared>,
    pod: &Pod,
    volume: &Volume,
    user: &User,
    tokens: &Tokens,
) -> Result<Payload, String> {
    let mut maker = Maker { shared, pod, user, tokens, made: Payload::default() };
    if let Some(v) = &volume.config_map {
        let data = maker.config_map(&v.name, v.optional).await?;
        maker.keys(
            "configmap references non-existent config key",
            data,
            v.items.as_deref(),
            v.optional,
            v.default_mode,
        )?;
    } else if let Some(v) = &volume.secret {
        let name = v.secret_name.as_deref().unwrap_or("");
        let data = maker.secret(name, v.optional).await?;
        maker.keys(
            "references non-existent secret key",
            data,
            v.items.as_deref(),
            v.optional,
            v.default_mode,
        )?;
    } else if let Some(v) = &volume.downward_api {
        maker.downward(v.items.as_deref(), v.default_mode)?;
    } else if let Some(v) = &volume.projected {
        maker.projected(v).await?;
    }
    Ok(maker.made)
}

fn config_map_data(map: &ConfigMap) -> Data {
    let text = map.data.iter().flatten().map(|(k, v)| (k.clone(), v.clone().into_bytes()));
    let binary = map.binary_data.iter().flatten().map(|(k, v)| (k.clone(), v.0.clone()));
    text.chain(binary).collect()
}

fn secret_data(secret: &Secret) -> Data {
    secret.data.iter().flatten().map(|(k, v)| (k.clone(), v.0.clone())).collect()
}

impl Maker<'_> {
    /// `None`: it does not exist, and need not.
    async fn config_map(&self, name: &str, optional: Option<bool>) -> Result<Option<Data>, String> {
        let namespace = namespace_of(self.pod);
        let found = self.shared.objects.config_map(self.user, namespace, name).await;
        match found.map_err(|e| e.to_string())? {
            Some(map) => Ok(Some(config_map_data(&map))),
            None if optional.unwrap_or(false) => Ok(None),
            None => Err(format!("configmap \"{name}\" not found")),
        }
    }

    async fn secret(&self, name: &str, optional: Option<bool>) -> Result<Option<Data>, String> {
        let namespace = namespace_of(self.pod);
        let found = self.shared.objects.secret(self.user, namespace, name).await;
        match found.map_err(|e| e.to_string())? {
            Some(secret) => Ok(Some(secret_data(&secret))),
            None if optional.unwrap_or(false) => Ok(None),
            None => Err(format!("secret \"{name}\" not found")),
        }
    }

    fn put(&mut self, path: &str, content: Vec<u8>, mode: i32) -> Result<(), String> {
        self.put_as(path, content, mode, None)
    }

    fn put_as(
        &mut self,
        path: &str,
        content: Vec<u8>,
        mode: i32,
        user: Option<u32>,
    ) -> Result<(), String> {
        let path = PathBuf::from(path);
        let mut parts = path.components();
        let inside = parts.all(|c| matches!(c, Component::Normal(_)));
        let hidden = path.as_os_str().as_encoded_bytes().starts_with(b"..");
        let long = path.as_os_str().len() >= PATH_MAX;
        if !inside || hidden || long || path.as_os_str().is_empty() {
            return Err(format!("invalid path {path:.80?}"));
        }
        let mode = u32::try_from(mode).unwrap_or(0o644) & 0o777;
        self.made.files.insert(path, File { content, mode, user });
        Ok(())
    }

    fn keys(
        &mut self,
        missing: &str,
        data: Option<Data>,
        items: Option<&[KeyToPath]>,
        optional: Option<bool>,
        mode: Option<i32>,
    ) -> Result<(), String> {
        let mode = mode.unwrap_or(MODE_DEFAULT);
        let data = data.unwrap_or_default();
        let Some(items) = items.filter(|i| !i.is_empty()) else {
            return data.into_iter().try_for_each(|(key, content)| self.put(&key, content, mode));
        };
        for item in items {
            match data.get(&item.key) {
                Some(content) => {
                    self.put(&item.path, content.clone(), item.mode.unwrap_or(mode))?;
                }
                None if optional.unwrap_or(false) => {}
                None => return Err(format!("{missing}: {}", item.key)),
            }
        }
        Ok(())
    }

    fn downward(
        &mut self,
        items: Option<&[DownwardAPIVolumeFile]>,
        mode: Option<i32>,
    ) -> Result<(), String> {
        for item in items.unwrap_or_default() {
            let text = if let Some(field) = &item.field_ref {
                downward::field(self.pod, &field.field_path, &Addresses::default())
            } else if let Some(resource) = &item.resource_field_ref {
                let name = resource.container_name.as_deref().unwrap_or("");
                let own = find_container(self.pod, name).unwrap_or_default();
                downward::resource(self.pod, &own, resource, &self.shared.node_resources())
            } else {
                continue;
            };
            let text = text.map_err(|e| e.0)?;
            let mode = item.mode.or(mode).unwrap_or(MODE_DEFAULT);
            self.put(&item.path, text.into_bytes(), mode)?;
        }
        Ok(())
    }

    async fn projected(&mut self, volume: &ProjectedVolumeSource) -> Result<(), String> {
        let mode = volume.default_mode;
        for source in volume.sources.iter().flatten() {
            self.source(source, mode).await?;
        }
        Ok(())
    }

    async fn source(&mut self, s: &VolumeProjection, mode: Option<i32>) -> Result<(), String> {
        if let Some(v) = &s.config_map {
            let data = self.config_map(&v.name, v.optional).await?;
            let missing = "configmap references non-existent config key";
            return self.keys(missing, data, v.items.as_deref(), v.optional, mode);
        }
        if let Some(v) = &s.secret {
            let data = self.secret(&v.name, v.optional).await?;
            let missing = "references non-existent secret key";
            return self.keys(missing, data, v.items.as_deref(), v.optional, mode);
        }
        if let Some(v) = &s.downward_api {
            return self.downward(v.items.as_deref(), mode);
        }
        if let Some(v) = &s.service_account_token {
            let token = token::get(&self.shared.client, self.pod, v, self.tokens).await?;
            self.made.refresh_at =
                [self.made.refresh_at, Some(token.refresh_at)].into_iter().flatten().min();
            let (user, mode) = token::access(self.pod, mode.unwrap_or(MODE_DEFAULT));
            return self.put_as(&v.path, token.token.into_bytes(), mode, user);
        }
        Err("this projected volume source is not supported by this node".into())
    }
}
