//! What carries requests to the API: implemented in-process by the server, and over HTTPS.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;

use crate::error::Error;
use crate::follow::{Follow, Follower};

pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One request; bodies are JSON unless `content_type` says otherwise.
#[derive(Debug, Clone, Default)]
pub struct Request {
    pub method: http::Method,
    /// Absolute path with query, e.g. `/api/v1/pods?limit=1`.
    pub target: String,
    pub content_type: Option<&'static str>,
    pub body: Bytes,
}

/// A successful answer; failures are [`Error::Api`].
#[derive(Debug)]
pub struct Response {
    pub code: http::StatusCode,
    pub body: Bytes,
}

/// Carries requests. Cheap to share; every method may be called concurrently.
pub trait Transport: Send + Sync + 'static {
    /// Sends one request and waits for the whole answer.
    fn call(&self, request: Request) -> BoxFuture<'_, Result<Response, Error>>;

    /// Follows a collection: its state, then every change after it, for as long as the follower
    /// lives. Interruptions are bridged inside; when events were missed the stream starts over
    /// with [`crate::FollowEvent::Reset`].
    fn follow(&self, follow: Follow) -> Follower;
}
