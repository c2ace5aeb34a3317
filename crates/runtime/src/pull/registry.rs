//! One repository of one registry: manifests, small documents, layers.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, RANGE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body_util::BodyExt;
use serde::Deserialize;
use tokio::sync::{Mutex, mpsc};

use super::Cause;
use super::auth::{self, Challenge};
use super::http::{Answer, Http};
use crate::config::Config;
use crate::cri::AuthConfig;
use crate::image::{Manifest, Reference, sha256};

const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";
/// Bytes of a manifest or configuration.
const MAX_DOCUMENT: usize = 4 << 20;
/// Times a layer's download is taken up again without having got any further.
const RETRIES: u32 = 4;
/// The first pause between two tries; it doubles.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// Silence after which a download counts as broken.
const STALL_LIMIT: Duration = Duration::from_secs(30);

pub(super) struct Registry {
    http: Http,
    /// `host[:port]` to speak to.
    host: String,
    path: String,
    wanted: String,
    schemes: Vec<&'static str>,
    auth: AuthConfig,
    /// The header that was accepted last.
    header: Mutex<Option<String>>,
}

/// A manifest for this machine, and the digest of what the name stands for.
pub(super) struct Found {
    pub(super) manifest: Manifest,
    pub(super) digest: String,
}

#[derive(Deserialize)]
struct Token {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
}

impl Registry {
    pub(super) fn new(reference: &Reference, config: &Config, auth: AuthConfig) -> Registry {
        let host = match reference.host.as_str() {
            "docker.io" => "registry-1.docker.io".to_owned(),
            other => other.to_owned(),
        };
        let name = host.rsplit_once(':').map_or(host.as_str(), |(name, _)| name);
        let loopback = name == "localhost" || name.starts_with("127.") || name == "[::1]";
        let schemes = if config.insecure_registries.contains(&host) {
            vec!["http"]
        } else if loopback {
            vec!["https", "http"]
        } else {
            vec!["https"]
        };
        let wanted = reference.digest.clone().or(reference.tag.clone()).unwrap_or_default();
        Registry {
            http: Http::new(),
            host,
            path: reference.path.clone(),
            wanted,
            schemes,
            auth,
            header: Mutex::default(),
        }
    }

    /// The manifest; an index is followed to this machine's entry.
    pub(super) async fn manifest(&self) -> Result<Found, Cause> {
        let (bytes, digest) = self.manifest_bytes(&self.wanted).await?;
        let manifest: Manifest = serde_json::from_slice(&bytes)?;
        if manifest.config.is_some() {
            return Ok(Found { manifest, digest });
        }
        let chosen = manifest.choose().ok_or_else(|| {
            format!("no match for platform linux/{} in the index", crate::image::ARCHITECTURE)
        })?;
        let (bytes, _) = self.manifest_bytes(&chosen.digest).await?;
        Ok(Found { manifest: serde_json::from_slice(&bytes)?, digest })
    }

    async fn manifest_bytes(&self, name: &str) -> Result<(Bytes, String), Cause> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static(MANIFESTS));
        let answer = self.get(&format!("manifests/{name}"), headers).await?;
        let bytes = self.ok(answer).await?.bytes(MAX_DOCUMENT).await?;
        let digest = sha256(&bytes);
        if name.starts_with("sha256:") && name != digest {
            return Err(format!("manifest {name} has the digest {digest}").into());
        }
        Ok((bytes, digest))
    }

    /// A small blob, its digest checked.
    pub(super) async fn document(&self, digest: &str) -> Result<Bytes, Cause> {
        let answer = self.get(&format!("blobs/{digest}"), HeaderMap::new()).await?;
        let bytes = self.ok(answer).await?.bytes(MAX_DOCUMENT).await?;
        let found = sha256(&bytes);
        if found == digest {
            Ok(bytes)
        } else {
            Err(format!("blob {digest} has the digest {found}").into())
        }
    }

    /// Streams a layer into `to`, and an empty chunk after its last; goes on after breaks.
    pub(super) async fn blob(
        &self,
        digest: &str,
        size: u64,
        to: mpsc::Sender<Bytes>,
    ) -> Result<(), Cause> {
        let (mut offset, mut failures) = (0, 0);
        loop {
            let before = offset;
            match self.blob_from(digest, &mut offset, size, &to).await {
                Ok(()) if size == 0 || offset == size => break,
                Ok(()) if offset > size => {
                    return Err(format!("layer {digest} is larger than {size} bytes").into());
                }
                // The reader has given up: its error is the one that counts.
                _ if to.is_closed() => return Ok(()),
                other => {
                    failures = if offset > before { 1 } else { failures + 1 };
                    if failures > RETRIES {
                        return Err(other.err().unwrap_or_else(|| {
                            format!("layer {digest} ends at {offset} of {size} bytes").into()
                        }));
                    }
                    tokio::time::sleep(RETRY_PAUSE * 2u32.pow(failures)).await;
                }
            }
        }
        let _ = to.send(Bytes::new()).await;
        Ok(())
    }

    async fn blob_from(
        &self,
        digest: &str,
        offset: &mut u64,
        size: u64,
        to: &mpsc::Sender<Bytes>,
    ) -> Result<(), Cause> {
        let mut headers = HeaderMap::new();
        if *offset > 0 {
            headers.insert(RANGE, HeaderValue::from_str(&format!("bytes={offset}-"))?);
        }
        let answer = self.get(&format!("blobs/{digest}"), headers).await?;
        let mut answer = self.ok(answer).await?;
        // A registry that does not know ranges starts from the beginning.
        let partial = answer.response.status() == StatusCode::PARTIAL_CONTENT;
        let mut skip = if partial { 0 } else { *offset };
        loop {
            let next = tokio::time::timeout(STALL_LIMIT, answer.response.body_mut().frame());
            let Some(frame) = next.await.map_err(|_| format!("layer {digest} has stalled"))? else {
                return Ok(());
            };
            let Ok(mut data) = frame?.into_data() else { continue };
            let dropped = skip.min(data.len() as u64);
            skip -= dropped;
            let data = data.split_off(dropped as usize);
            if !data.is_empty() {
                *offset += data.len() as u64;
                if size > 0 && *offset > size {
                    return Ok(());
                }
                if to.send(data).await.is_err() {
                    return Ok(());
                }
            }
        }
    }

    /// GET with what authentication is needed; over TLS first where both are allowed.
    async fn get(&self, what: &str, headers: HeaderMap) -> Result<Answer, Cause> {
        let mut last: Cause = "no scheme".into();
        for scheme in &self.schemes {
            let uri: http::Uri =
                format!("{scheme}://{}/v2/{}/{what}", self.host, self.path).parse()?;
            match self.authorised(&uri, &headers).await {
                Ok(answer) => return Ok(answer),
                Err(e) => last = e,
            }
        }
        Err(last)
    }

    async fn authorised(&self, uri: &http::Uri, headers: &HeaderMap) -> Result<Answer, Cause> {
        let with = |header: &Option<String>| -> Result<HeaderMap, Cause> {
            let mut all = headers.clone();
            if let Some(header) = header {
                let mut value = HeaderValue::from_str(header)?;
                value.set_sensitive(true);
                all.insert(AUTHORIZATION, value);
            }
            Ok(all)
        };
        let known = self.header.lock().await.clone();
        let answer = self.http.send(Method::GET, uri.clone(), with(&known)?, Bytes::new()).await?;
        if answer.response.status() != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        let demands = answer.response.headers().get_all(WWW_AUTHENTICATE).iter();
        let challenge = demands.filter_map(|h| h.to_str().ok()).find_map(auth::challenge);
        let Some(challenge) = challenge else { return Ok(answer) };
        let Some(header) = self.answer_to(challenge).await? else { return Ok(answer) };
        let answer = self
            .http
            .send(Method::GET, uri.clone(), with(&Some(header.clone()))?, Bytes::new())
            .await?;
        *self.header.lock().await = Some(header);
        Ok(answer)
    }

    async fn answer_to(&self, challenge: Challenge) -> Result<Option<String>, Cause> {
        let Challenge::Bearer { realm, service, scope } = challenge else {
            return Ok(auth::basic(&self.auth));
        };
        if !self.auth.registry_token.is_empty() {
            return Ok(Some(format!("Bearer {}", self.auth.registry_token)));
        }
        let scope = if scope.is_empty() { format!("repository:{}:pull", self.path) } else { scope };
        let query = format!("service={}&scope={}", auth::escape(&service), auth::escape(&scope));
        let mut headers = HeaderMap::new();
        let (method, uri, body) = if self.auth.identity_token.is_empty() {
            if let Some(basic) = auth::basic(&self.auth) {
                headers.insert(AUTHORIZATION, HeaderValue::from_str(&basic)?);
            }
            let sign = if realm.contains('?') { '&' } else { '?' };
            (Method::GET, format!("{realm}{sign}{query}"), String::new())
        } else {
            let form = "application/x-www-form-urlencoded";
            headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static(form));
            let token = auth::escape(&self.auth.identity_token);
            let body =
                format!("grant_type=refresh_token&client_id=trireme&{query}&refresh_token={token}");
            (Method::POST, realm, body)
        };
        let answer = self.http.send(method, uri.parse()?, headers, body.into()).await?;
        let token: Token =
            serde_json::from_slice(&self.ok(answer).await?.bytes(MAX_DOCUMENT).await?)?;
        let token = if token.token.is_empty() { token.access_token } else { token.token };
        Ok(Some(format!("Bearer {token}")))
    }

    /// The answer, or an error in the words that clients look for.
    async fn ok(&self, answer: Answer) -> Result<Answer, Cause> {
        let status = answer.response.status();
        if status.is_success() {
            return Ok(answer);
        }
        let place = format!("{}/{}", self.host, self.path);
        let said = answer.bytes(MAX_DOCUMENT).await.unwrap_or_default();
        let said = String::from_utf8_lossy(&said[..said.len().min(500)]).into_owned();
        Err(match status {
            StatusCode::NOT_FOUND => format!("{place}:{}: not found", self.wanted),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                format!("pull access denied for {place}: {status}: authorization failed: {said}")
            }
            _ => format!("{place}: {status}: {said}"),
        }
        .into())
    }
}
