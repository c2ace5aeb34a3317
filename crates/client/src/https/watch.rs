//! Following over HTTPS: list at a revision, watch from it, resume, start over on 410.

use std::sync::Arc;
use std::time::Duration;

use api::{Object, Status};
use bytes::{Buf, Bytes, BytesMut};
use http::Method;
use http_body_util::{BodyExt, Limited};
use outgoing::ReadIdle;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::mpsc::Sender;

use super::HttpsTransport;
use crate::client::percent_encode;
use crate::error::Error;
use crate::follow::{Follow, FollowEvent};
use crate::transport::Request;

/// Pause after a failed connection: long enough not to spin, short enough not to be noticed.
const RETRY_DELAY: Duration = Duration::from_millis(500);
/// Objects a page when listing (client-go's pager).
const PAGE_SIZE: usize = 500;
/// The server ends a watch after this; resuming costs nothing, and dead peers are noticed.
const WATCH_TIMEOUT_SECONDS: u32 = 300;

/// Longest pause of a watch: the server ends it before.
const WATCH_IDLE: Duration = Duration::from_secs(WATCH_TIMEOUT_SECONDS as u64 + 60);
/// Longest event: objects are far shorter.
const LINE_MAX: usize = 64 << 20;
/// Longest refusal that is read.
const REFUSAL_MAX: usize = 1 << 20;

/// Nobody listens any more.
struct Closed;

pub(super) async fn run(transport: HttpsTransport, follow: Follow, events: Sender<FollowEvent>) {
    let mut watcher = Watcher { transport, follow, events, revision: None };
    while !watcher.events.is_closed() {
        if let Err(error) = watcher.step().await {
            match error {
                Step::Closed => return,
                Step::Expired => watcher.revision = None,
                Step::Failed(error) => {
                    tracing::debug!(resource = watcher.follow.resource, %error, "follow interrupted");
                    tokio::time::sleep(RETRY_DELAY).await;
                }
            }
        }
    }
}

enum Step {
    Closed,
    Expired,
    Failed(Error),
}

impl From<Closed> for Step {
    fn from(_: Closed) -> Step {
        Step::Closed
    }
}

impl From<Error> for Step {
    fn from(error: Error) -> Step {
        if error.is_expired() { Step::Expired } else { Step::Failed(error) }
    }
}

struct Watcher {
    transport: HttpsTransport,
    follow: Follow,
    events: Sender<FollowEvent>,
    /// Where the next watch starts; `None` before the first list.
    revision: Option<String>,
}

#[derive(Deserialize)]
struct Page<'a> {
    #[serde(default)]
    metadata: PageMeta,
    #[serde(borrow, default)]
    items: Vec<&'a RawValue>,
    kind: &'a str,
    #[serde(rename = "apiVersion")]
    api_version: &'a str,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct PageMeta {
    #[serde(default)]
    resource_version: String,
    #[serde(default, rename = "continue")]
    continue_token: String,
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow)]
    object: &'a RawValue,
}

impl Watcher {
    async fn step(&mut self) -> Result<(), Step> {
        match self.revision.clone() {
            None => self.list().await,
            Some(revision) => self.watch(&revision).await,
        }
    }

    fn target(&self, extra: &str) -> String {
        let f = &self.follow;
        let root = if f.group.is_empty() { "/api".into() } else { format!("/apis/{}", f.group) };
        let mut target = format!("{root}/{}", f.version);
        if !f.namespace.is_empty() {
            target += &format!("/namespaces/{}", f.namespace);
        }
        target += &format!("/{}?{extra}", f.resource);
        for (key, value) in
            [("labelSelector", &f.label_selector), ("fieldSelector", &f.field_selector)]
        {
            if !value.is_empty() {
                target += &format!("&{key}={}", percent_encode(value));
            }
        }
        target
    }

    async fn emit(&self, event: FollowEvent) -> Result<(), Closed> {
        self.events.send(event).await.map_err(|_| Closed)
    }

    async fn list(&mut self) -> Result<(), Step> {
        let mut token = String::new();
        self.emit(FollowEvent::Reset).await?;
        loop {
            let paging = format!("limit={PAGE_SIZE}&continue={}", percent_encode(&token));
            let target = self.target(&paging);
            let request =
                Request { method: Method::GET, target: target.clone(), ..Request::default() };
            let answer = self.transport.call(request).await?;
            let page: Page<'_> = serde_json::from_slice(&answer.body)
                .map_err(|source| Error::Decode { target: target.clone(), source })?;
            for item in &page.items {
                let object = decode_item(item.get(), page.kind, page.api_version)
                    .map_err(|source| Error::Decode { target: target.clone(), source })?;
                self.emit(FollowEvent::Put(Arc::new(object))).await?;
            }
            token = page.metadata.continue_token;
            if token.is_empty() {
                let revision = page.metadata.resource_version;
                self.emit(FollowEvent::Synced(revision.parse().unwrap_or(0))).await?;
                self.revision = Some(revision);
                return Ok(());
            }
        }
    }

    async fn watch(&mut self, revision: &str) -> Result<(), Step> {
        let target = self.target(&format!(
            "watch=1&allowWatchBookmarks=true&timeoutSeconds={WATCH_TIMEOUT_SECONDS}&resourceVersion={revision}"
        ));
        let request = Request { method: Method::GET, target: target.clone(), ..Request::default() };
        let response = self.transport.send(request).await?;
        if !response.status().is_success() {
            let body = ReadIdle::new(response.into_body(), super::READ_IDLE);
            let body = Limited::new(body, REFUSAL_MAX).collect().await;
            let body = body.map(|b| b.to_bytes()).unwrap_or_default();
            let fallback = |_| Status::failure(500, "", "watch refused");
            let status: Status = serde_json::from_slice(&body).unwrap_or_else(fallback);
            return Err(Error::Api(Box::new(status)).into());
        }
        let mut body = ReadIdle::new(response.into_body(), WATCH_IDLE);
        let mut buffer = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame =
                frame.map_err(|e| Error::Transport { target: target.clone(), source: e.into() })?;
            let Ok(data) = frame.into_data() else { continue };
            // Only what is new can end a line: a long one comes in many pieces.
            let mut looked = buffer.len();
            buffer.extend_from_slice(&data);
            while let Some(end) = buffer[looked..].iter().position(|b| *b == b'\n') {
                let line = buffer.split_to(looked + end).freeze();
                buffer.advance(1);
                looked = 0;
                self.line(&target, &line).await?;
            }
            if buffer.len() > LINE_MAX {
                let source = "an event is too long".into();
                return Err(Error::Transport { target, source }.into());
            }
        }
        Ok(())
    }

    async fn line(&mut self, target: &str, line: &Bytes) -> Result<(), Step> {
        let decode = |source| Error::Decode { target: target.to_owned(), source };
        let event: Line<'_> = serde_json::from_slice(line).map_err(decode)?;
        if event.kind == "ERROR" {
            let status: Status = serde_json::from_str(event.object.get()).map_err(decode)?;
            return Err(Error::Api(Box::new(status)).into());
        }
        let object = Object::from_json(event.object.get().as_bytes(), &[]).map_err(decode)?;
        let object = Arc::new(object);
        self.revision = Some(object.revision().to_string());
        match event.kind {
            "ADDED" | "MODIFIED" => self.emit(FollowEvent::Put(object)).await?,
            "DELETED" => self.emit(FollowEvent::Delete(object)).await?,
            _bookmark => {}
        }
        Ok(())
    }
}

/// List items carry no kind of their own; typed decoding wants one.
fn decode_item(
    item: &str,
    list_kind: &str,
    api_version: &str,
) -> Result<Object, serde_json::Error> {
    let mut value: serde_json::Value = serde_json::from_str(item)?;
    let kind = list_kind.strip_suffix("List").unwrap_or(list_kind);
    if let Some(map) = value.as_object_mut() {
        map.entry("kind").or_insert_with(|| kind.into());
        map.entry("apiVersion").or_insert_with(|| api_version.into());
    }
    let revision = value["metadata"]["resourceVersion"].as_str().and_then(|v| v.parse().ok());
    Ok(Object::new(&value, revision.unwrap_or(0), &[]))
}
