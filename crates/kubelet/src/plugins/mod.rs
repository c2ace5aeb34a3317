//! Plugins of the node that register by a socket: CSI drivers; others hang on the same [`PluginHandler`].
//!
//! Every socket below `plugins_registry` is asked who it is, judged by the handler of its type, and told how
//! that went. A socket that goes takes its plugin with it.

mod registry;
mod sockets;
mod wire;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;

use registry::Registry;

/// How often the folder is read without news.
const PERIOD: Duration = Duration::from_secs(30);

/// What a plugin says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Plugin {
    pub(crate) name: String,
    /// The socket of its own service.
    pub(crate) endpoint: String,
    pub(crate) versions: Vec<String>,
}

/// Takes the plugins of one type.
#[async_trait]
pub(crate) trait PluginHandler: Send + Sync {
    /// Whether it may register; asks nobody.
    fn validate(&self, plugin: &Plugin) -> Result<(), String>;

    async fn register(&self, plugin: &Plugin) -> Result<(), String>;

    /// Its socket is gone.
    async fn deregister(&self, plugin: &Plugin);
}

/// By the type that plugins give.
pub(crate) type Handlers = Vec<(&'static str, Arc<dyn PluginHandler>)>;

/// Follows the folder below the kubelet's root for as long as the node runs.
pub(crate) async fn run(root: &Path, handlers: Handlers) {
    follow(&root.join("plugins_registry"), handlers).await;
}

async fn follow(folder: &Path, handlers: Handlers) {
    let mut registry = Registry::new(handlers);
    loop {
        // Watched before it is read: no change falls in between.
        let news = sockets::watch(folder);
        match sockets::list(folder) {
            Ok(found) => registry.align(&found),
            Err(error) => {
                tracing::warn!(%error, folder = %folder.display(), "plugin sockets not read");
            }
        }
        let pause = registry.next_retry().unwrap_or(PERIOD).min(PERIOD);
        tokio::select! {
            () = sockets::changed(news) => {}
            Some(done) = registry.running.next() => registry.done(done),
            () = tokio::time::sleep(pause) => {}
        }
    }
}

#[cfg(test)]
mod tests;
