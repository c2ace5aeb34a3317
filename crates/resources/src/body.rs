//! Request bodies: size limit, and decoding as the resource of a request wants it.

use api::Status;
use api::limits::BODY_MAX;
use api::registry::Resource;
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use serde_json::Value;

use crate::call::Call;
use crate::limits::Room;
use strategy::decode::{Format, Found, Input};
use strategy::query::FieldValidation;

/// Collects a body within the limit, as far as there is room for it.
pub async fn collect<B>(body: B, room: &Room) -> Result<Bytes, Status>
where
    B: hyper::body::Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut body = Limited::new(body, BODY_MAX);
    let (mut first, mut rest, mut taken) = (Bytes::new(), Vec::new(), Vec::new());
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(unread)?.into_data() else { continue };
        taken.extend(room.reading(first.len() + rest.len(), data.len()).await?);
        // Most bodies come in one piece, which needs no copy.
        if first.is_empty() && rest.is_empty() {
            first = data;
            continue;
        }
        if rest.is_empty() {
            rest.extend_from_slice(&first);
            first = Bytes::new();
        }
        rest.extend_from_slice(&data);
    }
    Ok(if rest.is_empty() { first } else { rest.into() })
}

fn unread(error: Box<dyn std::error::Error + Send + Sync>) -> Status {
    match error.is::<http_body_util::LengthLimitError>() {
        true => Status::too_large(BODY_MAX),
        false => Status::bad_request(format!("couldn't read the request body: {error}")),
    }
}

/// An object as a tree, with what strict validation found.
#[derive(Debug)]
pub struct Decoded {
    pub value: Value,
    pub warnings: Vec<String>,
}

/// Decodes a body of the path's kind.
pub fn decode(call: &Call<'_>, body: &[u8], format: Format) -> Result<Decoded, Status> {
    let found = call.strategy.decode(call.row, Input::Body(body, format))?;
    if let Some(audit) = &call.context.audit {
        let mut told = found.value.clone();
        // What cannot be defaulted is refused later, and told as it is.
        call.strategy.default(call.row, &mut told).unwrap_or_default();
        audit.request_object(&told);
    }
    lenient(call.row, found, call.context.validation)
}

/// Re-reads a tree that was put together from parts (a patched object).
pub fn redecode(
    call: &Call<'_>,
    tree: Value,
    validation: FieldValidation,
) -> Result<Decoded, Status> {
    let row = call.main_row();
    lenient(row, call.strategy.decode(row, Input::Tree(tree))?, validation)
}

/// The warnings that a finding makes: one a line of those that a YAML body has.
pub fn warnings_of(finding: String) -> Vec<String> {
    match finding.strip_prefix("yaml: unmarshal errors:\n") {
        Some(lines) => lines.lines().map(|line| line.trim().to_owned()).collect(),
        None => vec![finding],
    }
}

/// What strict validation found is refused, told or passed over, as the request wants it.
fn lenient(
    row: &Resource,
    Found { value, strict }: Found,
    validation: FieldValidation,
) -> Result<Decoded, Status> {
    match validation {
        FieldValidation::Strict if !strict.is_empty() => Err(Status::bad_request(format!(
            "{} in version {:?} cannot be handled as a {}: strict decoding error: {}",
            row.kind,
            row.version,
            row.kind,
            strict.join(", ")
        ))),
        FieldValidation::Ignore => Ok(Decoded { value, warnings: Vec::new() }),
        _ => Ok(Decoded { value, warnings: strict.into_iter().flat_map(warnings_of).collect() }),
    }
}
