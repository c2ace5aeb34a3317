//! DELETE of an object or of a collection: grace, preconditions, finalizers, propagation.

use api::schema::Shape;
use api::{Object, Status};
use bytes::Bytes;
use serde_json::{Value, json};
use store::{Expect, Write, WriteError};

use super::list::Filter;
use super::update::is_finished;
use super::{Answer, steps};
use crate::admit::Admitted;
use crate::call::Call;
use strategy::decode::Format;
use strategy::meta;
use strategy::write_failure::write_failure;

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";
/// Tries when the object changes under a deletion.
const RETRIES: usize = 10;

/// `DeleteOptions` from body and query.
#[derive(Debug, Clone, Default)]
pub struct Options {
    grace: Option<i64>,
    uid: Option<String>,
    pub revision: Option<String>,
    /// Finalizers the deletion adds and removes.
    propagation: Option<String>,
    pub dry_run: bool,
    /// What admission sees of it.
    shown: Value,
}

fn options(call: &Call<'_>, body: &[u8], content_type: &str) -> Result<Options, Status> {
    let sent: Value = if body.is_empty() {
        json!({})
    } else {
        match Format::of(content_type)? {
            Format::Json => api::schema::read_json(body).map_err(Status::bad_request)?,
            Format::Protobuf => {
                let schema = call.resources.schema;
                let ty = schema.find("meta.v1.DeleteOptions").expect("built in");
                let tree = strategy::decode::protobuf_tree(schema, &Shape::Struct(ty), body);
                tree.map_err(Status::bad_request)?
            }
            Format::Cbor => api::cbor::decode(body).map_err(Status::bad_request)?,
            Format::Yaml => api::yaml::read(body).map_err(Status::bad_request)?.value,
        }
    };
    if let Some(audit) = call.context.audit.as_ref().filter(|_| !body.is_empty()) {
        audit.request_object(&sent);
    }
    Options::of(call, &sent)
}

impl Options {
    /// Of a decoded body, and of the query where the body says nothing.
    pub fn of(call: &Call<'_>, sent: &Value) -> Result<Options, Status> {
        let text = |v: &Value| v.as_str().map(str::to_owned);
        let query = |key: &str| call.context.query.get(key).map(str::to_owned);
        let orphan = sent["orphanDependents"].as_bool().or_else(|| {
            call.context
                .query
                .get("orphanDependents")
                .map(|_| call.context.query.flag("orphanDependents"))
        });
        let by_flag = orphan.map(|o| if o { "Orphan" } else { "Background" }.to_owned());
        let propagation = text(&sent["propagationPolicy"]).or_else(|| query("propagationPolicy"));
        if let Some(policy) = &propagation
            && !matches!(policy.as_str(), "Orphan" | "Background" | "Foreground")
        {
            let message = format!(
                "Unsupported value: {policy:?}: supported values: \"Background\", \"Foreground\", \"Orphan\""
            );
            let cause = meta::cause("FieldValueNotSupported", "propagationPolicy", message);
            return Err(Status::invalid("meta.k8s.io", "DeleteOptions", "", vec![cause]));
        }
        if let Some(other) = validation::items(sent, "dryRun").find(|value| **value != "All") {
            let message = format!("Unsupported value: {other}: supported values: \"All\"");
            let cause = meta::cause("FieldValueNotSupported", "dryRun", message);
            return Err(Status::invalid("meta.k8s.io", "DeleteOptions", "", vec![cause]));
        }
        Ok(Options {
            shown: shown(call, sent),
            grace: sent["gracePeriodSeconds"]
                .as_i64()
                .or(call.context.query.number("gracePeriodSeconds")?),
            uid: text(&sent["preconditions"]["uid"]),
            revision: text(&sent["preconditions"]["resourceVersion"]),
            propagation: propagation.or(by_flag),
            dry_run: call.context.dry_run
                || sent["dryRun"].as_array().is_some_and(|d| !d.is_empty()),
        })
    }
}

/// The options as upstream decodes them: of the body, or else of the query.
fn shown(call: &Call<'_>, sent: &Value) -> Value {
    const KEYS: [&str; 5] =
        ["gracePeriodSeconds", "preconditions", "orphanDependents", "propagationPolicy", "dryRun"];
    let query = |key: &str| match (key, call.context.query.get(key)?) {
        ("gracePeriodSeconds", text) => text.parse::<i64>().ok().map(Value::from),
        ("propagationPolicy", text) => Some(text.into()),
        ("orphanDependents", _) => Some(call.context.query.flag(key).into()),
        _ => None,
    };
    let value = |key: &str| sent.get(key).filter(|v| !v.is_null()).cloned().or_else(|| query(key));
    let shown = KEYS.iter().filter_map(|key| Some(((*key).to_owned(), value(key)?)));
    Value::Object(shown.collect())
}

pub async fn delete(call: &Call<'_>, body: Bytes, content_type: &str) -> Result<Answer, Status> {
    let options = options(call, &body, content_type)?;
    warn_of_orphans(call, &options);
    delete_one(call, &call.key(), &call.context.info.name, &options).await
}

fn warn_of_orphans(call: &Call<'_>, options: &Options) {
    if options.propagation.is_none() && call.strategy.hooks().warns_of_orphans {
        call.context.warn("child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this warning");
    }
}

pub async fn delete_one(
    call: &Call<'_>,
    key: &str,
    name: &str,
    options: &Options,
) -> Result<Answer, Status> {
    let row = call.row;
    let collection = call.resources.collection(row);
    for _ in 0..RETRIES {
        let found = collection.get(key);
        let old = found.ok_or_else(|| Status::not_found(call.row.group, row.name, name))?;
        let old_tree = call.strategy.read(&old).await?;
        check_preconditions((call.group(), call.row.kind), &old_tree, options)?;
        Admitted::deleted(name, &old_tree, &options.shown).admit(call, &mut Value::Null).await?;
        let mut new = old_tree.clone();
        mark(call, &mut new, options);
        let gone = is_finished(row.name, &new);
        if options.dry_run {
            return Ok(answer(call, (&old, old_tree), gone, new));
        }
        if !gone && new == old_tree {
            return Ok(Answer::Object { code: 200, object: old });
        }
        let draft = if gone { None } else { Some(call.strategy.draft(&new).await?) };
        let expect = Expect::Revision(old.revision());
        let write = Write { collection: collection.clone(), key: key.to_owned(), expect, draft };
        match call.write(row, write).await {
            Ok(_) if gone => {
                steps::release(call, &old_tree, None).await;
                return Ok(answer(call, (&old, old_tree), true, new));
            }
            Ok(object) => return Ok(Answer::Object { code: 200, object }),
            Err(WriteError::Conflict(_)) => {}
            Err(other) => return Err(write_failure(other, row, name)),
        }
    }
    Err(Status::modified(call.row.group, row.name, name))
}

/// A finished deletion answers with a Status; pods and a few others with their last state.
fn answer(call: &Call<'_>, (old, shown): (&Object, Value), gone: bool, new: Value) -> Answer {
    if gone && !call.strategy.hooks().returns_deleted {
        let m = old.meta();
        let status = Status::deleted(call.row.group, call.row.name, &m.name, &m.uid);
        return Answer::Tree { code: 200, value: status.to_value() };
    }
    // Only pods are marked before they go.
    let value = if gone && call.row.name != "pods" { shown } else { new };
    Answer::Tree { code: 200, value }
}

/// The object is in the state that the options ask for.
pub fn check_preconditions(
    (group, kind): (&str, &str),
    old: &Value,
    options: &Options,
) -> Result<(), Status> {
    let checks = [
        (&options.uid, "uid", "UID", "deleted and then recreated"),
        (&options.revision, "resourceVersion", "ResourceVersion", "modified"),
    ];
    for (asked, key, what, likely) in checks {
        let found = meta::text(old, key);
        if let Some(asked) = asked.as_deref().filter(|asked| *asked != found) {
            let why = format!(
                "the {what} in the precondition ({asked}) does not match the {what} in record ({found}). The object might have been {likely}"
            );
            return Err(Status::conflict(group, kind, meta::text(old, "name"), &why));
        }
    }
    Ok(())
}

/// Writes the wish to be deleted into the object.
fn mark(call: &Call<'_>, object: &mut Value, options: &Options) {
    let default = default_propagation(call, object);
    set_propagation(object, options.propagation.as_deref().or(default));
    let grace = (call.strategy.hooks().grace)(object, options.grace);
    let already = object["metadata"]["deletionTimestamp"].is_string();
    let before = object["metadata"]["deletionGracePeriodSeconds"].as_i64();
    // A later deletion may only shorten the grace.
    if already && before.is_some_and(|before| grace >= before) {
        return;
    }
    let at = call.context.now + jiff::SignedDuration::from_secs(grace);
    let meta = meta::of(object);
    meta.insert("deletionTimestamp".into(), at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into());
    meta.insert("deletionGracePeriodSeconds".into(), grace.into());
    if let Some(generation) = meta.get("generation").and_then(Value::as_i64).filter(|_| !already) {
        meta.insert("generation".into(), (generation + 1).into());
    }
    (call.strategy.hooks().deleting)(&call.step(), object);
}

/// What becomes of dependents when neither request nor object says it.
fn default_propagation(call: &Call<'_>, object: &Value) -> Option<&'static str> {
    let decided = validation::items(&object["metadata"], "finalizers")
        .any(|finalizer| finalizer == ORPHAN || finalizer == FOREGROUND);
    let orphans = call.strategy.hooks().orphans;
    (orphans && !decided).then_some("Orphan")
}

/// `Foreground` and `Orphan` are finalizers that the garbage collector takes off again.
fn set_propagation(object: &mut Value, policy: Option<&str>) {
    let Some(policy) = policy else { return };
    let meta = meta::of(object);
    let mut finalizers =
        meta.get("finalizers").and_then(Value::as_array).cloned().unwrap_or_default();
    finalizers.retain(|f| f != ORPHAN && f != FOREGROUND);
    match policy {
        "Orphan" => finalizers.push(ORPHAN.into()),
        "Foreground" => finalizers.push(FOREGROUND.into()),
        _ => {}
    }
    if finalizers.is_empty() {
        meta.remove("finalizers");
    } else {
        meta.insert("finalizers".into(), finalizers.into());
    }
}

/// DELETE of a collection: each selected object, one after the other.
pub async fn delete_collection(
    call: &Call<'_>,
    body: Bytes,
    content_type: &str,
) -> Result<Answer, Status> {
    let options = options(call, &body, content_type)?;
    warn_of_orphans(call, &options);
    let filter = Filter::of(call)?;
    let collection = call.resources.collection(call.row);
    let page =
        collection.list_by(filter.indexed(), (&filter.prefix(call), None), 0, usize::MAX, &|o| {
            filter.matches(o)
        });
    let page = page.map_err(|e| Status::gone(e.to_string()))?;
    let mut objects = call.selectable(page.objects).await?;
    objects.retain(|object| filter.selects(object));
    for object in &objects {
        let m = object.meta();
        match delete_one(call, &call.row.key(&m.namespace, &m.name), &m.name, &options).await {
            Err(status) if status.code == 404 => {}
            other => drop(other?),
        }
    }
    Ok(Answer::List(super::list::Listing {
        row: call.row,
        revision: collection.revision(),
        objects,
        continue_token: String::new(),
        remaining: None,
    }))
}
