//! One repository of one registry: manifests, small documents, layers.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, RANGE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body_util::BodyExt;
use registries::Endpoint;
use serde::Deserialize;
use tokio::sync::{Mutex, mpsc};

use super::Cause;
use super::auth::{self, Challenge};
use super::http::{Answer, Http, NotTls};
use crate::config::PullLimits;
use crate::cri::AuthConfig;
use crate::image::{Manifest, sha256};

const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";
/// Bytes of a manifest or configuration.
const MAX_DOCUMENT: usize = 4 << 20;
/// Times a layer's download is taken up again without having got any further.
const RETRIES: u32 = 4;
/// Indexes in indexes.
const DEEPEST_INDEX: usize = 4;

pub(super) struct Registry {
    http: Http,
    limits: PullLimits,
    /// `host[:port]` to speak to.
    host: String,
    /// Of the API, e.g. `/v2`.
    root: String,
    path: String,
    wanted: String,
    schemes: Vec<&'static str>,
    /// The registry that this is a mirror of: mirrors of several are told which.
    mirror_of: Option<String>,
    auth: AuthConfig,
    /// What is asked for where the registry does not say: `pull` or `pull,push`.
    actions: &'static str,
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
    /// `path` at one endpoint of its registry; `wanted` is a tag or a digest.
    pub(super) fn new(
        endpoint: &Endpoint,
        path: &str,
        wanted: &str,
        limits: PullLimits,
        auth: AuthConfig,
    ) -> Result<Registry, Cause> {
        Ok(Registry {
            http: Http::to(endpoint, limits)?,
            limits,
            host: endpoint.host.clone(),
            root: endpoint.path.clone(),
            path: endpoint.repository(path),
            wanted: wanted.to_owned(),
            schemes: endpoint.schemes.clone(),
            mirror_of: endpoint.mirror_of.clone(),
            auth,
            actions: "pull",
            header: Mutex::default(),
        })
    }

    /// Where it is, for errors.
    pub(super) fn place(&self) -> String {
        format!("{}://{}{}/{}", self.schemes.join(" or "), self.host, self.root, self.path)
    }

    /// For requests that change the repository.
    pub(super) fn writing(mut self) -> Registry {
        self.actions = "pull,push";
        self
    }

    pub(super) fn wanted(&self) -> &str {
        &self.wanted
    }

    /// The manifest; an index is followed to this machine's entry.
    pub(super) async fn manifest(&self) -> Result<Found, Cause> {
        let (bytes, digest) = self.manifest_bytes(&self.wanted).await?;
        let mut manifest = read_manifest(&bytes)?;
        for _ in 0..DEEPEST_INDEX {
            if manifest.config.is_some() {
                return Ok(Found { manifest, digest });
            }
            let chosen = manifest.choose().ok_or_else(|| {
                format!("no match for platform linux/{} in the index", crate::image::ARCHITECTURE)
            })?;
            checked(&chosen.digest)?;
            let (bytes, _) = self.manifest_bytes(&chosen.digest).await?;
            manifest = read_manifest(&bytes)?;
        }
        match manifest.config.is_some() {
            true => Ok(Found { manifest, digest }),
            false => Err(format!("indexes are nested deeper than {DEEPEST_INDEX}").into()),
        }
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
        checked(digest)?;
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
        checked(digest)?;
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
                    tokio::time::sleep(self.limits.retry_pause * 2u32.pow(failures)).await;
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
        let stalled = || format!("layer {digest} has stalled");
        let mut deadline = tokio::time::Instant::now() + self.limits.stall;
        let mut since = 0;
        loop {
            let next = tokio::time::timeout_at(deadline, answer.response.body_mut().frame());
            let Some(frame) = next.await.map_err(|_| stalled())? else { return Ok(()) };
            let Ok(mut data) = frame?.into_data() else { continue };
            since += data.len() as u64;
            if since >= PullLimits::LEAST {
                (since, deadline) = (0, tokio::time::Instant::now() + self.limits.stall);
            }
            let dropped = skip.min(data.len() as u64);
            skip -= dropped;
            let data = data.split_off(dropped as usize);
            if data.is_empty() {
                continue;
            }
            *offset += data.len() as u64;
            if size > 0 && *offset > size {
                return Ok(());
            }
            let sending = tokio::time::Instant::now();
            if to.send(data).await.is_err() {
                return Ok(());
            }
            // Unpacking may be slow: that is no stall of the registry's.
            deadline += sending.elapsed();
        }
    }

    /// GET with what authentication is needed; over TLS first where both are allowed.
    async fn get(&self, what: &str, headers: HeaderMap) -> Result<Answer, Cause> {
        self.ask(Method::GET, what, headers, Bytes::new()).await
    }

    /// A request about this repository.
    pub(super) async fn ask(
        &self,
        method: Method,
        what: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Answer, Cause> {
        let mut last: Cause = "no scheme".into();
        for scheme in &self.schemes {
            let uri = self.uri(scheme, what)?;
            match self.authorised(&method, &uri, &headers, body.clone()).await {
                Ok(answer) => match self.pause_asked(&answer) {
                    None => return Ok(answer),
                    // Once: a registry that is still busy then says so in its answer.
                    Some(pause) => {
                        tokio::time::sleep(pause).await;
                        return self.authorised(&method, &uri, &headers, body).await;
                    }
                },
                // Another scheme is for hosts without TLS, not for those that are not believed.
                Err(e) if !e.is::<NotTls>() && self.host.contains(':') => return Err(e),
                Err(e) => last = e,
            }
        }
        Err(last)
    }

    fn uri(&self, scheme: &str, what: &str) -> Result<http::Uri, Cause> {
        let mut text = format!("{scheme}://{}{}/{}/{what}", self.host, self.root, self.path);
        if let Some(registry) = &self.mirror_of {
            let sign = if what.contains('?') { '&' } else { '?' };
            text = format!("{text}{sign}ns={}", auth::escape(registry));
        }
        Ok(text.parse()?)
    }

    /// How long a busy registry asks to wait, if that is not too long.
    fn pause_asked(&self, answer: &Answer) -> Option<Duration> {
        let status = answer.response.status();
        let busy = [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE];
        let header = answer.response.headers().get(RETRY_AFTER).filter(|_| busy.contains(&status));
        let pause = Duration::from_secs(header?.to_str().ok()?.trim().parse().ok()?);
        (pause <= self.limits.retry_after).then_some(pause)
    }

    /// A request to a place that the registry has named.
    pub(super) async fn ask_at(
        &self,
        method: Method,
        uri: &http::Uri,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Answer, Cause> {
        if self.is_own(uri) {
            return self.authorised(&method, uri, &headers, body).await;
        }
        // Another host is told nothing about who asks.
        self.http.send(method, uri.clone(), headers, body).await
    }

    /// Whether a place is this registry, with its port spelt out or not.
    fn is_own(&self, uri: &http::Uri) -> bool {
        let port = if uri.scheme_str() == Some("https") { "443" } else { "80" };
        let full = |host: &str| match host.rsplit_once(':') {
            Some((_, end)) if !end.contains(']') => host.to_owned(),
            _ => format!("{host}:{port}"),
        };
        uri.authority().is_some_and(|a| full(a.as_str()) == full(&self.host))
    }

    async fn authorised(
        &self,
        method: &Method,
        uri: &http::Uri,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Answer, Cause> {
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
        let send = |headers| self.http.send(method.clone(), uri.clone(), headers, body.clone());
        let answer = send(with(&known)?).await?;
        if answer.response.status() != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        let demands = answer.response.headers().get_all(WWW_AUTHENTICATE).iter();
        let challenge = demands.filter_map(|h| h.to_str().ok()).find_map(auth::challenge);
        let Some(challenge) = challenge else { return Ok(answer) };
        let Some(header) = self.answer_to(challenge).await? else { return Ok(answer) };
        let answer = send(with(&Some(header.clone()))?).await?;
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
        let scope = match scope.is_empty() {
            true => format!("repository:{}:{}", self.path, self.actions),
            false => scope,
        };
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
        let uri: http::Uri = uri.parse().map_err(|e| format!("token service {uri:?}: {e}"))?;
        if uri.scheme_str() != Some("https") && !self.schemes.contains(&"http") {
            return Err(format!("token service {uri} leaves TLS").into());
        }
        let place = format!("token service {}", uri.host().unwrap_or_default());
        let answer = self.http.send(method, uri, headers, body.into()).await?;
        let status = answer.response.status();
        if status == StatusCode::UNAUTHORIZED || status == StatusCode::FORBIDDEN {
            // In the words that clients look for.
            self.ok(answer).await?;
            return Ok(None);
        }
        if !status.is_success() {
            return Err(format!("{place}: {status}").into());
        }
        let bytes = answer.bytes(MAX_DOCUMENT).await;
        let bytes = bytes.map_err(|e| format!("{place}: {e}"))?;
        let token: Token = serde_json::from_slice(&bytes)
            .map_err(|e| format!("{place}: its answer is no token: {e}"))?;
        let token = if token.token.is_empty() { token.access_token } else { token.token };
        if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(format!("{place}: its answer has no token").into());
        }
        Ok(Some(format!("Bearer {token}")))
    }

    /// The answer, or an error in the words that clients look for.
    pub(super) async fn ok(&self, answer: Answer) -> Result<Answer, Cause> {
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
                format!(
                    "{} access denied for {place}: {status}: authorization failed: {said}",
                    if self.actions == "pull" { "pull" } else { "push" }
                )
            }
            _ => format!("{place}: {status}: {said}"),
        }
        .into())
    }
}

/// A digest that something may be asked for by.
fn checked(digest: &str) -> Result<(), Cause> {
    match crate::image::is_digest(digest) {
        true => Ok(()),
        false => Err(format!("digest {digest:?} is not sha256:<64 hex digits>").into()),
    }
}

/// A manifest or an index; what is neither is told in plain words.
fn read_manifest(bytes: &[u8]) -> Result<Manifest, Cause> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Version {
        #[serde(default)]
        schema_version: u32,
        #[serde(default)]
        fs_layers: Option<serde_json::Value>,
    }
    let no_manifest = |e: serde_json::Error| format!("the registry's answer is no manifest: {e}");
    let version: Version = serde_json::from_slice(bytes).map_err(no_manifest)?;
    if version.schema_version == 1 || version.fs_layers.is_some() {
        let text = "its manifest has schema 1, which is no longer supported: push the image again \
                    with a tool of today";
        return Err(text.into());
    }
    let manifest: Manifest = serde_json::from_slice(bytes).map_err(no_manifest)?;
    if manifest.config.is_none() && manifest.manifests.is_empty() {
        return Err("the registry's answer is no manifest: it names no configuration".into());
    }
    Ok(manifest)
}
