//! CSI drivers come and go: the handler of plugins of the type `CSIPlugin`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use csi::v1::NodeGetInfoRequest;
use futures::future::{AbortHandle, Abortable};
use k8s_openapi::api::storage::v1::CSIDriver;

use super::drivers::{Driver, Version};
use super::node_info::{self, Info};
use super::said;
use crate::kubelet::Shared;
use crate::plugins::{Plugin, PluginHandler};

/// The shortest `nodeAllocatableUpdatePeriodSeconds` that the API takes.
const UPDATE_MIN: u64 = 10;

/// Takes and dismisses drivers.
pub(crate) struct Handler {
    shared: Arc<Shared>,
    /// Updates of what drivers say of the node, by driver.
    updates: Mutex<HashMap<String, AbortHandle>>,
}

impl Handler {
    pub(crate) fn new(shared: Arc<Shared>) -> Handler {
        Handler { shared, updates: Mutex::default() }
    }

    fn highest(&self, caller: &str, plugin: &Plugin) -> Result<Version, String> {
        let name = &plugin.name;
        if plugin.versions.is_empty() {
            return Err(said(format!(
                "{caller} for CSI driver {name:?} failed. Plugin returned an empty list for supported versions"
            )));
        }
        let highest = highest(&plugin.versions).map_err(|why| {
            let listed: Vec<String> = plugin.versions.iter().map(|v| format!("{v:?}")).collect();
            said(format!(
                "{caller} for CSI driver {name:?} failed. None of the versions specified [{}] are supported. err={why}",
                listed.join(" ")
            ))
        })?;
        let known = self.shared.volumes.csi.drivers.get(name).ok();
        // The same socket once more is the same driver, which was started again.
        let known = known.filter(|known| known.endpoint != plugin.endpoint);
        match known {
            Some(known) if known.version >= highest => {
                let (a, b, c) = known.version;
                Err(said(format!(
                    "{caller} for CSI driver {name:?} failed. Another driver with the same name is already registered with a higher supported version: \"{a}.{b}.{c}\""
                )))
            }
            _ => Ok(highest),
        }
    }

    async fn dismiss(&self, name: &str) {
        self.shared.volumes.csi.drivers.remove(name);
        if let Err(error) = node_info::uninstall(&self.shared, name).await {
            tracing::error!(driver = name, error, "Error uninstalling CSI driver");
        }
    }

    /// Asks the driver from time to time how many volumes it takes, if its CSIDriver object says so.
    fn follow(&self, driver: Arc<Driver>) {
        let (abort, registration) = AbortHandle::new_pair();
        let name = driver.name.clone();
        let shared = self.shared.clone();
        let work = Abortable::new(update(shared, driver), registration);
        self.shared.tasks.spawn("CSI node update", async move {
            // An end by the driver's own is the usual one.
            let _ended = work.await;
        });
        if let Some(old) = super::lock(&self.updates).insert(name, abort) {
            old.abort();
        }
    }
}

async fn update(shared: Arc<Shared>, driver: Arc<Driver>) {
    loop {
        let object = shared.client.get::<CSIDriver>("", &driver.name).await.ok();
        let period = object.and_then(|o| o.spec.node_allocatable_update_period_seconds);
        let period = period.and_then(|n| u64::try_from(n).ok()).filter(|n| *n >= UPDATE_MIN);
        // A CSIDriver object may come, or change, later.
        tokio::time::sleep(Duration::from_secs(period.unwrap_or(60))).await;
        if period.is_none() {
            continue;
        }
        let told = match info(&driver).await {
            Ok(info) => node_info::install(&shared, &info).await,
            Err(why) => Err(why),
        };
        if let Err(error) = told {
            tracing::warn!(
                driver = driver.name,
                error,
                "what a driver says of the node is not updated"
            );
        }
    }
}

async fn info(driver: &Driver) -> Result<Info, String> {
    let told = driver.client.node_get_info(&NodeGetInfoRequest {}).await;
    let told = told.map_err(|e| e.go_text())?;
    Ok(Info {
        driver: driver.name.clone(),
        node_id: told.node_id,
        max_volumes: told.max_volumes_per_node,
        topology: told.accessible_topology.unwrap_or_default().segments,
    })
}

#[async_trait]
impl PluginHandler for Handler {
    fn validate(&self, plugin: &Plugin) -> Result<(), String> {
        // The name becomes a part of paths.
        if plugin.name.is_empty()
            || plugin.name.contains(['/', '\0'])
            || plugin.name.starts_with('.')
        {
            return Err(format!("{:?} is no name of a CSI driver", plugin.name));
        }
        self.highest("ValidatePlugin", plugin).map(drop).map_err(|why| {
            format!(
                "validation failed for CSI Driver {} at endpoint {}: {why}",
                plugin.name, plugin.endpoint
            )
        })
    }

    async fn register(&self, plugin: &Plugin) -> Result<(), String> {
        let version = self.highest("RegisterPlugin", plugin)?;
        let drivers = &self.shared.volumes.csi.drivers;
        let driver = drivers.set(&plugin.name, &plugin.endpoint, version);
        let done = match info(&driver).await {
            Ok(info) => node_info::install(&self.shared, &info).await,
            Err(why) => Err(why),
        };
        match done {
            Ok(()) => self.follow(driver),
            Err(_) => self.dismiss(&plugin.name).await,
        }
        done
    }

    async fn deregister(&self, plugin: &Plugin) {
        let drivers = &self.shared.volumes.csi.drivers;
        // Another socket may have taken the name.
        if drivers.get(&plugin.name).is_ok_and(|known| known.endpoint != plugin.endpoint) {
            return;
        }
        self.dismiss(&plugin.name).await;
        if let Some(update) = super::lock(&self.updates).remove(&plugin.name) {
            update.abort();
        }
    }
}

/// The highest version that is not above 1.
fn highest(versions: &[String]) -> Result<Version, String> {
    let mut best: Option<Version> = None;
    let mut last = String::from("<nil>");
    for text in versions.iter().rev() {
        match parse(text) {
            Some(version) if version.0 > 1 => {}
            Some(version) => best = best.max(Some(version)),
            None => last = format!("could not parse {text:?} as version"),
        }
    }
    match best {
        None => Err(format!(
            "could not find a highest supported version from versions ([{}]) reported: {last}",
            versions.join(" ")
        )),
        Some((major, minor, patch)) if major != 1 => Err(format!(
            "highest supported version reported is {major}.{minor}.{patch}, must be v1.x"
        )),
        Some(version) => Ok(version),
    }
}

/// `1.2`, `v1.2.3`, and whatever follows a third number.
fn parse(text: &str) -> Option<Version> {
    let text = text.trim().trim_start_matches('v');
    let mut parts = text.splitn(3, '.');
    let major = parts.next()?.parse().ok()?;
    let minor = parts.next()?.parse().ok()?;
    let rest = parts.next().unwrap_or("0");
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    Some((major, minor, rest[..digits].parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_the_first_major_number_are_taken() {
        let of = |list: &[&str]| highest(&list.iter().map(|v| (*v).to_owned()).collect::<Vec<_>>());
        assert_eq!(of(&["1.0.0", "v1.2.3-rc1", "2.0.0"]), Ok((1, 2, 3)));
        assert_eq!(
            of(&["0.3.0"]).unwrap_err(),
            "highest supported version reported is 0.3.0, must be v1.x"
        );
        assert_eq!(
            of(&["2.0.0"]).unwrap_err(),
            "could not find a highest supported version from versions ([2.0.0]) reported: <nil>"
        );
        assert!(of(&["one"]).unwrap_err().contains("could not parse \"one\" as version"));
    }
}
