//! Plugins that register, are refused, come again and go, over real sockets.

use std::sync::Mutex;
use std::time::Duration;

use grpc::Tasks;
use grpc::server::Methods;
use tokio::sync::mpsc;

use super::wire::{
    GET_INFO, InfoRequest, NOTIFY, PluginInfo, RegistrationStatus, RegistrationStatusResponse,
};
use super::*;

/// Notes what it is asked; refuses plugins named so.
struct Recorder {
    told: mpsc::UnboundedSender<String>,
    /// Registrations that still fail.
    failures: Mutex<u32>,
}

#[async_trait]
impl PluginHandler for Recorder {
    fn validate(&self, plugin: &Plugin) -> Result<(), String> {
        if plugin.name == "bad" { Err("bad name".into()) } else { Ok(()) }
    }

    async fn register(&self, plugin: &Plugin) -> Result<(), String> {
        let mut failures = self.failures.lock().unwrap();
        if *failures > 0 {
            *failures -= 1;
            return Err("not now".into());
        }
        self.told.send(format!("+{}", plugin.name)).unwrap();
        Ok(())
    }

    async fn deregister(&self, plugin: &Plugin) {
        self.told.send(format!("-{}", plugin.name)).unwrap();
    }
}

/// A plugin on a socket; what it is told comes out of the channel.
fn plugin(
    path: &Path,
    kind: &str,
    name: &str,
) -> (Tasks, mpsc::UnboundedReceiver<RegistrationStatus>) {
    let (sender, told) = mpsc::unbounded_channel();
    let info = PluginInfo {
        kind: kind.into(),
        name: name.into(),
        endpoint: String::new(),
        supported_versions: vec!["1.0.0".into()],
    };
    let methods = Methods::new(1 << 16)
        .unary(GET_INFO, move |_: InfoRequest| {
            let info = info.clone();
            async move { Ok(info) }
        })
        .unary(NOTIFY, move |status: RegistrationStatus| {
            let sender = sender.clone();
            async move {
                let _gone = sender.send(status);
                Ok(RegistrationStatusResponse {})
            }
        });
    let listener = grpc::server::bind(path).unwrap();
    let tasks = Tasks::default();
    tasks.spawn("plugin", grpc::server::listen(listener, Arc::new(methods)));
    (tasks, told)
}

struct Node {
    folder: tempfile::TempDir,
    heard: mpsc::UnboundedReceiver<String>,
    run: tokio::task::JoinHandle<()>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.run.abort();
    }
}

fn node(failures: u32) -> Node {
    let folder = tempfile::tempdir().unwrap();
    let (told, heard) = mpsc::unbounded_channel();
    let handler: Arc<dyn PluginHandler> =
        Arc::new(Recorder { told, failures: Mutex::new(failures) });
    let at = folder.path().to_owned();
    let run = tokio::spawn(async move { follow(&at, vec![("CSIPlugin", handler)]).await });
    Node { folder, heard, run }
}

async fn next<T>(from: &mut mpsc::UnboundedReceiver<T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), from.recv()).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_plugin_comes_goes_and_comes_again() {
    let mut node = node(0);
    let path = node.folder.path().join("below/d-reg.sock");
    let (tasks, mut told) = plugin(&path, "CSIPlugin", "d");
    assert_eq!(next(&mut node.heard).await, "+d");
    assert_eq!(
        next(&mut told).await,
        RegistrationStatus { plugin_registered: true, error: String::new() }
    );
    drop(tasks);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(next(&mut node.heard).await, "-d");
    let (_tasks, mut told) = plugin(&path, "CSIPlugin", "d");
    assert_eq!(next(&mut node.heard).await, "+d");
    assert!(next(&mut told).await.plugin_registered);
    // A new socket in its place is a plugin that was started again.
    let (_again, _told) = plugin(&path, "CSIPlugin", "e");
    assert_eq!(next(&mut node.heard).await, "-d");
    assert_eq!(next(&mut node.heard).await, "+e");
}

#[tokio::test]
async fn a_refused_plugin_is_told_why_and_asked_again() {
    let mut node = node(1);
    let path = node.folder.path().join("d.sock");
    let (_tasks, mut told) = plugin(&path, "CSIPlugin", "d");
    assert_eq!(
        next(&mut told).await,
        RegistrationStatus {
            plugin_registered: false,
            error: "RegisterPlugin error -- plugin registration failed with err: not now".into()
        }
    );
    assert!(next(&mut told).await.plugin_registered);
    assert_eq!(next(&mut node.heard).await, "+d");
}

#[tokio::test]
async fn unknown_types_and_bad_names_are_refused() {
    let node = node(0);
    let path = node.folder.path().join("a.sock");
    let (_tasks, mut told) = plugin(&path, "OtherPlugin", "d");
    assert_eq!(
        next(&mut told).await.error,
        format!(
            "RegisterPlugin error -- no handler registered for plugin type: OtherPlugin at socket {}",
            path.display()
        )
    );
    let (_tasks, mut told) = plugin(&node.folder.path().join("b.sock"), "CSIPlugin", "bad");
    assert_eq!(
        next(&mut told).await.error,
        "RegisterPlugin error -- plugin validation failed with err: bad name"
    );
}

#[test]
fn hidden_names_and_plain_files_are_no_plugins() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "").unwrap();
    let _hidden = std::os::unix::net::UnixListener::bind(folder.path().join(".hidden")).unwrap();
    let _shown = std::os::unix::net::UnixListener::bind(folder.path().join("shown")).unwrap();
    let found = sockets::list(folder.path()).unwrap();
    assert_eq!(found.keys().collect::<Vec<_>>(), [&folder.path().join("shown")]);
}
