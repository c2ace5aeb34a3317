//! `autoscaling/v1 Scale` of everything that has replicas.

use api::Status;
use bytes::Bytes;
use serde_json::Value;

use crate::call::Call;
use crate::scale_view::{at, check_replicas, set_replicas, view};
use crate::verbs::Answer;
use crate::verbs::patch::{
    applied_body, check_options, is_apply, json_body, must_be_operations, unprocessable,
};
use crate::verbs::update::{Operation, change};
use strategy::decode::media_type;

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
        let mut object = object.clone();
        set_replicas(call, &mut object, &scale)?;
        let based_on = scale["metadata"]["resourceVersion"].clone();
        let meta = strategy::meta::of(&mut object);
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

/// The Scale of the object that was written.
async fn viewed(call: &Call<'_>, answer: Answer) -> Result<Answer, Status> {
    let object = match answer {
        Answer::Object { object, .. } => call.strategy.read(&object).await?,
        Answer::Tree { value, .. } => value,
        other => return Ok(other),
    };
    Ok(Answer::Tree { code: 200, value: view(call, &object) })
}
