//! Rules of a definition, judged when it is written: what they say, whether they compile against the
//! schema, and whether they cost too much (apiextensions `validation.go`, `cel_validation.go`).

mod cost;
mod words;

use std::sync::Arc;

use cel::{Decl, Objects, Shape, escaped};
use serde_json::Value;
use validation::At;

use crate::compile::{Ready, Scope, Written};
use crate::declared::declare;
use crate::node::Node;
use cost::{Cardinality, RULE_MAX, Total, exceeds};

/// Every rule of every version of a CustomResourceDefinition. Places are told as upstream tells
/// them: a schema that all versions share is the definition's.
pub fn check_rules(definition: &At<'_>) {
    let before = definition.old().map(|old| &old["spec"]["versions"]);
    let made = validation::internal_definition(definition.get("spec").value());
    let spec = definition.get("spec");
    let spec = spec.with(&made);
    let versions = spec.get("versions");
    let shared = spec.get("validation");
    if let Some(first) = made["versions"].get(0) {
        let schema = shared.get("openAPIV3Schema");
        check_version(&schema, is_kept(before, &first["name"], schema.value()));
    }
    for version in versions.items() {
        let validation = version.get("schema");
        let schema = validation.get("openAPIV3Schema");
        check_version(&schema, is_kept(before, &version.value()["name"], schema.value()));
    }
}

/// A schema that stays as it was may keep what costs too much.
fn is_kept(before: Option<&Value>, version: &Value, schema: &Value) -> bool {
    let known = before.and_then(Value::as_array).into_iter().flatten();
    known
        .into_iter()
        .any(|old| old["name"] == *version && old["schema"]["openAPIV3Schema"] == *schema)
}

fn check_version(schema: &At<'_>, unchanged: bool) {
    // What cannot be read is told by the checks of its structure.
    let Ok(mut root) = Node::parse(schema.value()) else { return };
    if !root.ruled {
        return;
    }
    root.embedded = true;
    let Some(seen) = Seen::of(&root) else { return };
    let mut lint = Lint { unchanged, total: Total::default() };
    let context = Context { node: &root, seen: Some(seen), most: Some(1), uncorrelatable: None };
    lint.schema(schema, &context);
    lint.total.tell(schema);
}

/// What rules see at a place, and all objects in it.
#[derive(Clone)]
struct Seen {
    decl: Arc<Decl>,
    objects: Arc<Objects>,
}

impl Seen {
    fn of(node: &Node) -> Option<Seen> {
        let decl = declare(node, "selfType")?;
        let objects = Arc::new(Objects::of(&decl));
        Some(Seen { decl: Arc::new(decl), objects })
    }

    fn below(&self, decl: &Arc<Decl>) -> Seen {
        Seen { decl: decl.clone(), objects: self.objects.clone() }
    }

    /// Items of a list, or values of a map.
    fn parts(&self) -> Option<Seen> {
        match &self.decl.shape {
            Shape::List(part, _) | Shape::Map(part) => Some(self.below(part)),
            _ => None,
        }
    }

    fn field(&self, name: &str) -> Option<Seen> {
        match &self.decl.shape {
            Shape::Object(fields) => fields.get(name).map(|field| self.below(&field.decl)),
            _ => None,
        }
    }
}

/// A place of the schema.
struct Context<'c> {
    node: &'c Node,
    seen: Option<Seen>,
    /// How many values of it an object can have.
    most: Cardinality,
    /// The list whose items have no former state, if this is below one.
    uncorrelatable: Option<String>,
}

struct Lint {
    /// The schema is that of an update and stays as it was.
    unchanged: bool,
    total: Total,
}

impl Lint {
    fn schema(&mut self, at: &At<'_>, context: &Context<'_>) {
        let before = at.faults();
        self.below(at, context);
        let rules = at.get("x-kubernetes-validations");
        rules.items().for_each(|rule| words::check(&rule, context.node));
        // Rules rely on what is said of them and below.
        if at.faults() == before && !rules.is_empty() {
            self.rules(&rules, context);
        }
    }

    fn below(&mut self, at: &At<'_>, context: &Context<'_>) {
        let node = context.node;
        let most = cost::of_parts(at.value(), context.most);
        let parts = context.seen.as_ref().and_then(Seen::parts);
        if let Some(below) = node.additional.as_deref() {
            let uncorrelatable = context.uncorrelatable.clone();
            let context = Context { node: below, seen: parts.clone(), most, uncorrelatable };
            self.schema(&at.get("additionalProperties"), &context);
        }
        let properties = at.get("properties");
        for (name, property) in properties.entries() {
            let Some(below) = node.properties.get(name) else { continue };
            let seen = match escaped(name) {
                Some(name) => context.seen.as_ref().and_then(|seen| seen.field(&name)),
                None => Seen::of(below),
            };
            let uncorrelatable = context.uncorrelatable.clone();
            self.schema(&property, &Context { node: below, seen, most, uncorrelatable });
        }
        if let Some(below) = node.items.as_deref() {
            let told = context.uncorrelatable.clone();
            let is_map = at.value()["x-kubernetes-list-type"] == "map";
            let uncorrelatable = told.or_else(|| (!is_map).then(|| at.to_string()));
            self.schema(
                &at.get("items"),
                &Context { node: below, seen: parts, most, uncorrelatable },
            );
        }
    }

    fn rules(&mut self, rules: &At<'_>, context: &Context<'_>) {
        let Some(seen) = &context.seen else {
            return rules.report("InternalError", "Internal error: internal error: failed to construct type information for x-kubernetes-validations rules: unable to convert structural schema to CEL declarations");
        };
        let scope = Scope::new(&seen.objects, &seen.decl);
        for rule in rules.items() {
            let written = Written::read(rule.value());
            match written.compile(&scope) {
                None => {}
                Some(Err(fault)) => told(&rule, "rule", &fault),
                Some(Ok(ready)) => self.ready(&rule, &written, &ready, &scope, context),
            }
        }
    }

    fn ready(
        &mut self,
        rule: &At<'_>,
        written: &Written,
        ready: &Ready,
        scope: &Scope,
        context: &Context<'_>,
    ) {
        let total = ready.cost.saturating_mul(context.most.unwrap_or_else(|| scope.most()));
        self.costs(&rule.get("rule"), "estimated rule cost", total);
        match &ready.message {
            Some(Err(fault)) => told(rule, "messageExpression", fault),
            Some(Ok(message)) => {
                let at = rule.get("messageExpression");
                self.costs(&at, "estimated messageExpression cost", message.cost);
            }
            None => {}
        }
        if !ready.uses_old {
            let optional = rule.get("optionalOldSelf");
            if !optional.is_absent() {
                optional.invalid("may not be set if oldSelf is not used in rule");
            }
        } else if let Some(list) = &context.uncorrelatable {
            let shown = Value::from(&*written.rule);
            let detail = format!(
                "oldSelf cannot be used on the uncorrelatable portion of the schema within {list}"
            );
            rule.get("rule").invalid_as(&shown, &detail);
        }
    }

    fn costs(&mut self, at: &At<'_>, name: &str, cost: u64) {
        if !self.unchanged && cost > RULE_MAX {
            at.forbidden(&exceeds(name, cost, RULE_MAX));
        }
        self.total.add(at.to_string(), cost);
    }
}

/// A fault of an expression, with the whole rule shown.
fn told(rule: &At<'_>, field: &str, fault: &str) {
    let message = format!("Invalid value: {}: {fault}", words::shown(rule.value()));
    rule.get(field).report("FieldValueInvalid", message);
}

#[cfg(test)]
mod tests;
