//! Reviews: who is this token, who am I, what may be done.

use api::Status;
use api::selector::{FieldRequirement, FieldSelector, LabelSelector, Operator, Requirement};
use auth::{Attributes, Opinion, Resolved, Rule, User};
use serde_json::{Value, json};

use crate::audited_tokens;
use crate::call::Call;
use crate::identity::Identity;
use crate::verbs::Answer;
use validation::items;

fn created(value: Value) -> Answer {
    Answer::Tree { code: 201, value }
}

fn user_info(user: &User) -> Value {
    let mut info = json!({"username": user.name});
    if !user.uid.is_empty() {
        info["uid"] = user.uid.as_str().into();
    }
    if !user.groups.is_empty() {
        info["groups"] = json!(user.groups);
    }
    if !user.extra.is_empty() {
        info["extra"] = json!(user.extra);
    }
    info
}

pub(super) async fn token(
    identity: &Identity,
    call: &Call<'_>,
    mut review: Value,
) -> Result<Answer, Status> {
    let token = review["spec"]["token"].as_str().unwrap_or("").to_owned();
    if token.is_empty() {
        let message = "token is required for TokenReview in authentication";
        return Err(Status::bad_request(message));
    }
    let audiences: Vec<String> =
        items(&review["spec"], "audiences").filter_map(|a| a.as_str()).map(str::to_owned).collect();
    let authenticator = &identity.authenticator;
    let found = authenticator.token(&*identity.objects, &token, &audiences).await;
    if let Some(record) = &call.context.audit {
        match &found {
            Ok(known) => {
                known.legacy.iter().for_each(|used| audited_tokens::tell_use(record, used))
            }
            Err(refusal) => {
                let used = refusal.invalidated.iter();
                used.for_each(|used| audited_tokens::tell_invalidated(record, used));
            }
        }
    }
    review["status"] = match found {
        Ok(known) => json!({
            "authenticated": true, "user": user_info(&known.user), "audiences": known.audiences,
        }),
        Err(refusal) => json!({"user": {}, "error": refusal.why}),
    };
    Ok(created(review))
}

pub(super) fn whoami(call: &Call<'_>, mut review: Value) -> Answer {
    strategy::meta::of(&mut review)
        .insert("creationTimestamp".into(), call.context.now_text().into());
    review["status"] = json!({"userInfo": user_info(call.context.user)});
    created(review)
}

/// Subject, self and local access reviews.
pub(super) async fn access(
    identity: &Identity,
    call: &Call<'_>,
    mut review: Value,
) -> Result<Answer, Status> {
    let spec = review["spec"].clone();
    let own = call.row.name == "selfsubjectaccessreviews";
    let user = if own { call.context.user.clone() } else { subject(&spec) };
    let text = |value: &Value, key: &str| value[key].as_str().unwrap_or("").to_owned();
    let (resource, other) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    if resource.is_null() == other.is_null() {
        let detail = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
        let cause = strategy::meta::invalid("spec.resourceAttributes", &json!({}), detail);
        return Err(Status::invalid(call.row.group, call.row.kind, "", vec![cause]));
    }
    if call.row.name == "localsubjectaccessreviews"
        && text(resource, "namespace") != call.context.info.namespace
    {
        let detail = "must match metadata.namespace";
        let cause = strategy::meta::invalid(
            "spec.resourceAttributes.namespace",
            &resource["namespace"],
            detail,
        );
        return Err(Status::invalid(call.row.group, call.row.kind, "", vec![cause]));
    }
    let (fields, labels) = (selected(resource)?, labelled(resource));
    let from = if resource.is_null() { other } else { resource };
    let [verb, group, version, name_of, sub, namespace, name, path] =
        ["verb", "group", "version", "resource", "subresource", "namespace", "name", "path"]
            .map(|k| text(from, k));
    let attributes = Attributes {
        verb: &verb,
        group: &group,
        version: &version,
        resource: &name_of,
        subresource: &sub,
        namespace: &namespace,
        name: &name,
        path: resource.is_null().then_some(path.as_str()),
        ..Attributes::default()
    }
    .selecting(&fields)
    .labelled(&labels);
    let answer = identity.authorizer.authorize(&user, &attributes).await;
    let answer = identity.authorizer.explain(&user, &attributes, answer);
    review["status"] = json!({"allowed": answer.is_allowed()});
    if answer.opinion == Opinion::Deny {
        review["status"]["denied"] = true.into();
    }
    for (key, text) in [("reason", answer.reason), ("evaluationError", answer.error)] {
        if !text.is_empty() {
            review["status"][key] = text.into();
        }
    }
    Ok(created(review))
}

/// The field selector that a review asks about: in its text, or in single requirements. What cannot
/// be understood selects nothing, and so allows less.
fn selected(resource: &Value) -> Result<FieldSelector, Status> {
    let selector = &resource["fieldSelector"];
    if let Some(raw) = selector["rawSelector"].as_str().filter(|raw| !raw.is_empty()) {
        return Ok(FieldSelector::parse(raw).unwrap_or_default());
    }
    let single = |r: &Value| {
        let values: Vec<&str> = items(r, "values").filter_map(Value::as_str).collect();
        let equal = match r["operator"].as_str() {
            Some("In") => true,
            Some("NotIn") => false,
            _ => return None,
        };
        let ([value], Some(field)) = (values.as_slice(), r["key"].as_str()) else { return None };
        Some(FieldRequirement { field: field.to_owned(), value: (*value).to_owned(), equal })
    };
    let requirements = items(selector, "requirements").filter_map(single).collect();
    Ok(FieldSelector { requirements })
}

/// The label selector that a review asks about. What cannot be understood is left out, and so allows less.
fn labelled(resource: &Value) -> LabelSelector {
    let selector = &resource["labelSelector"];
    if let Some(raw) = selector["rawSelector"].as_str().filter(|raw| !raw.is_empty()) {
        return LabelSelector::parse(raw).unwrap_or_default();
    }
    let single = |r: &Value| {
        let operator = match r["operator"].as_str() {
            Some("In") => Operator::In,
            Some("NotIn") => Operator::NotIn,
            Some("Exists") => Operator::Exists,
            Some("DoesNotExist") => Operator::DoesNotExist,
            _ => return None,
        };
        let values = items(r, "values").filter_map(Value::as_str).map(str::to_owned).collect();
        Some(Requirement { key: r["key"].as_str()?.to_owned(), operator, values })
    };
    LabelSelector { requirements: items(selector, "requirements").filter_map(single).collect() }
}

fn subject(spec: &Value) -> User {
    let groups = items(spec, "groups").filter_map(|g| g.as_str()).map(str::to_owned);
    User {
        name: spec["user"].as_str().unwrap_or("").to_owned(),
        uid: spec["uid"].as_str().unwrap_or("").to_owned(),
        groups: groups.collect(),
        extra: serde_json::from_value(spec["extra"].clone()).unwrap_or_default(),
    }
}

pub(super) fn rules(
    identity: &Identity,
    call: &Call<'_>,
    mut review: Value,
) -> Result<Answer, Status> {
    let namespace = review["spec"]["namespace"].as_str().unwrap_or("").to_owned();
    if namespace.is_empty() {
        return Err(Status::bad_request("no namespace on request"));
    }
    let Resolved { rules, errors } = identity.authorizer.rules(call.context.user, &namespace);
    let (paths, resources): (Vec<Rule>, Vec<Rule>) =
        rules.into_iter().partition(|r| !r.non_resource_urls.is_empty());
    let resource_rule = |r: &Rule| {
        let mut rule =
            json!({"verbs": r.verbs, "apiGroups": r.api_groups, "resources": r.resources});
        if !r.resource_names.is_empty() {
            rule["resourceNames"] = json!(r.resource_names);
        }
        rule
    };
    let path_rule = |r: &Rule| json!({"verbs": r.verbs, "nonResourceURLs": r.non_resource_urls});
    review["status"] = json!({
        "resourceRules": resources.iter().map(resource_rule).collect::<Vec<_>>(),
        "nonResourceRules": paths.iter().map(path_rule).collect::<Vec<_>>(),
        "incomplete": !errors.is_empty(),
    });
    if !errors.is_empty() {
        review["status"]["evaluationError"] = errors.join(", ").into();
    }
    Ok(created(review))
}
