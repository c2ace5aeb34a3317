//! OpenAPI documents as answers: tags, kept copies, media types.
//!
//! Documents are made on demand and shared for a while (`documents`): a client asks once and caches by the hash in
//! the index.

use api::Status;
use bytes::Bytes;
use discovery::openapi::{self, Sources};
use http::{HeaderMap, HeaderValue, Response, header};
use resources::respond::{self, Body};
use serde_json::Value;
use strategy::query::Query;

use crate::parts::Parts;

fn sources(server: &Parts) -> Sources {
    Sources::new(server.resources.rows(), server.resources.customs.installed())
}

/// A document's entity tag; the empty path is version 2's.
async fn tag(server: &Parts, sources: &Sources, path: &str) -> Result<String, Status> {
    let published = published_tag(server, path);
    let make = || Ok(sources.digest(path, &published).into());
    let name = format!("tag {path} {published}");
    let tag = server.documents.get(sources.installed(), &name, make).await?;
    Ok(String::from_utf8_lossy(&tag).into_owned())
}

/// Changes when what extension servers add to a document does: to that of version 2.
fn published_tag(server: &Parts, path: &str) -> String {
    if !path.is_empty() {
        return String::new();
    }
    let all = server.aggregator.published();
    all.iter().map(|(prefix, published)| format!("{prefix} {}\n", published.tag)).collect()
}

/// `GET /openapi/v3`.
pub(crate) async fn v3_index(server: &Parts) -> Result<Response<Body>, Status> {
    let sources = sources(server);
    let make = || Ok(sources.index().to_string().into());
    let mut index = server.documents.get(sources.installed(), "openapi/v3", make).await?;
    let extensions = server.aggregator.served();
    if !extensions.is_empty() {
        let tree: Result<Value, _> = serde_json::from_slice(&index);
        let mut tree = tree.map_err(|e| Status::internal(e.to_string()))?;
        extensions.add_open_api(&mut tree);
        index = tree.to_string().into();
    }
    Ok(respond::shared(200, "application/json", index))
}

/// The answer to who has the present document already.
fn unchanged(headers: &HeaderMap, tag: &str) -> Option<Response<Body>> {
    let known = headers.get(header::IF_NONE_MATCH)?.to_str().ok()?;
    let is_known = known.split(',').any(|one| one.trim().trim_matches('"') == tag);
    is_known.then(|| respond::with_code(304))
}

fn tagged(mut response: Response<Body>, tag: &str) -> Response<Body> {
    if let Ok(value) = HeaderValue::from_str(&format!("\"{tag}\"")) {
        response.headers_mut().insert(header::ETAG, value);
    }
    response
}

/// `GET /openapi/v3/<path>`. Who names the document's hash may keep it for ever; who names another
/// is sent to the present one.
pub(crate) async fn v3(
    server: &Parts,
    path: &str,
    query: &Query,
    headers: &HeaderMap,
) -> Result<Response<Body>, Status> {
    let sources = sources(server);
    if !sources.serves(path) {
        return Err(Status::no_such_path());
    }
    let tag = tag(server, &sources, path).await?;
    let hash = query.get("hash").filter(|hash| !hash.is_empty());
    let mut response = match unchanged(headers, &tag) {
        Some(response) => response,
        None => v3_document(server, &sources, path).await?,
    };
    match hash {
        Some(hash) if hash != tag => {
            response = respond::with_code(301);
            let place = HeaderValue::from_str(&format!("/openapi/v3/{path}?hash={tag}"));
            response.headers_mut().extend(place.ok().map(|place| (header::LOCATION, place)));
        }
        Some(_) => {
            let forever = HeaderValue::from_static("public, immutable");
            response.headers_mut().insert(header::CACHE_CONTROL, forever);
        }
        None => {}
    }
    Ok(tagged(response, &tag))
}

async fn v3_document(
    server: &Parts,
    sources: &Sources,
    path: &str,
) -> Result<Response<Body>, Status> {
    let make = || sources.v3(path).map(|document| Bytes::from(document.to_string()));
    let name = format!("openapi/v3/{path}");
    let document = server.documents.get(sources.installed(), &name, make).await?;
    Ok(respond::shared(200, "application/json", document))
}

/// The media type of the document in protobuf, in the two spellings that clients use.
const PROTOBUF: [&str; 2] = [
    "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
    "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
];

/// `GET /openapi/v2`, as JSON or protobuf.
pub(crate) async fn v2(server: &Parts, headers: &HeaderMap) -> Result<Response<Body>, Status> {
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or("");
    let types: Vec<&str> = accept.split(',').map(strategy::decode::media_type).collect();
    // Answered in the second spelling: the first is no media type by RFC 2045.
    let binary = PROTOBUF.iter().any(|kind| types.contains(kind)).then_some(PROTOBUF[1]);
    let json_asked = accept.is_empty()
        || types.iter().any(|t| matches!(*t, "application/json" | "application/*" | "*/*"));
    if binary.is_none() && !json_asked {
        return Err(Status::not_acceptable("application/json"));
    }
    let sources = sources(server);
    let tag = tag(server, &sources, "").await?;
    if let Some(response) = unchanged(headers, &tag) {
        return Ok(tagged(response, &tag));
    }
    let installed = sources.installed();
    let response = match binary {
        Some(kind) => {
            let make = || Ok(openapi::protobuf(&v2_document(server, &sources)).into());
            let name = format!("openapi/v2 protobuf {tag}");
            let document = server.documents.get(installed, &name, make).await?;
            respond::shared(200, kind, document)
        }
        None => {
            let make = || Ok(v2_document(server, &sources).to_string().into());
            let name = format!("openapi/v2 {tag}");
            let document = server.documents.get(installed, &name, make).await?;
            respond::shared(200, "application/json", document)
        }
    };
    Ok(tagged(response, &tag))
}

/// The document of version 2, with what extension servers publish.
fn v2_document(server: &Parts, sources: &Sources) -> Value {
    let mut document = sources.v2();
    for (_, published) in server.aggregator.published() {
        let more = serde_json::from_slice(&published.json).unwrap_or_default();
        openapi::merge(&mut document, more);
    }
    document
}
