//! Servers on unix sockets, as the kubelet's plugins and container runtimes have them.

use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};

use super::Methods;
use super::seats::{Place, Seats};
use crate::Tasks;

/// Connections at once; for more, those without calls are ended, longest idle first.
const CONNECTIONS_MAX: usize = 256;
/// Wait after a connection could not be taken (no free file descriptor).
const PAUSE: Duration = Duration::from_millis(100);

/// A socket that only its owner may connect to. What a server of former days left there is replaced; anything
/// that is no socket is left alone and is an error. Missing directories are made, for the owner and its group.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Some(parent) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o750).create(parent)?;
    }
    match std::fs::symlink_metadata(path) {
        Ok(there) if there.file_type().is_socket() => std::fs::remove_file(path)?,
        Ok(_) => {
            let why = format!("{} is there and is no socket", path.display());
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, why));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves all that connect, until it is dropped; connections and their calls end with it.
pub async fn listen(listener: UnixListener, methods: Arc<Methods>) {
    let (tasks, seats) = (Tasks::default(), Seats::new(CONNECTIONS_MAX));
    loop {
        match listener.accept().await {
            Err(error) => {
                tracing::warn!(%error, "a gRPC server takes no connection");
                tokio::time::sleep(PAUSE).await;
            }
            Ok((stream, _)) => {
                let place = seats.take().await;
                tasks.spawn("gRPC connection", serve(methods.clone(), stream, place));
            }
        }
    }
}

async fn serve(methods: Arc<Methods>, stream: UnixStream, place: Place) {
    if let Err(error) = methods.serve_at(stream, place.seat.clone()).await {
        tracing::debug!(%error, "a gRPC connection ended");
    }
}
