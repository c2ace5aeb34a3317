//! Requests that are answered rather than stored: reviews, tokens, bindings, evictions, scales.

mod binding;
mod budget;
mod eviction;
mod reviews;
pub mod scale;
mod tokens;

use api::Status;
use bytes::Bytes;
use serde_json::Value;

use crate::admit::Admitted;
use crate::body;
use crate::call::Call;
use crate::identity::Identity;
use crate::managed;
use crate::verbs::Answer;
use strategy::decode::Format;
use strategy::meta;

/// Handles a POST to a resource that is not a collection; `None` when it is one.
pub async fn create(
    identity: &Identity,
    call: &Call<'_>,
    body: &Bytes,
    content_type: &str,
) -> Option<Result<Answer, Status>> {
    let row = call.row;
    let kind = match (row.group, row.name, row.subresource) {
        ("", "pods", "binding") | ("", "bindings", "") => Kind::Binding,
        ("", "pods", "eviction") => Kind::Eviction,
        ("", "serviceaccounts", "token") => Kind::Token,
        ("authentication.k8s.io", "tokenreviews", _) => Kind::TokenReview,
        ("authentication.k8s.io", "selfsubjectreviews", _) => Kind::SelfReview,
        ("authorization.k8s.io", "selfsubjectrulesreviews", _) => Kind::Rules,
        ("authorization.k8s.io", _, _) => Kind::Access,
        _ => return None,
    };
    Some(answer(identity, call, kind, (body, content_type)).await)
}

enum Kind {
    Binding,
    Eviction,
    Token,
    TokenReview,
    SelfReview,
    Rules,
    Access,
}

async fn answer(
    identity: &Identity,
    call: &Call<'_>,
    kind: Kind,
    (body, content_type): (&Bytes, &str),
) -> Result<Answer, Status> {
    let mut sent = decode(call, body, content_type)?;
    if matches!(kind, Kind::TokenReview | Kind::Access) {
        // These answer with the object they were sent, which has managers like any.
        managed::track(call, None, &mut sent)?;
    }
    // The form of a binding without a pod in its path takes the name from its body.
    let named = meta::text(&sent, "name").to_owned();
    let in_path = call.context.info.name.as_str();
    let name = if in_path.is_empty() { &named } else { in_path };
    Admitted::created(name).admit(call, &mut sent).await?;
    match kind {
        Kind::Binding => binding::bind(call, sent).await,
        Kind::Eviction => eviction::evict(call, sent).await,
        Kind::Token => tokens::request(&identity.tokens, call, sent),
        Kind::TokenReview => reviews::token(identity, call, sent).await,
        Kind::SelfReview => Ok(reviews::whoami(call, sent)),
        Kind::Rules => reviews::rules(identity, call, sent),
        Kind::Access => reviews::access(identity, call, sent).await,
    }
}

fn decode(call: &Call<'_>, body: &Bytes, content_type: &str) -> Result<Value, Status> {
    let format = Format::of(content_type)?;
    let decoded = body::decode(call, body, format)?;
    decoded.warnings.into_iter().for_each(|w| call.context.warn(w));
    Ok(decoded.value)
}

/// GET, PUT and PATCH of `/scale`; `None` for other paths.
pub async fn scale(
    call: &Call<'_>,
    verb: &str,
    body: &Bytes,
    content_type: &str,
) -> Option<Result<Answer, Status>> {
    if call.row.subresource != "scale" {
        return None;
    }
    Some(match verb {
        "get" => scale::get(call).await,
        "update" => match decode(call, body, content_type) {
            Ok(sent) => scale::update(call, &sent).await,
            Err(status) => Err(status),
        },
        "patch" => scale::patch(call, body, content_type).await,
        _ => Err(Status::method_not_allowed()),
    })
}

/// Done, with nothing to show.
fn done() -> Answer {
    let status = serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201,
    });
    Answer::Tree { code: 201, value: status }
}
