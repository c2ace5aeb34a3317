//! Runs a plan and counts what it costs, by upstream's rules: a variable and each step into it
//! cost one, literals nothing, new lists and maps their base, calls their price.

pub(crate) mod composition;
mod paths;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::equal::{contains, equal};
use crate::error::{Error, Failure};
use crate::estimate::{LIST_COST, MAP_COST, STRUCT_COST};
use crate::library;
use crate::meter::Price;
use crate::plan::{CallNode, Conditional, FoldNode, Node, Operation, Plan, StructNode};
use crate::value::{Entries, Key, List, Map, Struct, Value};
use composition::Composition;

type Outcome<'v> = Result<Value<'v>, Failure>;

enum Slot<'v> {
    Empty,
    Value(Result<Value<'v>, Error>),
    /// An accumulator that nobody asked for yet.
    Later(&'v Node),
}

pub(crate) struct Machine<'c, 'v> {
    composition: Option<&'c mut Composition<'v>>,
    slots: Vec<Slot<'v>>,
    names: &'v [Box<str>],
    cost: u64,
    limit: u64,
}

/// What a variable is; `None` if it has no value this time.
pub type Binding<'v> = Option<Result<Value<'v>, Error>>;

pub(crate) fn run<'v>(
    plan: &'v Plan,
    names: &'v [Box<str>],
    variables: Vec<Binding<'v>>,
    limit: u64,
    composition: Option<&mut Composition<'v>>,
) -> (Outcome<'v>, u64) {
    let mut slots: Vec<Slot<'v>> =
        variables.into_iter().map(|value| value.map_or(Slot::Empty, Slot::Value)).collect();
    slots.resize_with(plan.slots, || Slot::Empty);
    let mut machine = Machine { composition, slots, names, cost: 0, limit };
    let value = machine.eval(&plan.root);
    (value, machine.cost)
}

fn not_bool<'v>() -> Outcome<'v> {
    Err(Error::no_overload().into())
}

impl<'v> Machine<'_, 'v> {
    fn charge(&mut self, cost: u64) -> Result<(), Failure> {
        self.cost = self.cost.saturating_add(cost);
        if self.cost > self.limit { Err(Failure::CostExceeded) } else { Ok(()) }
    }

    fn eval(&mut self, node: &'v Node) -> Outcome<'v> {
        match node {
            Node::Const(value) => Ok(value.clone()),
            Node::Path(path) => self.path(path),
            Node::Call(call) => self.call(call),
            Node::And(terms) => self.logic(terms, false),
            Node::Or(terms) => self.logic(terms, true),
            Node::Equal(sides, wanted) => self.equal(sides, *wanted),
            Node::Conditional(conditional) => self.conditional(conditional),
            Node::NotStrictlyFalse(inner) => self.not_strictly_false(inner),
            Node::List(parts) => self.list(parts),
            Node::Map(parts) => self.map(parts),
            Node::Member(value, items) => {
                let value = self.eval(value)?;
                Ok(Value::Bool(items.iter().any(|item| equal(item, &value).unwrap_or(false))))
            }
            Node::OptionalOr(sides, unwraps) => self.optional_or(sides, *unwraps),
            Node::Fold(fold) => self.fold(fold),
            Node::Struct(made) => self.structure(made),
        }
    }

    /// Errors of evaluation kept as values; running out of budget is none.
    fn attempt(&mut self, node: &'v Node) -> Result<Result<Value<'v>, Error>, Failure> {
        match self.eval(node) {
            Ok(value) => Ok(Ok(value)),
            Err(Failure::Error(error)) => Ok(Err(error)),
            Err(exceeded) => Err(exceeded),
        }
    }

    /// `&&` and `||`: one side that decides makes up for an error of the other.
    fn logic(&mut self, terms: &'v [Node; 2], decisive: bool) -> Outcome<'v> {
        let mut fault = None;
        for term in terms {
            match self.attempt(term)? {
                Ok(Value::Bool(value)) if value == decisive => return Ok(Value::Bool(decisive)),
                Ok(Value::Bool(_)) => {}
                Ok(_) => fault = fault.or(Some(Error::no_overload())),
                Err(error) => fault = fault.or(Some(error)),
            }
        }
        fault.map_or(Ok(Value::Bool(!decisive)), |error| Err(error.into()))
    }

    fn equal(&mut self, sides: &'v [Node; 2], wanted: bool) -> Outcome<'v> {
        let [left, right] = sides;
        let (left, right) = (self.attempt(left)?, self.attempt(right)?);
        let shown = |side: &Result<Value<'v>, Error>| side.clone().unwrap_or(Value::Null);
        let price = match (&left, &right) {
            (Ok(left), Ok(right)) => {
                Price::Shorter.of(&[left.clone(), right.clone()], &Value::Null)
            }
            _ => Price::Shorter.of(&[shown(&left), shown(&right)], &Value::Null),
        };
        self.charge(price)?;
        let same = equal(&left?, &right?);
        match same {
            Ok(same) => Ok(Value::Bool(same == wanted)),
            // What cannot be compared is not equal.
            Err(_) if !wanted => Ok(Value::Bool(true)),
            Err(error) => Err(error.into()),
        }
    }

    fn conditional(&mut self, conditional: &'v Conditional) -> Outcome<'v> {
        match self.eval(&conditional.condition)? {
            Value::Bool(true) => self.branch(&conditional.then),
            Value::Bool(false) => self.branch(&conditional.otherwise),
            _ => not_bool(),
        }
    }

    /// A variable as a branch costs its steps only.
    fn branch(&mut self, node: &'v Node) -> Outcome<'v> {
        match node {
            Node::Path(path) => self.resolve(path),
            other => self.eval(other),
        }
    }

    fn not_strictly_false(&mut self, inner: &'v Node) -> Outcome<'v> {
        let value = self.attempt(inner)?;
        self.charge(1)?;
        Ok(Value::Bool(!matches!(value, Ok(Value::Bool(false)))))
    }

    fn list(&mut self, parts: &'v [(Node, bool)]) -> Outcome<'v> {
        let items = self.items(parts);
        if items.as_ref().err() != Some(&Failure::CostExceeded) {
            self.charge(LIST_COST)?;
        }
        Ok(Value::list(items?))
    }

    fn items(&mut self, parts: &'v [(Node, bool)]) -> Result<Vec<Value<'v>>, Failure> {
        let mut items = Vec::with_capacity(parts.len());
        for (node, optional) in parts {
            match (self.eval(node)?, optional) {
                (value, false) => items.push(value),
                (Value::Optional(inner), true) => items.extend(inner.map(|v| (*v).clone())),
                (other, true) => {
                    let message = format!(
                        "cannot initialize optional list element from non-optional value {other}"
                    );
                    return Err(Error::new(message).into());
                }
            }
        }
        Ok(items)
    }

    fn map(&mut self, parts: &'v [(Node, Node, bool)]) -> Outcome<'v> {
        let entries = self.entries(parts);
        if entries.as_ref().err() != Some(&Failure::CostExceeded) {
            self.charge(MAP_COST)?;
        }
        Ok(Value::Map(Map::Made(Arc::new(entries?))))
    }

    fn entries(&mut self, parts: &'v [(Node, Node, bool)]) -> Result<Entries<'v>, Failure> {
        let mut entries = BTreeMap::new();
        for (key, value, optional) in parts {
            let key = self.eval(key)?;
            let value = self.eval(value)?;
            let known = Key::of(&key).ok_or_else(|| {
                Error::new(format!("unsupported key type: {}", key.type_of().name()))
            })?;
            let value = match (value, optional) {
                (value, false) => Some(value),
                (Value::Optional(inner), true) => inner.map(|v| (*v).clone()),
                (other, true) => {
                    let message = format!(
                        "cannot initialize optional entry '{key}' from non-optional value {other}"
                    );
                    return Err(Error::new(message).into());
                }
            };
            match value {
                Some(value) => entries.insert(known, (key, value)),
                None => entries.remove(&known),
            };
        }
        Ok(entries)
    }

    fn structure(&mut self, made: &'v StructNode) -> Outcome<'v> {
        let fields = self.structure_fields(made);
        if fields.as_ref().err() != Some(&Failure::CostExceeded) {
            self.charge(STRUCT_COST)?;
        }
        Ok(Value::Struct(Arc::new(Struct { name: made.name.clone(), fields: fields? })))
    }

    fn structure_fields(
        &mut self,
        made: &'v StructNode,
    ) -> Result<BTreeMap<Box<str>, Value<'v>>, Failure> {
        let mut fields = BTreeMap::new();
        for (name, node, optional) in &made.fields {
            match (self.eval(node)?, optional) {
                (value, false) => drop(fields.insert(name.clone(), value)),
                (Value::Optional(None), true) => drop(fields.remove(name)),
                (Value::Optional(Some(inner)), true) => {
                    fields.insert(name.clone(), (*inner).clone());
                }
                (other, true) => {
                    let message = format!(
                        "cannot initialize optional entry '{name}' from non-optional value {other}"
                    );
                    return Err(Error::new(message).into());
                }
            }
        }
        Ok(fields)
    }

    fn optional_or(&mut self, sides: &'v [Node; 2], unwraps: bool) -> Outcome<'v> {
        match self.eval(&sides[0])? {
            Value::Optional(None) => self.eval(&sides[1]),
            Value::Optional(Some(inner)) if unwraps => Ok((*inner).clone()),
            other => Ok(other),
        }
    }

    /// One or two arguments are all looked at, also after an error; of more, up to the first one, and
    /// unless that was the last the call costs nothing.
    fn call(&mut self, call: &'v CallNode) -> Outcome<'v> {
        let mut args = Vec::with_capacity(call.args.len());
        let mut fault = None;
        let last = call.args.len().saturating_sub(1);
        for (at, node) in call.args.iter().enumerate() {
            match self.attempt(node)? {
                Ok(value) => args.push(value),
                Err(error) if call.stops_early() && at < last => return Err(error.into()),
                Err(error) => {
                    args.push(Value::Null);
                    fault = fault.or(Some(error));
                }
            }
        }
        if let Some(error) = fault {
            self.charge(call.price.of(&args, &Value::Null))?;
            return Err(error.into());
        }
        if call.price.needs_result() {
            let result = invoke(call, args.clone());
            let shown = result.clone().unwrap_or(Value::Null);
            self.charge(call.price.of(&args, &shown))?;
            return Ok(result?);
        }
        self.charge(call.price.of(&args, &Value::Null))?;
        Ok(invoke(call, args)?)
    }

    fn fold(&mut self, fold: &'v FoldNode) -> Outcome<'v> {
        let range = self.eval(&fold.range)?;
        self.slots[fold.accumulator] = Slot::Later(&fold.init);
        match range {
            Value::List(list) => {
                for at in 0..list.len() {
                    let item = list.get(at);
                    let index = Ok(Value::Int(at as i64));
                    if !self.turn(
                        fold,
                        if fold.item2.is_some() { (index, item) } else { (item, index) },
                    )? {
                        break;
                    }
                }
            }
            Value::Map(map) => {
                for (key, value) in map.entries() {
                    if !self.turn(fold, (Ok(key), value))? {
                        break;
                    }
                }
            }
            other => {
                let message = format!("got '{}', expected iterable type", go_type(&other));
                return Err(Error::new(message).into());
            }
        }
        self.eval(&fold.result)
    }

    /// One item; whether there may be a next.
    fn turn(
        &mut self,
        fold: &'v FoldNode,
        items: (Result<Value<'v>, Error>, Result<Value<'v>, Error>),
    ) -> Result<bool, Failure> {
        self.slots[fold.item] = Slot::Value(items.0);
        if let Some(slot) = fold.item2 {
            self.slots[slot] = Slot::Value(items.1);
        }
        if matches!(self.attempt(&fold.condition)?, Ok(Value::Bool(false))) {
            return Ok(false);
        }
        let step = self.attempt(&fold.step)?;
        self.slots[fold.accumulator] = Slot::Value(step);
        Ok(true)
    }
}

fn invoke<'v>(call: &CallNode, mut args: Vec<Value<'v>>) -> Result<Value<'v>, Error> {
    match &call.operation {
        Operation::Function(function) => library::invoke(*function, &call.name, &args),
        Operation::Regex(regex) => library::search(&call.name, regex, &args),
        Operation::Add => {
            let (right, left) = (args.pop(), args.pop());
            library::add(left.unwrap_or(Value::Null), right.unwrap_or(Value::Null))
        }
        Operation::MapInsert => library::map_insert(args),
    }
}

/// A value's type as upstream's interpreter names it.
fn go_type(value: &Value<'_>) -> &'static str {
    match value {
        Value::Null => "types.Null",
        Value::Bool(_) => "types.Bool",
        Value::Int(_) => "types.Int",
        Value::Uint(_) => "types.Uint",
        Value::Double(_) => "types.Double",
        Value::String(_) => "types.String",
        Value::Bytes(_) => "types.Bytes",
        Value::Duration(_) => "types.Duration",
        Value::Timestamp(_) => "types.Timestamp",
        Value::Type(_) => "*types.Type",
        Value::Optional(_) => "*types.Optional",
        Value::Quantity(_) => "cel.Quantity",
        Value::Ip(_) => "cel.IP",
        Value::Cidr(_) => "cel.CIDR",
        Value::Url(_) => "cel.URL",
        Value::Semver(_) => "cel.Semver",
        Value::Format(_) => "cel.Format",
        Value::Struct(_) => "*dynamic.ObjectVal",
        Value::Authorization(_) => "library.authorizerVal",
        Value::Variables => "*lazy.MapValue",
        Value::List(_) | Value::Map(_) => "iterable",
    }
}

/// Whether a value is in a list or among a map's keys.
pub(crate) fn within(value: &Value<'_>, container: &Value<'_>) -> Option<Result<bool, Error>> {
    match container {
        Value::List(List::Made(items)) => {
            Some(Ok(items.iter().any(|item| equal(value, item).unwrap_or(false))))
        }
        Value::List(list) => Some(contains(list, value)),
        Value::Map(map) => Some(map.find(value).map(|found| found.is_some())),
        _ => None,
    }
}
