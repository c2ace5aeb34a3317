//! DRA drivers come and go: the handler of plugins of the type `DRAPlugin`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use csi::Socket;
use grpc::Dial as _;

use super::Dra;
use super::plugins::{DraPlugin, choose};
use crate::plugins::{Plugin, PluginHandler};

/// Waits before a driver that went is called again, doubling.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(2 * 60);
/// Wait before a driver is asked again how its devices are.
const HEALTH_RETRY: Duration = Duration::from_secs(5);

pub(crate) struct Handler(pub(crate) Arc<Dra>);

#[async_trait]
impl PluginHandler for Handler {
    fn validate(&self, plugin: &Plugin) -> Result<(), String> {
        choose(&plugin.name, &plugin.endpoint, &plugin.versions).map(drop)
    }

    async fn register(&self, plugin: &Plugin) -> Result<(), String> {
        let service = choose(&plugin.name, &plugin.endpoint, &plugin.versions)?;
        let took = self.0.figures.calls.clone();
        let new = Arc::new(DraPlugin::new(&plugin.name, &plugin.endpoint, service, took));
        self.0.plugins.add(new.clone())?;
        self.0.follow_slices(&plugin.name);
        let (dra, watched) = (self.0.clone(), new.clone());
        self.0.tasks.spawn("DRA driver", async move {
            tokio::select! {
                () = watched.removed() => {}
                () = dra.follow_connection(&watched) => {}
                () = dra.follow_health(&watched) => {}
            }
            dra.silent(&watched.driver);
        });
        Ok(())
    }

    async fn deregister(&self, plugin: &Plugin) {
        if let Some(old) = self.0.plugins.remove(&plugin.name, &plugin.endpoint) {
            old.remove();
            self.0.follow_slices(&plugin.name);
        }
    }
}

impl Dra {
    /// Keeps a connection open, only to see when it ends.
    async fn follow_connection(self: &Arc<Self>, plugin: &DraPlugin) {
        let socket = Socket(plugin.endpoint.clone());
        let mut wait = RETRY_FIRST;
        loop {
            match socket.dial().await {
                Ok(connection) => {
                    wait = RETRY_FIRST;
                    plugin.set_connected(true);
                    self.follow_slices(&plugin.driver);
                    connection.closed().await;
                    plugin.set_connected(false);
                    tracing::warn!(driver = plugin.driver, "connection to a DRA driver lost");
                    self.follow_slices(&plugin.driver);
                }
                Err(error) => {
                    tracing::debug!(driver = plugin.driver, error, "DRA driver not reached");
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(RETRY_MAX);
                }
            }
        }
    }

    /// What the driver says of its devices' health, for as long as it is there. One that has no such service
    /// is not asked again.
    async fn follow_health(self: &Arc<Self>, plugin: &DraPlugin) {
        loop {
            let ended = match plugin.watch_health().await {
                Ok(mut answers) => loop {
                    match answers.next().await {
                        Ok(Some(said)) => self.heard(&plugin.driver, said.devices),
                        Ok(None) => break None,
                        Err(error) => break Some(error),
                    }
                },
                Err(error) => Some(error),
            };
            self.silent(&plugin.driver);
            if ended.is_some_and(|error| error.code_name() == "Unimplemented") {
                return std::future::pending().await;
            }
            tokio::time::sleep(HEALTH_RETRY).await;
        }
    }
}
