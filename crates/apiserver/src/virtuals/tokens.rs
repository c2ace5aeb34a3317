//! TokenRequest: a bound token for a service account (KEP-1205).

use api::Status;
use pki::TokenRequest;
use serde_json::Value;

use crate::call::Call;
use crate::meta;
use crate::verbs::Answer;
use kinds::items;

/// Default and least life of a token, seconds.
const LIFE_DEFAULT: i64 = 3600;
const LIFE_MIN: i64 = 600;
/// Longest: 2^32 seconds, as validated by the original.
const LIFE_MAX: i64 = 1 << 32;

pub(super) fn request(call: &Call<'_>, mut sent: Value) -> Result<Answer, Status> {
    let name = call.info.name.as_str();
    let key = call.row.key(&call.info.namespace, name);
    let account =
        call.server.collection(call.main_row()).get(&key).ok_or_else(|| call.not_found())?;
    let spec = &sent["spec"];
    let life = spec["expirationSeconds"].as_i64().unwrap_or(LIFE_DEFAULT);
    if !(LIFE_MIN..=LIFE_MAX).contains(&life) {
        let detail = if life < LIFE_MIN {
            "may not specify a duration less than 10 minutes"
        } else {
            "may not specify a duration larger than 2^32 seconds"
        };
        let cause = meta::invalid("spec.expirationSeconds", &life.into(), detail);
        return Err(Status::invalid("authentication.k8s.io", "TokenRequest", "", vec![cause]));
    }
    let (pod, node, secret) = bound_object(call, spec)?;
    let tokens = &call.server.config.tokens;
    let audiences: Vec<String> =
        items(spec, "audiences").filter_map(|a| a.as_str()).map(str::to_owned).collect();
    let request = TokenRequest {
        namespace: call.info.namespace.clone(),
        service_account: name.to_owned(),
        service_account_uid: account.meta().uid.to_string(),
        audiences: audiences.clone(),
        life,
        pod,
        node,
        secret,
        id: uuid::Uuid::new_v4().to_string(),
    };
    let now = call.now.as_second();
    let token = tokens.issue(&request, now).map_err(|e| Status::internal(e.to_string()))?;
    let expires = call.now + jiff::SignedDuration::from_secs(life);
    sent["spec"]["expirationSeconds"] = life.into();
    if audiences.is_empty() {
        sent["spec"]["audiences"] = serde_json::json!([tokens.api_audience()]);
    }
    let stamp = expires.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    sent["status"] = serde_json::json!({"token": token, "expirationTimestamp": stamp});
    let meta = meta::of(&mut sent);
    meta.insert("name".into(), name.into());
    meta.insert("namespace".into(), call.info.namespace.as_str().into());
    meta.insert("creationTimestamp".into(), call.now_text().into());
    Ok(Answer::Tree { code: 201, value: sent })
}

type Bound = Option<(String, String)>;

/// Pod, node and secret of the token: they must exist, and be the ones that were meant.
fn bound_object(call: &Call<'_>, spec: &Value) -> Result<(Bound, Bound, Bound), Status> {
    let reference = &spec["boundObjectRef"];
    let Some(kind) = reference["kind"].as_str() else { return Ok((None, None, None)) };
    let name = reference["name"].as_str().unwrap_or("");
    let (resource, key) = match kind {
        "Pod" => ("pods", format!("{}/{name}", call.info.namespace)),
        "Secret" => ("secrets", format!("{}/{name}", call.info.namespace)),
        "Node" => ("nodes", name.to_owned()),
        other => {
            return Err(Status::bad_request(format!(
                "cannot bind token for serviceaccount {:?} to object of kind {other:?}",
                call.info.name
            )));
        }
    };
    let object = call.read(("", "v1", resource), &key);
    let object = object.ok_or_else(|| Status::not_found("", resource, name))?;
    let uid = meta::text(&object, "uid").to_owned();
    let asked = reference["uid"].as_str().unwrap_or("");
    if !asked.is_empty() && asked != uid {
        let why = format!(
            "the UID in the bound object reference ({asked}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        return Err(Status::conflict("", resource, name, &why));
    }
    let bound = Some((name.to_owned(), uid));
    Ok(match kind {
        "Pod" => (bound, node_of(call, &object), None),
        "Secret" => (None, None, bound),
        _ => (None, bound, None),
    })
}

/// Tokens of pods name the node as well (KEP-4193).
fn node_of(call: &Call<'_>, pod: &Value) -> Bound {
    let name = pod["spec"]["nodeName"].as_str().filter(|n| !n.is_empty())?;
    let node = call.read(("", "v1", "nodes"), name);
    Some((name.to_owned(), node.map_or(String::new(), |n| meta::text(&n, "uid").to_owned())))
}
