//! What becomes of each socket: asked, registered, tried again, dismissed. One thing at a time for each.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _};
use futures::stream::FuturesUnordered;
use tokio::time::Instant;

use super::sockets::Identity;
use super::wire::{PluginInfo, Registration, RegistrationStatus};
use super::{Handlers, Plugin, PluginHandler};

/// Waits before a plugin is asked again, doubling.
const WAIT_FIRST: Duration = Duration::from_millis(500);
const WAIT_MAX: Duration = Duration::from_secs(122);

/// A plugin that has registered.
pub(super) struct Registered {
    plugin: Plugin,
    handler: Arc<dyn PluginHandler>,
}

enum State {
    /// Something is done about it.
    Busy,
    Registered(Registered),
    Failed {
        retry_at: Instant,
    },
}

struct Entry {
    identity: Identity,
    state: State,
    /// The wait that comes next.
    wait: Duration,
}

/// How something that was done about a socket ended.
pub(super) struct Done {
    path: PathBuf,
    /// `None`: the plugin was dismissed.
    registered: Option<Result<Registered, String>>,
}

pub(super) struct Registry {
    handlers: Arc<Handlers>,
    known: BTreeMap<PathBuf, Entry>,
    pub(super) running: FuturesUnordered<BoxFuture<'static, Done>>,
}

impl Registry {
    pub(super) fn new(handlers: Handlers) -> Registry {
        let running = FuturesUnordered::new();
        Registry { handlers: Arc::new(handlers), known: BTreeMap::new(), running }
    }

    /// Begins what is to be done, given the sockets that are there.
    pub(super) fn align(&mut self, found: &BTreeMap<PathBuf, Identity>) {
        let now = Instant::now();
        let is_there = |path: &Path, entry: &Entry| found.get(path) == Some(&entry.identity);
        self.known.retain(|path, entry| {
            is_there(path, entry) || !matches!(entry.state, State::Failed { .. })
        });
        for (path, entry) in &mut self.known {
            if is_there(path, entry) || !matches!(entry.state, State::Registered(_)) {
                continue;
            }
            if let State::Registered(gone) = std::mem::replace(&mut entry.state, State::Busy) {
                self.running.push(dismiss(path.clone(), gone).boxed());
            }
        }
        for (path, identity) in found {
            let entry = self.known.entry(path.clone()).or_insert_with(|| Entry {
                identity: *identity,
                state: State::Failed { retry_at: now },
                wait: WAIT_FIRST,
            });
            if matches!(entry.state, State::Failed { retry_at } if retry_at <= now) {
                entry.state = State::Busy;
                self.running.push(register(path.clone(), self.handlers.clone()).boxed());
            }
        }
    }

    pub(super) fn done(&mut self, done: Done) {
        let Some(entry) = self.known.get_mut(&done.path) else { return };
        match done.registered {
            None => drop(self.known.remove(&done.path)),
            Some(Ok(registered)) => {
                tracing::info!(plugin = registered.plugin.name, "plugin registered");
                entry.wait = WAIT_FIRST;
                entry.state = State::Registered(registered);
            }
            Some(Err(error)) => {
                let wait = entry.wait;
                tracing::warn!(error, socket = %done.path.display(), ?wait, "plugin not registered");
                entry.wait = (wait * 2).min(WAIT_MAX);
                entry.state = State::Failed { retry_at: Instant::now() + wait };
            }
        }
    }

    /// The shortest time until a plugin is asked again.
    pub(super) fn next_retry(&self) -> Option<Duration> {
        let now = Instant::now();
        let waits = self.known.values().filter_map(|entry| match entry.state {
            State::Failed { retry_at } => Some(retry_at.saturating_duration_since(now)),
            _ => None,
        });
        waits.min()
    }
}

async fn dismiss(path: PathBuf, gone: Registered) -> Done {
    tracing::info!(plugin = gone.plugin.name, "plugin gone");
    gone.handler.deregister(&gone.plugin).await;
    Done { path, registered: None }
}

async fn register(path: PathBuf, handlers: Arc<Handlers>) -> Done {
    let registered = Some(attempt(&path, &handlers).await);
    Done { path, registered }
}

async fn attempt(path: &Path, handlers: &Handlers) -> Result<Registered, String> {
    let socket = path.display();
    let registration = Registration::new(path);
    let info = registration.info().await.map_err(|e| {
        let text = "failed to get plugin info using RPC GetInfo at socket";
        format!("RegisterPlugin error -- {text} {socket}, err: {}", e.go_text())
    })?;
    let (handler, plugin) = match judge(path, info, handlers) {
        Ok(judged) => judged,
        Err(why) => return Err(tell(&registration, path, Err(&why)).await.err().unwrap_or(why)),
    };
    if let Err(why) = handler.register(&plugin).await {
        let why = format!("RegisterPlugin error -- plugin registration failed with err: {why}");
        return Err(tell(&registration, path, Err(&why)).await.err().unwrap_or(why));
    }
    if let Err(why) = tell(&registration, path, Ok(())).await {
        handler.deregister(&plugin).await;
        return Err(why);
    }
    Ok(Registered { plugin, handler })
}

/// The handler of the plugin's type, if it takes it.
fn judge(
    path: &Path,
    info: PluginInfo,
    handlers: &Handlers,
) -> Result<(Arc<dyn PluginHandler>, Plugin), String> {
    let Some((_, handler)) = handlers.iter().find(|(kind, _)| *kind == info.kind) else {
        return Err(format!(
            "RegisterPlugin error -- no handler registered for plugin type: {} at socket {}",
            info.kind,
            path.display()
        ));
    };
    let endpoint = match info.endpoint.as_str() {
        "" => path.to_string_lossy().into_owned(),
        given => given.to_owned(),
    };
    let plugin = Plugin { name: info.name, endpoint, versions: info.supported_versions };
    handler.validate(&plugin).map_err(|why| {
        format!("RegisterPlugin error -- plugin validation failed with err: {why}")
    })?;
    Ok((handler.clone(), plugin))
}

/// Tells the plugin how it went.
async fn tell(
    registration: &Registration,
    path: &Path,
    how: Result<(), &str>,
) -> Result<(), String> {
    let error = how.err().unwrap_or_default().to_owned();
    let status = RegistrationStatus { plugin_registered: how.is_ok(), error };
    registration.notify(&status).await.map_err(|e| {
        let text = "failed to send registration status at socket";
        format!("RegisterPlugin error -- {text} {}, err: {}", path.display(), e.go_text())
    })
}
