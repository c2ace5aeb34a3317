//! Static pods of a file, or of all files of a folder.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::unix::AsyncFd;

use super::manifest::{Origin, Reader};
use super::{MANIFEST_MAX, Sink, Source};

/// News that come together are looked at together.
const PAUSE: Duration = Duration::from_millis(100);
/// Most files of a folder.
const FILES_MAX: usize = 10_000;

pub(super) struct Folder {
    pub(super) path: PathBuf,
    /// How often it is read without news.
    pub(super) period: Duration,
    pub(super) sink: Sink,
}

impl Folder {
    pub(super) async fn run(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(self.period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            // Watched before it is read: no change falls in between.
            let watch = watch(&self.path).inspect_err(
                |error| tracing::debug!(%error, path = %self.path.display(), "not watched"),
            );
            self.read();
            tokio::select! {
                _ = ticks.tick() => {}
                () = news(watch.ok()) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// What cannot be read leaves the pods as they are.
    pub(super) fn read(&self) {
        let node = &self.sink.shared.config.node_name;
        match pods(&self.path, node) {
            Ok(pods) => self.sink.replace(Source::File, pods),
            Err(error) => {
                tracing::error!(%error, path = %self.path.display(), "static pods not read");
            }
        }
    }
}

fn watch(path: &Path) -> io::Result<AsyncFd<OwnedFd>> {
    let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    let flags = WatchFlags::CREATE
        | WatchFlags::CLOSE_WRITE
        | WatchFlags::MODIFY
        | WatchFlags::DELETE
        | WatchFlags::MOVE
        | WatchFlags::DELETE_SELF
        | WatchFlags::MOVE_SELF;
    inotify::add_watch(&watch, path, flags)?;
    // SAFETY: the descriptor is owned by what is registered, and so open for as long as it is.
    unsafe { AsyncFd::register(watch) }.map_err(io::Error::from)
}

/// Waits for the first change. A path that cannot be watched has none: it is read from time to time.
async fn news(watch: Option<AsyncFd<OwnedFd>>) {
    match watch {
        Some(watch) => drop(watch.readable().await),
        None => std::future::pending().await,
    }
}

/// A path that does not exist has no pods.
fn pods(path: &Path, node: &str) -> io::Result<Vec<Pod>> {
    let meta = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        meta => meta?,
    };
    if meta.is_file() {
        return Ok(vec![pod(path, node).map_err(io::Error::other)?]);
    }
    if !meta.is_dir() {
        return Err(io::Error::other("path is not a directory or file"));
    }
    let entry = |file: PathBuf| {
        let why = match fs::metadata(&file) {
            Ok(meta) if meta.is_file() => match pod(&file, node) {
                Ok(pod) => return Some(pod),
                Err(why) => why,
            },
            Ok(_) => "it is no file, and folders in the folder are not read".to_owned(),
            Err(error) => error.to_string(),
        };
        tracing::error!(file = %file.display(), why, "manifest of a static pod is left out");
        None
    };
    Ok(files(path)?.into_iter().filter_map(entry).collect())
}

/// The visible entries of a folder, by their names.
fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if !is_hidden(&entry.file_name()) {
            files.push(entry.path());
        }
        if files.len() > FILES_MAX {
            return Err(io::Error::other(format!("more than {FILES_MAX} files")));
        }
    }
    files.sort();
    Ok(files)
}

fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

fn pod(file: &Path, node: &str) -> Result<Pod, String> {
    let mut text = Vec::new();
    let limit = MANIFEST_MAX as u64 + 1;
    let opened = File::open(file).and_then(|opened| opened.take(limit).read_to_end(&mut text));
    opened.map_err(|error| error.to_string())?;
    if text.len() > MANIFEST_MAX {
        return Err(format!("longer than {MANIFEST_MAX} bytes"));
    }
    Reader { node, origin: &Origin::File(file.to_owned()) }.pod(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(name: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  containers: [{{name: c, image: i}}]\n"
        )
    }

    fn names(path: &Path) -> Vec<String> {
        pods(path, "n").unwrap().into_iter().filter_map(|pod| pod.metadata.name).collect()
    }

    #[test]
    fn a_folder_has_the_pods_of_its_visible_good_files() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        put("b.yaml", &manifest("b"));
        put("a", &manifest("a"));
        put(".hidden", &manifest("hidden"));
        put("bad.yaml", "kind: nothing");
        fs::create_dir(folder.path().join("below")).unwrap();
        fs::write(folder.path().join("below/c.yaml"), manifest("c")).unwrap();
        std::os::unix::fs::symlink("nowhere", folder.path().join("dangling")).unwrap();
        assert_eq!(names(folder.path()), ["a-n", "b-n"]);
        assert_eq!(names(&folder.path().join("a")), ["a-n"], "a path may be one file");
        assert!(pods(&folder.path().join("bad.yaml"), "n").is_err());
        assert_eq!(names(&folder.path().join("gone")), [""; 0]);
    }

    #[test]
    fn a_manifest_has_a_limit() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("long.yaml");
        fs::write(&file, format!("{}#{}", manifest("a"), " ".repeat(MANIFEST_MAX))).unwrap();
        assert!(pod(&file, "n").unwrap_err().contains("longer than"));
    }
}
