//! What form of answer a request's headers ask for.

use api::Status;
use api::registry::Resource;
use http::{HeaderMap, header};

/// What `Accept` chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accept {
    pub encoding: Encoding,
    pub view: View,
    /// Long lists may be compressed.
    pub gzip: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Json,
    Yaml,
    Protobuf,
    Cbor,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    Whole,
    Table,
    /// `PartialObjectMetadata`: of one object, and of each that a watch shows.
    Metadata,
    /// `PartialObjectMetadataList`.
    MetadataList,
}

impl Accept {
    /// Reads `Accept` and `Accept-Encoding`; the first alternative that can be served wins.
    pub fn of(headers: &HeaderMap) -> Result<Accept, Status> {
        let text = |name| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("");
        let gzip = text(header::ACCEPT_ENCODING).split(',').any(|e| e.trim() == "gzip");
        Accept::parse(text(header::ACCEPT), gzip)
    }

    /// The form of an answer that tells of a failure: JSON when no other can be told.
    pub fn of_failure(headers: &HeaderMap) -> Encoding {
        Accept::of(headers).map_or(Encoding::Json, |accept| accept.encoding)
    }

    /// The encoding of a discovery document: the first that is asked for without another form of the object.
    pub fn of_discovery(headers: &HeaderMap) -> Result<Encoding, Status> {
        let header = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or("");
        let plain = header.split(',').filter(|alternative| !alternative.contains("as="));
        let plain: Vec<&str> = plain.collect();
        if plain.is_empty() {
            // A client that knows no other form than one that is not here.
            return Err(Status::not_acceptable(DISCOVERY));
        }
        let chosen = Accept::parse(&plain.join(","), false);
        chosen.map(|accept| accept.encoding).map_err(|_| Status::not_acceptable(DISCOVERY))
    }

    fn parse(header: &str, gzip: bool) -> Result<Accept, Status> {
        let plain = Accept { encoding: Encoding::Json, view: View::Whole, gzip };
        if header.trim().is_empty() {
            return Ok(plain);
        }
        let choice = header.split(',').find_map(|alternative| {
            let mut parts = alternative.split(';').map(str::trim);
            let encoding = match parts.next()? {
                "application/json" | "*/*" | "application/*" => Encoding::Json,
                "application/yaml" => Encoding::Yaml,
                "application/vnd.kubernetes.protobuf" => Encoding::Protobuf,
                // A watch is answered in the second whichever was named.
                "application/cbor" | "application/cbor-seq" => Encoding::Cbor,
                _ => return None,
            };
            let view = parts.filter_map(|p| p.strip_prefix("as=")).next();
            let view = match view {
                None => View::Whole,
                Some("Table") => View::Table,
                Some("PartialObjectMetadata") => View::Metadata,
                Some("PartialObjectMetadataList") => View::MetadataList,
                Some(_) => return None,
            };
            // Tables have no protobuf form; the client's list goes on to another.
            if encoding == Encoding::Protobuf && view == View::Table {
                return None;
            }
            Some(Accept { encoding, view, gzip })
        });
        choice.ok_or_else(none_available)
    }

    /// Whether what a request asks for can be shown so: known before anything is done.
    pub fn check(self, row: &Resource, list: bool) -> Result<(), Status> {
        let refused = |message: String| Err(Status::failure(406, "NotAcceptable", message));
        let package = row.group.split('.').next().filter(|p| !p.is_empty()).unwrap_or("core");
        match self.view {
            // Answers to questions are no resources: they have no columns.
            View::Table if is_question(row) => refused(
                "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf, application/cbor".into(),
            ),
            View::MetadataList if !list => refused(format!(
                "you requested PartialObjectMetadataList, but the requested object is not a list (*{package}.{})", row.kind
            )),
            View::Metadata if list => refused(format!(
                "you requested PartialObjectMetadata, but the requested object is a list (*{package}.{})", row.list_kind
            )),
            _ => Ok(()),
        }
    }
}

/// The media types of discovery.
const DISCOVERY: &str =
    "application/json, application/yaml, application/vnd.kubernetes.protobuf, application/cbor";

fn is_question(row: &Resource) -> bool {
    matches!(row.group, "authorization.k8s.io" | "authentication.k8s.io")
}

fn none_available() -> Status {
    let all = "application/json, application/yaml, application/vnd.kubernetes.protobuf, application/cbor, application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch, application/cbor-seq";
    let message = format!("406: Not Acceptable\n\nAvailable representations: {all}");
    Status::failure(406, "NotAcceptable", message).with_causes(Vec::new())
}
