//! A question as a SubjectAccessReview asks it (`authorization.k8s.io` `SubjectAccessReviewSpec`).

use api::selector::{FieldSelector, LabelSelector, Operator};
use serde_json::{Map, Value, json};

use super::Attributes;
use crate::user::User;

/// The `spec`, as upstream writes it: what is empty is left out.
pub(super) fn spec(user: &User, asked: &Attributes<'_>) -> Value {
    let mut spec = Map::new();
    match asked.path {
        Some(path) => {
            let about = texts([("path", path), ("verb", asked.verb)]);
            spec.insert("nonResourceAttributes".into(), about.into());
        }
        None => {
            spec.insert("resourceAttributes".into(), resource(asked).into());
        }
    }
    spec.extend(texts([("user", user.name.as_str()), ("uid", &user.uid)]));
    if !user.groups.is_empty() {
        spec.insert("groups".into(), json!(user.groups));
    }
    if !user.extra.is_empty() {
        spec.insert("extra".into(), json!(user.extra));
    }
    spec.into()
}

fn resource(asked: &Attributes<'_>) -> Map<String, Value> {
    let mut about = texts([
        ("namespace", asked.namespace),
        ("verb", asked.verb),
        ("group", asked.group),
        ("version", asked.version),
        ("resource", asked.resource),
        ("subresource", asked.subresource),
        ("name", asked.name),
    ]);
    let selectors = [
        ("fieldSelector", asked.fields.map(fields).unwrap_or_default()),
        ("labelSelector", asked.labels.map(labels).unwrap_or_default()),
    ];
    for (key, requirements) in selectors {
        if !requirements.is_empty() {
            about.insert(key.into(), json!({ "requirements": requirements }));
        }
    }
    about
}

fn texts<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Map<String, Value> {
    let told = pairs.into_iter().filter(|(_, text)| !text.is_empty());
    told.map(|(key, text)| (key.to_owned(), text.into())).collect()
}

fn fields(selector: &FieldSelector) -> Vec<Value> {
    let requirement = |r: &api::selector::FieldRequirement| {
        let operator = if r.equal { "In" } else { "NotIn" };
        json!({"key": r.field, "operator": operator, "values": [r.value]})
    };
    selector.requirements.iter().map(requirement).collect()
}

/// Comparisons of numbers are left out: without them the question is about more, and so allows less.
fn labels(selector: &LabelSelector) -> Vec<Value> {
    let requirement = |r: &api::selector::Requirement| {
        let operator = match r.operator {
            Operator::In => "In",
            Operator::NotIn => "NotIn",
            Operator::Exists => "Exists",
            Operator::DoesNotExist => "DoesNotExist",
            _ => return None,
        };
        let mut told = json!({"key": r.key, "operator": operator});
        if !r.values.is_empty() {
            told["values"] = json!(r.values);
        }
        Some(told)
    };
    selector.requirements.iter().filter_map(requirement).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_written_as_upstream_writes_them() {
        let user = User::new("jane", &["dev"]);
        let path = Attributes { verb: "get", path: Some("/healthz"), ..Attributes::default() };
        assert_eq!(
            spec(&user, &path),
            json!({"nonResourceAttributes": {"path": "/healthz", "verb": "get"}, "user": "jane", "groups": ["dev"]})
        );
        let fields = FieldSelector::parse("spec.nodeName=n,status.phase!=Failed").expect("fields");
        let labels = LabelSelector::parse("a in (b,c),!d,e").expect("labels");
        let list = Attributes {
            verb: "list",
            version: "v1",
            resource: "pods",
            namespace: "x",
            ..Attributes::default()
        };
        let told = spec(&user, &list.selecting(&fields).labelled(&labels));
        let resource = &told["resourceAttributes"];
        assert_eq!(
            resource["fieldSelector"]["requirements"],
            json!([{"key": "spec.nodeName", "operator": "In", "values": ["n"]},
                {"key": "status.phase", "operator": "NotIn", "values": ["Failed"]}])
        );
        assert_eq!(
            resource["labelSelector"]["requirements"],
            json!([{"key": "a", "operator": "In", "values": ["b", "c"]},
                {"key": "d", "operator": "DoesNotExist"}, {"key": "e", "operator": "Exists"}])
        );
        assert_eq!(resource["version"], "v1");
        let one = Attributes { verb: "get", ..list }.selecting(&fields).labelled(&labels);
        assert!(spec(&user, &one)["resourceAttributes"].get("labelSelector").is_none());
    }
}
