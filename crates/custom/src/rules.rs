//! `x-kubernetes-validations`: rules compiled once when a definition is installed, and run on objects
//! within a budget (apiextensions `schema/cel/validation.go`).

use std::sync::Arc;
use std::time::Instant;

use cel::{
    Binding, Decl, Failure, Objects, Outcome, PER_CALL_LIMIT, RUNTIME_BUDGET, Value as Cel, escaped,
};
use serde_json::Value;
use validation::At;

use crate::compile::{Message, Ready, Scope, Written};
use crate::declared::declare;
use crate::field_path::{self, Step};
use crate::figures;
use crate::node::Node;
use crate::validate::for_items;

/// The longest message that an expression may make, in bytes.
const MESSAGE_MAX: usize = 5 * 1024;
const OUT_OF_BUDGET: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";

/// One rule of a place.
#[derive(Debug)]
pub struct Rule {
    written: Written,
    /// Why it cannot be run, or nothing if there is no rule.
    ready: Option<Result<Ready, String>>,
    /// From here to the field that faults are told of.
    field_path: Vec<Step>,
}

impl Rule {
    pub(crate) fn read(rule: &Value) -> Rule {
        Rule { written: Written::read(rule), ready: None, field_path: Vec::new() }
    }
}

/// Makes the rules of a whole schema ready.
pub(crate) fn compile(root: &mut Node) {
    if !root.ruled {
        return;
    }
    let Some(decl) = declare(root, "selfType") else { return };
    let objects = Arc::new(Objects::of(&decl));
    compile_place(root, &Arc::new(decl), &objects);
}

fn compile_place(node: &mut Node, decl: &Arc<Decl>, objects: &Arc<Objects>) {
    compile_rules(node, decl, objects);
    let mut further = std::mem::take(&mut node.all_of);
    further.iter_mut().for_each(|below| compile_place(below, decl, objects));
    node.all_of = further;
    for (name, below) in &mut node.properties {
        if !below.ruled {
            continue;
        }
        match (escaped(name), &decl.shape) {
            (Some(name), cel::Shape::Object(fields)) => {
                if let Some(field) = fields.get(&*name) {
                    compile_place(below, &field.decl.clone(), objects);
                }
            }
            (None, _) => compile(below),
            _ => {}
        }
    }
    for below in [&mut node.items, &mut node.additional].into_iter().flatten() {
        if let cel::Shape::List(item, _) | cel::Shape::Map(item) = &decl.shape {
            compile_place(below, &item.clone(), objects);
        }
    }
}

fn compile_rules(node: &mut Node, decl: &Arc<Decl>, objects: &Arc<Objects>) {
    if node.rules.is_empty() {
        return;
    }
    let begun = Instant::now();
    let scope = Scope::new(objects, decl);
    let mut rules = std::mem::take(&mut node.rules);
    for rule in &mut rules {
        rule.ready = rule.written.compile(&scope);
        rule.field_path = field_path::parse(&rule.written.field_path, node).unwrap_or_default();
    }
    node.rules = rules;
    node.decl = Some(decl.clone());
    figures::compiled(begun);
}

/// Runs every rule of an object, up to the budget of all together.
pub(crate) fn check(root: &Node, object: &At<'_>) {
    // Why it stopped has been told.
    let _ = Run { left: RUNTIME_BUDGET }.visit(root, object, false);
}

/// No rule is run any more; why has been told.
struct Stop;
type Going = Result<(), Stop>;

struct Run {
    /// What may still be spent.
    left: u64,
}

impl Run {
    /// A place and what is below. An item that cannot be told from its former self is as unchanged as
    /// the list it is in.
    fn visit(&mut self, node: &Node, at: &At<'_>, same: bool) -> Going {
        if at.is_absent() {
            return Ok(());
        }
        let same = if at.old().is_some() { at.unchanged() } else { same };
        self.rules(node, node, at, same)?;
        for (name, _) in at.entries() {
            if let Some(below) = node.field(name).filter(|below| below.ruled) {
                let field = match node.properties.contains_key(name) {
                    true => at.get(name),
                    false => at.key(name),
                };
                self.visit(below, &field, same)?;
            }
        }
        let mut going = Ok(());
        if let Some(below) = node.items.as_deref().filter(|below| below.ruled) {
            for_items(node, at, &mut |item| {
                if going.is_ok() {
                    going = self.visit(below, item, same);
                }
            });
        }
        going
    }

    /// The rules of a place, then those that `allOf` has for it.
    fn rules(&mut self, node: &Node, place: &Node, at: &At<'_>, same: bool) -> Going {
        if let Some(decl) = node.decl.as_deref().filter(|_| !node.rules.is_empty()) {
            let site = Site { at, decl, place, same };
            if self.left == 0 {
                site.invalid(OUT_OF_BUDGET);
                return Err(Stop);
            }
            let begun = Instant::now();
            let going = node.rules.iter().try_for_each(|rule| self.rule(rule, &site));
            figures::evaluated(begun);
            going?;
        }
        node.all_of.iter().try_for_each(|further| self.rules(further, place, at, same))
    }

    fn rule(&mut self, rule: &Rule, site: &Site<'_, '_>) -> Going {
        let ready = match &rule.ready {
            None => return Ok(()),
            Some(Err(fault)) => {
                site.invalid(&format!("rule compile error: {fault}"));
                return Ok(());
            }
            Some(Ok(ready)) => ready,
        };
        if ready.uses_old && site.old().is_none() && !rule.written.optional_old {
            return Ok(());
        }
        let outcome = ready.program.run(site.bindings(rule), PER_CALL_LIMIT);
        self.spend(&outcome, || site.invalid(OUT_OF_BUDGET))?;
        match outcome.value {
            Ok(Cel::Bool(true)) => Ok(()),
            Ok(_) => self.failed(rule, ready, site),
            Err(failure) => site.broken(rule, &failure),
        }
    }

    fn spend(&mut self, outcome: &Outcome<'_>, tell: impl FnOnce()) -> Going {
        match self.left.checked_sub(outcome.cost) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => {
                tell();
                Err(Stop)
            }
        }
    }

    fn failed(&mut self, rule: &Rule, ready: &Ready, site: &Site<'_, '_>) -> Going {
        let made = match &ready.message {
            Some(Ok(message)) => self.message(rule, message, site)?,
            _ => None,
        };
        // What an update leaves alone is not held against it.
        if site.same && !ready.uses_old {
            return Ok(());
        }
        let detail = made.unwrap_or_else(|| match rule.written.message.is_empty() {
            true => format!("failed rule: {}", rule.written.rule.trim()),
            false => rule.written.message.trim().to_owned(),
        });
        descend(site.at, &rule.field_path, &|at| site.told(at, rule, &detail));
        Ok(())
    }

    /// What the message's expression says, if it says something usable.
    fn message(
        &mut self,
        rule: &Rule,
        message: &Message,
        site: &Site<'_, '_>,
    ) -> Result<Option<String>, Stop> {
        let outcome = message.program.run(site.bindings(rule), PER_CALL_LIMIT);
        self.spend(&outcome, || {
            site.invalid("messageExpression evaluation failed due to running out of cost budget, no further validation rules will be run");
        })?;
        match outcome.value {
            Err(Failure::CostExceeded) => {
                let expression = &rule.written.message_expression;
                site.invalid(&format!("no further validation rules will be run due to call cost exceeds limit for messageExpression: {expression:?}"));
                Err(Stop)
            }
            Err(Failure::Error(_)) => Ok(None),
            Ok(value) => {
                let text = value.as_text().unwrap_or("").trim();
                let usable = !text.is_empty() && !text.contains('\n') && text.len() <= MESSAGE_MAX;
                Ok(usable.then(|| text.to_owned()))
            }
        }
    }
}

/// A place whose rules are run.
struct Site<'s, 'd> {
    at: &'s At<'d>,
    decl: &'s Decl,
    place: &'s Node,
    /// An update leaves it as it was.
    same: bool,
}

impl<'s> Site<'s, '_> {
    fn old(&self) -> Option<&'s Value> {
        self.at.old().filter(|old| !old.is_null())
    }

    fn bindings(&self, rule: &Rule) -> Vec<Binding<'s>> {
        let old = self.old().map(|old| Cel::of_json(old, self.decl));
        let old = match rule.written.optional_old {
            false => old,
            true => Some(old.transpose().map(Cel::optional)),
        };
        vec![Some(Cel::of_json(self.at.value(), self.decl)), old]
    }

    /// The schema's type, which stands for the value where a rule could not be run.
    fn type_name(&self) -> &'static str {
        let types = &self.place.types;
        types.first().copied().filter(|_| !self.place.int_or_string).unwrap_or("")
    }

    fn invalid(&self, detail: &str) {
        self.at.invalid_as(&self.type_name().into(), detail);
    }

    fn broken(&self, rule: &Rule, failure: &Failure) -> Going {
        let (name, text) = (rule.written.name(), failure.to_string());
        if *failure == Failure::CostExceeded {
            self.invalid(&format!("'{text}': no further validation rules will be run due to call cost exceeds limit for rule: {name}"));
            return Err(Stop);
        }
        match text.starts_with("no such overload") {
            true => self.invalid(&format!("'{text}': call arguments did not match a supported operator, function or macro signature for rule: {name}")),
            false => self.invalid(&format!("{text} evaluating rule: {name}")),
        }
        Ok(())
    }

    /// A rule that does not hold; objects and lists are not shown.
    fn told(&self, at: &At<'_>, rule: &Rule, detail: &str) {
        let hidden = matches!(self.type_name(), "object" | "array");
        let shown = at.with(self.at.value());
        match &*rule.written.reason {
            "FieldValueForbidden" => shown.forbidden(detail),
            "FieldValueRequired" => shown.required(detail),
            "FieldValueDuplicate" if hidden => {
                shown.report("FieldValueDuplicate", "Duplicate value")
            }
            "FieldValueDuplicate" => shown.duplicate(),
            _ if hidden => shown.invalid_omitted(detail),
            _ => shown.invalid(detail),
        }
    }
}

fn descend(at: &At<'_>, path: &[Step], tell: &dyn Fn(&At<'_>)) {
    match path {
        [] => tell(at),
        [Step::Field(name), rest @ ..] => descend(&at.get(name), rest, tell),
        [Step::Key(name), rest @ ..] => descend(&at.key(name), rest, tell),
    }
}
