//! One file by its URL, for builds: into a file, with its digest checked.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use http::{HeaderMap, Method};
use http_body_util::BodyExt as _;
use sha2::{Digest as _, Sha256};

use super::Cause;
use super::http::Http;
use crate::config::PullLimits;
use crate::error::{Error, Result};

/// Silence after which a download counts as broken.
const STALL_LIMIT: Duration = Duration::from_secs(30);
/// Bytes of a file.
const MOST: u64 = 64 << 30;

/// Fetches `url` to `path`, a file with mode 0600 and the time that the server says. `checksum` is empty or
/// `sha256:…`.
pub async fn fetch(url: &str, path: &Path, checksum: &str) -> Result<()> {
    let done = fetched(url, path, checksum).await;
    if done.is_err() {
        // There may be nothing of it.
        let _ = std::fs::remove_file(path);
    }
    done.map_err(|source| Error::Pull { image: url.to_owned(), source })
}

async fn fetched(url: &str, path: &Path, checksum: &str) -> std::result::Result<(), Cause> {
    if !checksum.is_empty() && !crate::image::is_digest(checksum) {
        return Err(format!("checksum {checksum:?} is not sha256:<64 hex digits>").into());
    }
    let answer = Http::new(PullLimits::default())?
        .send(Method::GET, url.parse()?, HeaderMap::new(), bytes::Bytes::new())
        .await?;
    let status = answer.response.status();
    if !status.is_success() {
        return Err(format!("the server answers {status}").into());
    }
    let modified = answer.response.headers().get(http::header::LAST_MODIFIED);
    let modified = modified.and_then(|m| jiff::fmt::rfc2822::parse(m.to_str().ok()?).ok());
    let mut answer = answer;
    let mut file = std::fs::File::create_new(path)?;
    let (mut hash, mut length) = (Sha256::new(), 0u64);
    loop {
        let next = tokio::time::timeout(STALL_LIMIT, answer.response.body_mut().frame());
        let Some(frame) = next.await.map_err(|_| "the download has stalled")? else { break };
        let Ok(data) = frame?.into_data() else { continue };
        length += data.len() as u64;
        if length > MOST {
            return Err(format!("the file has more than {MOST} bytes").into());
        }
        hash.update(&data);
        file.write_all(&data)?;
    }
    let found = hash.finalize().iter().fold("sha256:".to_owned(), |t, b| format!("{t}{b:02x}"));
    if !checksum.is_empty() && checksum != found {
        return Err(format!("digest mismatch: it has {found}, not {checksum}").into());
    }
    file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    let seconds = modified.map_or(0, |m| m.timestamp().as_second());
    let since = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    file.set_modified(std::time::UNIX_EPOCH + since)?;
    Ok(())
}
