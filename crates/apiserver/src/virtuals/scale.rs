//! `autoscaling/v1 Scale` of everything that has replicas.

use api::Status;
use bytes::Bytes;
use serde_json::{Value, json};

use crate::call::Call;
use crate::decode::media_type;
use crate::verbs::Answer;
use crate::verbs::patch::{
    applied_body, check_options, is_apply, json_body, must_be_operations, unprocessable,
};
use crate::verbs::update::{Operation, change};

/// The Scale view of an object.
fn view(call: &Call<'_>, object: &Value) -> Value {
    let meta = &object["metadata"];
    let mut scale = json!({
        "kind": "Scale", "apiVersion": call.row.kind_api_version(),
        "metadata": {
            "name": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"],
            "resourceVersion": meta["resourceVersion"], "creationTimestamp": meta["creationTimestamp"],
        },
        "spec": {},
    });
    let paths = call.strategy.scale_paths();
    let number = |path: &str| at(object, path).and_then(Value::as_i64).unwrap_or(0);
    scale["status"] = json!({"replicas": number(&paths.status_replicas)});
    if number(&paths.spec_replicas) != 0 {
        scale["spec"]["replicas"] = number(&paths.spec_replicas).into();
    }
    let selector = match paths.selector {
        None => selector_text(&object["spec"]["selector"]),
        Some(path) => at(object, &path).and_then(Value::as_str).unwrap_or("").to_owned(),
    };
    if !selector.is_empty() {
        scale["status"]["selector"] = selector.into();
    }
    scale
}

fn at<'v>(object: &'v Value, path: &str) -> Option<&'v Value> {
    path.split('.').try_fold(object, |value, key| value.get(key))
}

/// The selector as text; replication controllers select by a plain map.
fn selector_text(selector: &Value) -> String {
    let is_map = !selector["matchLabels"].is_object() && !selector["matchExpressions"].is_array();
    let whole = json!({"matchLabels": selector});
    printers::plain_selector(if is_map { &whole } else { selector }).unwrap_or_default()
}

pub(super) async fn get(call: &Call<'_>) -> Result<Answer, Status> {
    let collection = call.resources.collection(call.main_row());
    let object = collection.get(&call.key()).ok_or_else(|| call.not_found())?;
    Ok(Answer::Tree { code: 200, value: view(call, &call.strategy.read(&object).await?) })
}

pub(super) async fn update(call: &Call<'_>, sent: &Value) -> Result<Answer, Status> {
    set(call, |_| Ok(sent.clone())).await
}

pub(super) async fn patch(
    call: &Call<'_>,
    body: &Bytes,
    content_type: &str,
) -> Result<Answer, Status> {
    let media = media_type(content_type);
    check_options(call, is_apply(media))?;
    if is_apply(media) {
        let (applied, _) = applied_body(body, media)?;
        let answer = change(call, Operation::Apply, |object| {
            let object = crate::managed::apply_scale(call, object, &applied)?;
            let replicas = at(&object, &call.strategy.scale_paths().spec_replicas)
                .and_then(Value::as_i64)
                .unwrap_or(0);
            check_replicas(call, replicas)?;
            Ok(object)
        });
        return viewed(call, answer.await?).await;
    }
    let patch = json_body(body)?;
    if media == "application/json-patch+json" {
        must_be_operations(&patch)?;
    }
    set(call, |scale| {
        let mut scale = scale.clone();
        match media {
            "application/json-patch+json" => api::patch::apply_json_patch(&mut scale, &patch)
                .map_err(|_| unprocessable())?,
            "application/merge-patch+json" | "application/strategic-merge-patch+json" => {
                api::patch::apply_merge_patch(&mut scale, &patch);
            }
            _ => return Err(Status::unsupported_media_type("application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json")),
        }
        Ok(scale)
    })
    .await
}

/// Writes the replicas of the scale that `compute` makes of the present one.
async fn set(
    call: &Call<'_>,
    compute: impl Fn(&Value) -> Result<Value, Status>,
) -> Result<Answer, Status> {
    let answer = change(call, Operation::Update, |object| {
        let scale = compute(&view(call, object))?;
        let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
        check_replicas(call, replicas)?;
        let mut object = object.clone();
        call.strategy.scale_paths().set_replicas(&mut object, replicas);
        let based_on = scale["metadata"]["resourceVersion"].clone();
        let meta = crate::meta::of(&mut object);
        let same = meta.get("resourceVersion") == Some(&based_on);
        if same || based_on.is_null() {
            meta.remove("resourceVersion");
        } else {
            meta.insert("resourceVersion".into(), based_on);
        }
        Ok(object)
    })
    .await?;
    viewed(call, answer).await
}

fn check_replicas(call: &Call<'_>, replicas: i64) -> Result<(), Status> {
    if replicas >= 0 {
        return Ok(());
    }
    let detail = "must be greater than or equal to 0";
    let cause = crate::meta::invalid("spec.replicas", &replicas.into(), detail);
    Err(Status::invalid("autoscaling", "Scale", &call.context.info.name, vec![cause]))
}

/// The Scale of the object that was written.
async fn viewed(call: &Call<'_>, answer: Answer) -> Result<Answer, Status> {
    let object = match answer {
        Answer::Object { object, .. } => call.strategy.read(&object).await?,
        Answer::Tree { value, .. } => value,
        other => return Ok(other),
    };
    Ok(Answer::Tree { code: 200, value: view(call, &object) })
}
