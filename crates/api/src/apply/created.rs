//! Managers of an object that is being created, straight to text.
//!
//! [`Manage::update`] makes one entry for a new object without managers. It is written here in one pass over the
//! object, without the sets and trees that an update needs.

use std::fmt::Write as _;
use std::sync::LazyLock;

use serde_json::{Map, Value};

use super::compare::{is_bare, same};
use super::element::Element;
use super::filter::Filter;
use super::managers::{Identity, push_text};
use super::node::{Kind, Node};
use super::operate::{Manage, STRIPPED};
use super::set::FieldSet;
use crate::schema::Schema;

static NEVER: LazyLock<FieldSet> = LazyLock::new(|| FieldSet::of_fields(&STRIPPED));

impl Manage<'_> {
    /// The JSON text of `metadata.managedFields` of an object that an update creates: what
    /// [`Manage::update`] answers for the zero value and no managers. `Ok(None)` when nothing is owned, and
    /// when the filter keeps chosen fields only, which is not done here: then `Err(None)`.
    ///
    /// # Errors
    /// `Err(Some(fault))` when a list's items cannot be told apart.
    pub fn created(&self, new: &Value, manager: &str) -> Result<Option<String>, Option<String>> {
        let Filter::Except(dropped) = self.filter else { return Err(None) };
        let identity = Identity::update(manager, self.api_version, self.subresource);
        let mut writer = Writer { schema: self.schema, out: String::with_capacity(1024) };
        writer.begin(self.api_version);
        let begun = writer.out.len();
        let zero = self.schema.zero(self.shape);
        let limits = Limits { dropped: Some(dropped), never: Some(&NEVER) };
        writer.changed(Node::root(self.shape), &zero, new, limits).map_err(Some)?;
        if writer.out.len() == begun {
            return Ok(None);
        }
        Ok(Some(writer.end(&identity, self.now)))
    }
}

/// Fields that are not owned here: with all below them, or only themselves.
#[derive(Clone, Copy, Default)]
struct Limits<'a> {
    dropped: Option<&'a FieldSet>,
    never: Option<&'a FieldSet>,
}

impl<'a> Limits<'a> {
    /// Those below a field; `None` when the field is dropped.
    fn below(self, element: &Element) -> Option<Limits<'a>> {
        match self.dropped {
            Some(dropped) if dropped.has(element) => None,
            _ => Some(Limits {
                dropped: self.dropped.and_then(|set| set.below(element)),
                never: self.never.and_then(|set| set.below(element)),
            }),
        }
    }

    fn is_none(self) -> bool {
        self.dropped.is_none() && self.never.is_none()
    }
}

/// Writes members of a `fieldsV1` object. Before each a comma stands unless the object begins there.
struct Writer<'s> {
    schema: &'s Schema,
    out: String,
}

impl<'s> Writer<'s> {
    fn begin(&mut self, api_version: &str) {
        self.out.push_str("[{\"apiVersion\":");
        push_text(&mut self.out, api_version);
        self.out.push_str(",\"fieldsType\":\"FieldsV1\",\"fieldsV1\":{");
    }

    fn end(mut self, identity: &Identity, now: Option<&str>) -> String {
        self.out.push_str("},\"manager\":");
        push_text(&mut self.out, &identity.manager);
        self.out.push_str(",\"operation\":\"Update\"");
        let rest = [("subresource", identity.subresource.as_str()), ("time", now.unwrap_or(""))];
        for (key, value) in rest.into_iter().filter(|(_, value)| !value.is_empty()) {
            // Writing to a String never fails.
            let _ = write!(self.out, ",\"{key}\":");
            push_text(&mut self.out, value);
        }
        self.out.push_str("}]");
        self.out
    }

    /// Begins a member: its key, and the brace of its value. Returns where it begins.
    fn open(&mut self, key: &str) -> usize {
        let begun = self.out.len();
        if !self.out.ends_with('{') {
            self.out.push(',');
        }
        push_text(&mut self.out, key);
        self.out.push_str(":{");
        begun
    }

    /// Ends a member, or takes it back when it is none and has nothing below it.
    fn close(&mut self, begun: usize, is_member: bool) {
        if !is_member && self.out.ends_with('{') {
            self.out.truncate(begun);
        } else {
            self.out.push('}');
        }
    }

    /// The members of a value that differs from the zero value at its place.
    fn changed(
        &mut self,
        node: Node<'s>,
        old: &Value,
        new: &Value,
        limits: Limits<'_>,
    ) -> Result<(), String> {
        let (Some(old), Some(new)) = (old.as_object(), new.as_object()) else { return Ok(()) };
        for (name, value) in new {
            let element = Element::field(name);
            let Some(below) = limits.below(&element) else { continue };
            let is_kept = limits.never.is_none_or(|never| !never.has(&element));
            let before = old.get(name);
            if before == Some(value) {
                continue;
            }
            let begun = self.open(&element.encode());
            let child = node.field(self.schema, name);
            let is_member = match before {
                None => self.whole(child, value, below).map(|()| true)?,
                Some(before) => self.differing(child, before, value, below)?,
            };
            self.close(begun, is_member && is_kept);
        }
        Ok(())
    }

    /// A value that both sides have; whether it is a member itself.
    fn differing(
        &mut self,
        node: Node<'s>,
        old: &Value,
        new: &Value,
        limits: Limits<'_>,
    ) -> Result<bool, String> {
        let is_bare = is_bare(old) && is_bare(new);
        match node.kind(self.schema, [Some(old), Some(new)]) {
            Kind::Struct(_) | Kind::Map if !is_bare => {
                let empty = Value::Object(Map::new());
                let old = if old.is_object() { old } else { &empty };
                self.changed(node, old, new, limits).map(|()| false)
            }
            // A zero list has no items.
            Kind::List(keys) if !is_bare => {
                self.items(node, keys, new.as_array().map_or(&[], Vec::as_slice)).map(|()| false)
            }
            _ => Ok(!same(old, new)),
        }
    }

    /// All below a value that only the new side has. Its parent marks it as a member.
    fn whole(&mut self, node: Node<'s>, value: &Value, limits: Limits<'_>) -> Result<(), String> {
        match (node.kind(self.schema, [Some(value), None]), value) {
            (Kind::Struct(_) | Kind::Map, Value::Object(map)) => {
                let begun = self.mark(!map.is_empty());
                for (name, value) in map {
                    let key = Element::field(name);
                    if limits.is_none() {
                        self.field(node, name, value, &key)?;
                    } else if let Some(below) = limits.below(&key) {
                        let is_kept = limits.never.is_none_or(|never| !never.has(&key));
                        let begun = self.open(&key.encode());
                        self.whole(node.field(self.schema, name), value, below)?;
                        self.close(begun, is_kept);
                    }
                }
                self.unmark(begun);
                Ok(())
            }
            (Kind::List(keys), Value::Array(items)) => {
                let begun = self.mark(!items.is_empty());
                self.items(node, keys, items)?;
                self.unmark(begun);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn field(
        &mut self,
        node: Node<'s>,
        name: &str,
        value: &Value,
        key: &Element,
    ) -> Result<(), String> {
        let begun = self.open(&key.encode());
        self.whole(node.field(self.schema, name), value, Limits::default())?;
        self.close(begun, true);
        Ok(())
    }

    /// The mark of a member that has something below it.
    fn mark(&mut self, has_below: bool) -> usize {
        let begun = self.out.len();
        if has_below {
            self.out.push_str("\".\":{}");
        }
        begun
    }

    /// Takes the mark back when nothing was written below it.
    fn unmark(&mut self, begun: usize) {
        if self.out[begun..] == *"\".\":{}" {
            self.out.truncate(begun);
        }
    }

    fn items(&mut self, node: Node<'s>, keys: &[Box<str>], items: &[Value]) -> Result<(), String> {
        let named = |item| Ok((node.element(self.schema, keys, item)?, item));
        let named = items.iter().map(named).collect::<Result<Vec<(Element, &Value)>, String>>()?;
        let mut named: Vec<(String, Element, &Value)> =
            named.into_iter().map(|(element, item)| (element.encode(), element, item)).collect();
        named.sort_by(|a, b| a.0.cmp(&b.0));
        let mut at = 0;
        while let Some((key, element, item)) = named.get(at) {
            let count = named[at..].iter().take_while(|(_, other, _)| other == element).count();
            let begun = self.open(key);
            // Duplicates are owned as one value.
            if count == 1 {
                self.whole(node.item(), item, Limits::default())?;
            }
            self.close(begun, true);
            at += count;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Managers;
    use super::*;
    use crate::registry::Registry;
    use crate::schema::Shape;

    /// Both ways agree to the byte, over objects of several kinds.
    #[test]
    fn a_created_object_has_the_entry_that_an_update_of_nothing_makes() {
        let schema = Schema::built_in();
        let objects = [
            (
                "",
                "pods",
                r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","namespace":"n","labels":{"a":"b","c/d":"e"},"annotations":{"x":"<y>"},"ownerReferences":[{"apiVersion":"v1","kind":"A","name":"b","uid":"2"},{"apiVersion":"v1","kind":"A","name":"a","uid":"1"}]},"spec":{"containers":[{"name":"z","image":"i","ports":[{"containerPort":80,"protocol":"TCP"},{"containerPort":80,"protocol":"UDP"},{"containerPort":8080}],"env":[{"name":"B","value":"1"},{"name":"A","valueFrom":{"fieldRef":{"fieldPath":"metadata.name","apiVersion":"v1"}}}],"resources":{"limits":{"cpu":"1"}},"args":["a","b"]},{"name":"b","env":[{"name":"A","value":"1"},{"name":"A","value":"2"}]}],"tolerations":[{"key":"k"}],"nodeSelector":{},"securityContext":{},"volumes":[{"name":"v","emptyDir":{}}],"topologySpreadConstraints":[{"maxSkew":1,"topologyKey":"t","whenUnsatisfiable":"DoNotSchedule"}]},"status":{"phase":"Running"}}"#,
            ),
            (
                "",
                "services",
                r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"s","uid":"u","creationTimestamp":"2026-01-01T00:00:00Z"},"spec":{"ports":[{"port":80,"targetPort":"http","protocol":"TCP"}],"selector":{"app":"x"},"type":"ClusterIP","ipFamilies":["IPv4"]},"status":{"loadBalancer":{}}}"#,
            ),
            (
                "",
                "configmaps",
                r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a\"b","labels":{"q\"":"x"}},"data":{"k/1":"v"}}"#,
            ),
            ("", "configmaps", r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"}}"#),
            (
                "",
                "serviceaccounts",
                r#"{"metadata":{"finalizers":["b/x","a/y","b/x"],"labels":{}},"secrets":[{"name":"s"},{"name":"s"}]}"#,
            ),
            (
                "",
                "namespaces",
                r#"{"metadata":{"name":"n"},"spec":{"finalizers":["kubernetes"]},"status":{"phase":"Active"}}"#,
            ),
        ];
        for (group, resource, text) in objects {
            let row = Registry::built_in().find(group, "v1", resource, "").expect("built in");
            let shape = row.ty.map_or(Shape::Any, Shape::Struct);
            let object: Value = serde_json::from_str(text).expect("JSON");
            for filter in [
                Filter::none(),
                Filter::Except(FieldSet::of_fields(&["status", "metadata.labels"])),
            ] {
                let manage = Manage {
                    schema,
                    shape: &shape,
                    api_version: "v1",
                    subresource: "",
                    filter: &filter,
                    is_served: &|_| true,
                    elsewhere: None,
                    now: Some("2026-01-01T00:00:00Z"),
                };
                let slow = manage
                    .update(&schema.zero(&shape), &object, Managers::default(), "kubectl")
                    .expect("items can be told apart")
                    .encode()
                    .map(|list| list.to_string());
                assert_eq!(manage.created(&object, "kubectl").expect("told apart"), slow, "{text}");
            }
        }
    }

    #[test]
    fn items_that_cannot_be_told_apart_are_a_fault_and_chosen_fields_are_not_done() {
        let schema = Schema::built_in();
        let row = Registry::built_in().find("", "v1", "pods", "").expect("built in");
        let shape = row.ty.map_or(Shape::Any, Shape::Struct);
        let manage = |filter| Manage {
            schema,
            shape: &shape,
            api_version: "v1",
            subresource: "",
            filter,
            is_served: &|_| true,
            elsewhere: None,
            now: None,
        };
        let pod = json!({"spec": {"containers": [null]}});
        let none = Filter::none();
        let fault = manage(&none).created(&pod, "m").expect_err("a null item");
        assert!(fault.expect("a fault").contains("may not have a null element"));
        let only = Filter::Only(&[&["spec"]]);
        assert_eq!(manage(&only).created(&json!({}), "m"), Err(None));
    }
}
