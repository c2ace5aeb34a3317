//! The cluster's control socket: how `trireme image` reaches the image stores of a running cluster.
//!
//! One JSON request a line, one JSON answer a line, on a unix socket that only root can open.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use client::Tasks;
use runtime::cri::{AuthConfig, ImageSpec, PullImageRequest};
use runtime::image::ImageStore;
use runtime::{Embedded, ImageService};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};

/// What can be asked for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "camelCase")]
pub(crate) enum Request {
    Import {
        path: PathBuf,
        names: Vec<String>,
    },
    /// Take an image out of another store on this machine.
    Adopt {
        store: PathBuf,
        id: String,
        names: Vec<String>,
    },
    List,
    /// Write an image to a file, as an OCI archive.
    Export {
        name: String,
        names: Vec<String>,
        path: PathBuf,
    },
    /// Keep an image from garbage collection, or no longer.
    Pin {
        name: String,
        pinned: bool,
    },
    Pull {
        name: String,
    },
    Remove {
        name: String,
    },
    /// Send an image to its registry.
    Push {
        name: String,
        to: String,
        username: String,
        password: String,
    },
}

/// One image of one node.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ImageRow {
    pub(crate) id: String,
    pub(crate) names: Vec<String>,
    /// Bytes, unpacked.
    pub(crate) size: u64,
    /// Kept by garbage collection.
    pub(crate) pinned: bool,
}

/// What a request has come to.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Outcome {
    /// The images there are now.
    Images(Vec<ImageRow>),
    /// The name that an image was pushed under, with its manifest's digest.
    Pushed(String),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Reply {
    Done(Outcome),
    Failed(String),
}

/// Listens in the cluster's folder for as long as the tasks run.
pub(crate) fn serve(socket: &Path, nodes: Vec<Arc<Embedded>>, tasks: &Tasks) -> Result<()> {
    // A socket that a killed process left behind answers nobody.
    crate::cluster::remove_file(socket)?;
    let listener =
        UnixListener::bind(socket).with_context(|| format!("listen on {}", socket.display()))?;
    tasks.spawn("control socket", async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Err(error) = converse(stream, &nodes).await {
                tracing::debug!(%error, "control connection ended");
            }
        }
    });
    Ok(())
}

async fn converse(stream: UnixStream, nodes: &[Arc<Embedded>]) -> Result<()> {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    while let Some(line) = lines.next_line().await? {
        let done = match serde_json::from_str(&line) {
            Ok(request) => perform(&request, nodes).await,
            Err(error) => Err(error.into()),
        };
        let reply = done.map_or_else(|e| Reply::Failed(format!("{e:#}")), Reply::Done);
        write.write_all(format!("{}\n", serde_json::to_string(&reply)?).as_bytes()).await?;
    }
    Ok(())
}

/// Changes are made on every node, so that a pod may land anywhere.
async fn perform(request: &Request, nodes: &[Arc<Embedded>]) -> Result<Outcome> {
    let first = nodes.first().context("a cluster has a node")?;
    // One node's copy is all nodes'.
    match request {
        Request::Push { name, to, username, password } => {
            let auth = AuthConfig {
                username: username.clone(),
                password: password.clone(),
                ..AuthConfig::default()
            };
            return first.push_image(name, to, auth).await.map(Outcome::Pushed).map_err(told);
        }
        Request::Export { name, names, path } => {
            let (images, path) = (first.images(), path.clone());
            let (name, names) = (name.clone(), names.clone());
            let write = move || images.export(&name, &names, &path);
            tokio::task::spawn_blocking(write).await?.map_err(told)?;
        }
        _ => {
            for node in nodes {
                change(request, node).await?;
            }
        }
    }
    let row = |image: runtime::image::StoredImage| ImageRow {
        id: image.id.clone(),
        names: image.tags.iter().cloned().collect(),
        size: image.size,
        pinned: image.pinned,
    };
    Ok(Outcome::Images(first.images().list().into_iter().map(row).collect()))
}

fn told(error: runtime::Error) -> anyhow::Error {
    anyhow::anyhow!(error.chain())
}

/// One node's part.
async fn change(request: &Request, node: &Embedded) -> Result<()> {
    let images = node.images();
    match request {
        Request::List | Request::Push { .. } | Request::Export { .. } => {}
        Request::Import { path, names } => {
            let (path, names) = (path.clone(), names.clone());
            tokio::task::spawn_blocking(move || -> Result<()> {
                for image in images.import(&path, &names)? {
                    images.pin(&image.id, true)?;
                }
                Ok(())
            })
            .await??;
        }
        Request::Adopt { store, id, names } => {
            let (store, id, names) = (store.clone(), id.clone(), names.clone());
            tokio::task::spawn_blocking(move || adopt(&images, &store, &id, &names)).await??;
        }
        Request::Pin { name, pinned } => {
            let (name, pinned) = (name.clone(), *pinned);
            tokio::task::spawn_blocking(move || images.pin(&name, pinned)).await?.map_err(told)?;
        }
        Request::Pull { name } => {
            let spec = ImageSpec { image: name.clone(), ..ImageSpec::default() };
            let request = PullImageRequest { image: Some(spec), ..PullImageRequest::default() };
            node.pull_image(request).await.map_err(told)?;
        }
        Request::Remove { name } => {
            let spec = ImageSpec { image: name.clone(), ..ImageSpec::default() };
            node.remove_image(spec).await.map_err(told)?;
        }
    }
    Ok(())
}

/// Takes an image of a builder's store into a node's.
pub(crate) fn adopt(images: &ImageStore, store: &Path, id: &str, names: &[String]) -> Result<()> {
    let found = images.adopt(store, id, names).map_err(|e| anyhow::anyhow!(e.chain()))?;
    found.map(drop).with_context(|| format!("image {id} is not in {}", store.display()))
}

/// Asks a running cluster.
pub(crate) fn ask(socket: &Path, request: &Request) -> Result<Outcome> {
    use std::io::{BufRead as _, Write as _};
    let mut stream = std::os::unix::net::UnixStream::connect(socket)
        .with_context(|| format!("reach the cluster at {}: is it running?", socket.display()))?;
    writeln!(stream, "{}", serde_json::to_string(request)?)?;
    let mut line = String::new();
    std::io::BufReader::new(stream).read_line(&mut line)?;
    match serde_json::from_str(&line).context("the cluster's answer")? {
        Reply::Done(outcome) => Ok(outcome),
        Reply::Failed(why) => bail!(why),
    }
}
