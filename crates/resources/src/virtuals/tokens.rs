//! TokenRequest: a bound token for a service account (KEP-1205).

use api::Status;
use pki::{TokenIssuer, TokenRequest};
use serde_json::Value;

use crate::call::Call;
use crate::verbs::Answer;
use strategy::meta;
use validation::items;

const GROUP: &str = "authentication.k8s.io";
const KIND: &str = "TokenRequest";
/// Default and least life of a token, seconds.
const LIFE_DEFAULT: i64 = 3600;
const LIFE_MIN: i64 = 600;
/// Longest: 2^32 seconds, as validated by upstream.
const LIFE_MAX: i64 = 1 << 32;

pub(super) fn request(
    tokens: &TokenIssuer,
    call: &Call<'_>,
    mut sent: Value,
) -> Result<Answer, Status> {
    let name = call.context.info.name.as_str();
    check_metadata(call, &sent)?;
    let key = call.row.key(&call.context.info.namespace, name);
    let account =
        call.resources.collection(call.main_row()).get(&key).ok_or_else(|| call.not_found())?;
    check_uid(call, &sent, &account.meta().uid)?;
    let spec = &sent["spec"];
    let life = life(spec)?;
    let (pod, node, secret) = bound_object(call, spec)?;
    let audiences: Vec<String> =
        items(spec, "audiences").filter_map(|a| a.as_str()).map(str::to_owned).collect();
    let request = TokenRequest {
        namespace: call.context.info.namespace.clone(),
        service_account: name.to_owned(),
        service_account_uid: account.meta().uid.to_string(),
        audiences: audiences.clone(),
        life,
        pod,
        node,
        secret,
        id: uuid::Uuid::new_v4().to_string(),
    };
    let now = call.context.now.as_second();
    let token = tokens.issue(&request, now).map_err(|e| Status::internal(e.to_string()))?;
    let expires = call.context.now + jiff::SignedDuration::from_secs(life);
    sent["spec"]["expirationSeconds"] = life.into();
    if audiences.is_empty() {
        sent["spec"]["audiences"] = serde_json::json!([tokens.api_audience()]);
    }
    let stamp = expires.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    sent["status"] = serde_json::json!({"token": token, "expirationTimestamp": stamp});
    let meta = meta::of(&mut sent);
    meta.insert("name".into(), name.into());
    meta.insert("namespace".into(), call.context.info.namespace.as_str().into());
    meta.insert("uid".into(), request.service_account_uid.into());
    meta.insert("creationTimestamp".into(), call.context.now_text().into());
    Ok(Answer::Tree { code: 201, value: sent })
}

/// The body names the account of the path, if any.
fn check_metadata(call: &Call<'_>, sent: &Value) -> Result<(), Status> {
    let (path, part) =
        ((&call.context.info.name, &call.context.info.namespace), |key| meta::text(sent, key));
    for (key, sent, wanted) in
        [("name", part("name"), path.0), ("namespace", part("namespace"), path.1)]
    {
        if !sent.is_empty() && sent != wanted {
            let detail = format!("must match the service account {key} if specified");
            let cause = meta::invalid(format!("metadata.{key}"), &sent.into(), &detail);
            return Err(Status::invalid(GROUP, KIND, path.0, vec![cause]));
        }
    }
    Ok(())
}

/// The body's uid is the account's, if any.
fn check_uid(call: &Call<'_>, sent: &Value, own: &str) -> Result<(), Status> {
    let asked = meta::text(sent, "uid");
    if asked.is_empty() || asked == own {
        return Ok(());
    }
    let why = format!(
        "the UID in the token request ({asked}) does not match the UID of the service account ({own})"
    );
    Err(Status::conflict(GROUP, KIND, &call.context.info.name, &why))
}

fn life(spec: &Value) -> Result<i64, Status> {
    let life = spec["expirationSeconds"].as_i64().unwrap_or(LIFE_DEFAULT);
    if (LIFE_MIN..=LIFE_MAX).contains(&life) {
        return Ok(life);
    }
    let detail = match life < LIFE_MIN {
        true => "may not specify a duration less than 10 minutes",
        false => "may not specify a duration larger than 2^32 seconds",
    };
    let cause = meta::invalid("spec.expirationSeconds", &life.into(), detail);
    Err(Status::invalid(GROUP, KIND, "", vec![cause]))
}

type Bound = Option<(String, String)>;

/// Pod, node and secret of the token: they must exist, and be the ones that were meant.
fn bound_object(call: &Call<'_>, spec: &Value) -> Result<(Bound, Bound, Bound), Status> {
    let reference = &spec["boundObjectRef"];
    if !reference.is_object() {
        return Ok((None, None, None));
    }
    let text = |key: &str| reference[key].as_str().unwrap_or("");
    let (kind, name) = (text("kind"), text("name"));
    let (group, version) = text("apiVersion").split_once('/').unwrap_or(("", text("apiVersion")));
    let local = || format!("{}/{name}", call.context.info.namespace);
    let (resource, key) = match (group, kind) {
        ("", "Pod") => ("pods", local()),
        ("", "Secret") => ("secrets", local()),
        ("", "Node") => ("nodes", name.to_owned()),
        _ => {
            return Err(Status::bad_request(format!(
                "cannot bind token to object of type {group}/{version}, Kind={kind}"
            )));
        }
    };
    let object = call.read(("", "v1", resource), &key);
    let object = object.ok_or_else(|| Status::not_found("", resource, name))?;
    let account = call.context.info.name.as_str();
    if kind == "Pod" && object["spec"]["serviceAccountName"] != account {
        return Err(Status::bad_request(format!(
            "cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount name."
        )));
    }
    let uid = meta::text(&object, "uid").to_owned();
    let asked = text("uid");
    if !asked.is_empty() && asked != uid {
        let why = format!(
            "the UID in the bound object reference ({asked}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        return Err(Status::conflict("", kind, name, &why));
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
