//! What form of answer a request's headers ask for.

use api::Status;
use http::{HeaderMap, header};

/// What `Accept` chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Accept {
    pub(crate) encoding: Encoding,
    pub(crate) view: View,
    /// Long lists may be compressed.
    pub(crate) gzip: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Json,
    Yaml,
    Protobuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum View {
    Whole,
    Table,
    Metadata,
}

impl Accept {
    /// Reads `Accept` and `Accept-Encoding`; the first alternative that can be served wins.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Accept, Status> {
        let text = |name| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("");
        let gzip = text(header::ACCEPT_ENCODING).split(',').any(|e| e.trim() == "gzip");
        Accept::parse(text(header::ACCEPT), gzip)
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
                _ => return None,
            };
            let view = parts.filter_map(|p| p.strip_prefix("as=")).next();
            let view = match view {
                None => View::Whole,
                Some("Table") => View::Table,
                Some("PartialObjectMetadata" | "PartialObjectMetadataList") => View::Metadata,
                Some(_) => return None,
            };
            // Tables have no protobuf form; the client's list goes on to another.
            if encoding == Encoding::Protobuf && view == View::Table {
                return None;
            }
            Some(Accept { encoding, view, gzip })
        });
        choice.ok_or_else(|| {
            let all = "application/json, application/yaml, application/vnd.kubernetes.protobuf, application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch";
            let message = format!("406: Not Acceptable\n\nAvailable representations: {all}");
            Status::failure(406, "NotAcceptable", message).with_causes(Vec::new())
        })
    }
}
