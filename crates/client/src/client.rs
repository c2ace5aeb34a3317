//! Typed requests over any transport.

use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::codec::Codec;
use crate::error::Error;
use crate::follow::{Follow, Follower};
use crate::transport::{Request, Response, Transport};

/// A kind that can be read and written: a generated object type that has a [`Codec`].
pub trait Resource:
    k8s_openapi::Metadata<Ty = ObjectMeta>
    + Codec
    + Serialize
    + DeserializeOwned
    + Clone
    + Debug
    + Send
    + Sync
    + 'static
{
    /// Its place in the API.
    fn id() -> ResourceId {
        ResourceId { group: Self::GROUP, version: Self::VERSION, resource: Self::URL_PATH_SEGMENT }
    }
}

impl<K> Resource for K where
    K: k8s_openapi::Metadata<Ty = ObjectMeta>
        + Codec
        + Serialize
        + DeserializeOwned
        + Clone
        + Debug
        + Send
        + Sync
        + 'static
{
}

/// Group, version and plural of a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ResourceId {
    pub group: &'static str,
    pub version: &'static str,
    pub resource: &'static str,
}

impl ResourceId {
    /// The path of a collection (`name` empty) or an object; `namespace` empty when cluster-scoped.
    pub fn path(&self, namespace: &str, name: &str) -> String {
        let mut path = match self.group {
            "" => format!("/api/{}", self.version),
            group => format!("/apis/{group}/{}", self.version),
        };
        if !namespace.is_empty() {
            path += &format!("/namespaces/{namespace}");
        }
        path += "/";
        path += self.resource;
        if !name.is_empty() {
            path += "/";
            path += name;
        }
        path
    }
}

/// A patch and its media type.
#[derive(Debug, Clone)]
pub enum Patch {
    /// RFC 6902.
    Json(Value),
    /// RFC 7396.
    Merge(Value),
    /// Upstream's strategic merge.
    Strategic(Value),
    /// Server-side apply of a partial object; `force` takes ownership in conflicts.
    Apply { manager: String, force: bool, object: Value },
}

/// Options of a list.
#[derive(Debug, Clone, Default)]
pub struct ListParams {
    pub label_selector: String,
    pub field_selector: String,
}

/// Options of a delete.
#[derive(Debug, Clone, Default)]
pub struct DeleteParams {
    pub grace_period_seconds: Option<i64>,
    /// `Background`, `Foreground` or `Orphan`.
    pub propagation: Option<&'static str>,
    /// Preconditions.
    pub uid: Option<String>,
    pub resource_version: Option<String>,
}

impl DeleteParams {
    fn body(&self) -> Value {
        let mut body = json!({"kind": "DeleteOptions", "apiVersion": "v1"});
        if let Some(seconds) = self.grace_period_seconds {
            body["gracePeriodSeconds"] = seconds.into();
        }
        if let Some(policy) = self.propagation {
            body["propagationPolicy"] = policy.into();
        }
        if let Some(uid) = &self.uid {
            body["preconditions"]["uid"] = uid.as_str().into();
        }
        if let Some(revision) = &self.resource_version {
            body["preconditions"]["resourceVersion"] = revision.as_str().into();
        }
        body
    }
}

/// The API, typed. Clones share the transport.
#[derive(Clone)]
pub struct Client {
    transport: Arc<dyn Transport>,
}

impl Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

impl Client {
    pub fn new(transport: Arc<dyn Transport>) -> Client {
        Client { transport }
    }

    /// An untyped request; failures of the server are [`Error::Api`].
    pub async fn call(&self, request: Request) -> Result<Response, Error> {
        self.transport.call(request).await
    }

    pub fn follow(&self, follow: Follow) -> Follower {
        self.transport.follow(follow)
    }

    pub async fn get<K: Resource>(&self, namespace: &str, name: &str) -> Result<K, Error> {
        self.object(Method::GET, K::id().path(namespace, name), None, Bytes::new()).await
    }

    /// The items, and the list's resource version. An empty `namespace` lists all of them.
    pub async fn list<K: Resource>(
        &self,
        namespace: &str,
        params: &ListParams,
    ) -> Result<(Vec<K>, String), Error> {
        let mut target = K::id().path(namespace, "") + "?";
        for (key, value) in
            [("labelSelector", &params.label_selector), ("fieldSelector", &params.field_selector)]
        {
            if !value.is_empty() {
                target += &format!("{key}={}&", percent_encode(value));
            }
        }
        let body = self.answer(Method::GET, &target, None, Bytes::new()).await?;
        let (items, metadata) =
            K::decode_list(&body).map_err(|source| Error::Decode { target, source })?;
        Ok((items, metadata.resource_version.unwrap_or_default()))
    }

    pub async fn create<K: Resource>(&self, namespace: &str, object: &K) -> Result<K, Error> {
        let target = K::id().path(namespace, "");
        let body = encoded(&target, object.encode())?;
        self.object(Method::POST, target, None, body).await
    }

    pub async fn update<K: Resource>(&self, object: &K) -> Result<K, Error> {
        self.put(object, "").await
    }

    pub async fn update_status<K: Resource>(&self, object: &K) -> Result<K, Error> {
        self.put(object, "/status").await
    }

    async fn put<K: Resource>(&self, object: &K, subresource: &str) -> Result<K, Error> {
        let meta = object.metadata();
        let namespace = meta.namespace.as_deref().unwrap_or("");
        let name = meta.name.as_deref().unwrap_or("");
        let target = K::id().path(namespace, name) + subresource;
        let body = encoded(&target, object.encode())?;
        self.object(Method::PUT, target, None, body).await
    }

    pub async fn patch<K: Resource>(
        &self,
        namespace: &str,
        name: &str,
        patch: &Patch,
    ) -> Result<K, Error> {
        self.patch_path(K::id().path(namespace, name), patch).await
    }

    pub async fn patch_status<K: Resource>(
        &self,
        namespace: &str,
        name: &str,
        patch: &Patch,
    ) -> Result<K, Error> {
        self.patch_path(K::id().path(namespace, name) + "/status", patch).await
    }

    async fn patch_path<K: Resource>(&self, mut target: String, patch: &Patch) -> Result<K, Error> {
        let (content_type, body) = match patch {
            Patch::Json(v) => ("application/json-patch+json", v),
            Patch::Merge(v) => ("application/merge-patch+json", v),
            Patch::Strategic(v) => ("application/strategic-merge-patch+json", v),
            Patch::Apply { manager, force, object } => {
                target += &format!("?fieldManager={}&force={force}", percent_encode(manager));
                ("application/apply-patch+yaml", object)
            }
        };
        let body = encode(&target, body)?;
        self.object(Method::PATCH, target, Some(content_type), body).await
    }

    /// Asks for deletion; the object may linger for its grace period and finalizers.
    pub async fn delete<K: Resource>(
        &self,
        namespace: &str,
        name: &str,
        params: &DeleteParams,
    ) -> Result<(), Error> {
        let target = K::id().path(namespace, name);
        let body = encode(&target, &params.body())?;
        let request = Request { method: Method::DELETE, target, content_type: None, body };
        self.call(request).await.map(drop)
    }

    /// Creates a subresource object such as a binding, an eviction or a token request.
    pub async fn post_subresource<K: Resource, B: Serialize, T: DeserializeOwned>(
        &self,
        namespace: &str,
        name: &str,
        subresource: &str,
        body: &B,
    ) -> Result<T, Error> {
        let target = format!("{}/{subresource}", K::id().path(namespace, name));
        let body = encode(&target, body)?;
        self.send(Method::POST, target, None, body).await
    }

    /// Sends a request whose answer decodes as `T`.
    pub async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        target: String,
        content_type: Option<&'static str>,
        body: Bytes,
    ) -> Result<T, Error> {
        let body = self.answer(method, &target, content_type, body).await?;
        api::typed::from_slice(&body).map_err(|source| Error::Decode { target, source })
    }

    /// Sends a request whose answer is an object of a kind.
    async fn object<K: Resource>(
        &self,
        method: Method,
        target: String,
        content_type: Option<&'static str>,
        body: Bytes,
    ) -> Result<K, Error> {
        let body = self.answer(method, &target, content_type, body).await?;
        K::decode(&body).map_err(|source| Error::Decode { target, source })
    }

    async fn answer(
        &self,
        method: Method,
        target: &str,
        content_type: Option<&'static str>,
        body: Bytes,
    ) -> Result<Bytes, Error> {
        let request = Request { method, target: target.to_owned(), content_type, body };
        self.call(request).await.map(|response| response.body)
    }
}

fn encode<T: Serialize>(target: &str, object: &T) -> Result<Bytes, Error> {
    encoded(target, serde_json::to_vec(object))
}

fn encoded(target: &str, encoded: Result<Vec<u8>, serde_json::Error>) -> Result<Bytes, Error> {
    encoded.map(Bytes::from).map_err(|source| Error::Encode { target: target.into(), source })
}

/// Percent-encodes a query value (RFC 3986 unreserved characters stay).
pub fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for b in text.bytes() {
        match b {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(b as char)
            }
            _ => out += &format!("%{b:02X}"),
        }
    }
    out
}
