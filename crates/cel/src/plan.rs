//! A checked tree made ready to run: variables are numbered, functions and their prices looked up,
//! constants computed. What is constant here costs nothing at run time, as in upstream.

mod nodes;

use std::sync::Arc;

use regex::Regex;

use crate::ast::{ACCUMULATOR, Call, Expr, Fold, Kind, Struct};
use crate::checker::Checked;
use crate::error::Error;
use crate::library::Function;
use crate::meter::Price;
use crate::value::Value;
use nodes::{conditional, constant, index, into_path, list, map, member, operation, pair};

pub(crate) enum Node {
    Const(Value<'static>),
    /// A variable or value with fields and indices.
    Path(Box<Path>),
    Call(Box<CallNode>),
    And(Box<[Node; 2]>),
    Or(Box<[Node; 2]>),
    Equal(Box<[Node; 2]>, bool),
    Conditional(Box<Conditional>),
    NotStrictlyFalse(Box<Node>),
    List(Vec<(Node, bool)>),
    Map(Vec<(Node, Node, bool)>),
    /// Membership in a constant list.
    Member(Box<Node>, Vec<Value<'static>>),
    /// `or`, and with `true` `orValue`, of optionals.
    OptionalOr(Box<[Node; 2]>, bool),
    Fold(Box<FoldNode>),
    Struct(Box<StructNode>),
}

/// A message: its fields, and which of them are optional.
pub(crate) struct StructNode {
    pub(crate) name: Arc<str>,
    pub(crate) fields: Vec<(Box<str>, Node, bool)>,
}

pub(crate) struct Path {
    pub(crate) root: Root,
    pub(crate) steps: Vec<PathStep>,
    /// The last step is only asked for.
    pub(crate) test_only: bool,
}

pub(crate) enum Root {
    Slot(usize),
    /// The accumulator of a collecting macro, taken out so that it can grow in place.
    Take(usize),
    Value(Node),
    Conditional(Conditional),
}

pub(crate) struct PathStep {
    pub(crate) key: StepKey,
    pub(crate) optional: bool,
}

pub(crate) enum StepKey {
    Const(Value<'static>),
    Path(Path),
    Value(Node),
}

pub(crate) struct Conditional {
    pub(crate) condition: Node,
    pub(crate) then: Node,
    pub(crate) otherwise: Node,
}

pub(crate) struct CallNode {
    pub(crate) name: Box<str>,
    pub(crate) operation: Operation,
    pub(crate) args: Vec<Node>,
    pub(crate) price: Price,
}

impl CallNode {
    /// Whether arguments after one that fails are not looked at: upstream's calls of more than two,
    /// and those it plans as such.
    pub(crate) fn stops_early(&self) -> bool {
        self.args.len() > 2
            || matches!(self.operation, Operation::Regex(_))
            || &*self.name == "format"
    }
}

pub(crate) enum Operation {
    Function(Function),
    Add,
    MapInsert,
    Regex(Regex),
}

pub(crate) struct FoldNode {
    pub(crate) range: Node,
    pub(crate) item: usize,
    pub(crate) item2: Option<usize>,
    pub(crate) accumulator: usize,
    pub(crate) init: Node,
    pub(crate) condition: Node,
    pub(crate) step: Node,
    pub(crate) result: Node,
}

/// Every variable has a slot of its own; those of the environment come first.
pub(crate) struct Plan {
    pub(crate) root: Node,
    pub(crate) slots: usize,
}

pub(crate) fn plan(checked: &Checked, variables: &[Box<str>]) -> Result<Plan, Error> {
    let scopes = variables.iter().enumerate().map(|(slot, name)| (name.clone(), slot)).collect();
    let mut planner = Planner { checked, scopes, slots: variables.len(), taken: None };
    let root = planner.node(&checked.tree.root)?;
    Ok(Plan { root, slots: planner.slots })
}

struct Planner<'c> {
    checked: &'c Checked,
    scopes: Vec<(Box<str>, usize)>,
    slots: usize,
    /// The accumulator that the present step takes out.
    taken: Option<usize>,
}

impl Planner<'_> {
    fn node(&mut self, expr: &Expr) -> Result<Node, Error> {
        match &expr.kind {
            Kind::Literal(literal) => Ok(Node::Const(constant(literal))),
            Kind::Ident(name) => self.ident(expr, name),
            Kind::Select(select) => {
                let mut path = into_path(self.node(&select.operand)?);
                let key = StepKey::Const(Value::text(&*select.field));
                path.steps.push(PathStep { key, optional: false });
                path.test_only = select.test_only;
                Ok(Node::Path(Box::new(path)))
            }
            Kind::Call(call) => self.call(expr, call),
            Kind::List(elements) => {
                let parts = elements.iter().map(|e| Ok((self.node(&e.value)?, e.optional)));
                Ok(list(parts.collect::<Result<_, Error>>()?))
            }
            Kind::Map(entries) => {
                let parts = entries
                    .iter()
                    .map(|e| Ok((self.node(&e.key)?, self.node(&e.value)?, e.optional)));
                Ok(map(parts.collect::<Result<_, Error>>()?))
            }
            Kind::Struct(made) => self.structure(made),
            Kind::Fold(fold) => self.fold(fold),
        }
    }

    fn ident(&self, expr: &Expr, name: &str) -> Result<Node, Error> {
        if let Some(ty) = self.checked.type_names.get(&expr.id) {
            return Ok(Node::Const(Value::Type(Arc::new(ty.clone()))));
        }
        let found = self.scopes.iter().rev().find(|(known, _)| **known == *name);
        let (_, slot) = found.ok_or_else(|| Error::new(format!("no such attribute(s): {name}")))?;
        let root = if self.taken == Some(*slot) { Root::Take(*slot) } else { Root::Slot(*slot) };
        Ok(Node::Path(Box::new(Path { root, steps: Vec::new(), test_only: false })))
    }

    fn call(&mut self, expr: &Expr, call: &Call) -> Result<Node, Error> {
        let args = call.target.iter().chain(&call.args);
        let args = args.map(|arg| self.node(arg)).collect::<Result<Vec<_>, _>>()?;
        let overload = match self.checked.overloads_of(expr.id) {
            [one] => Some(*one),
            _ => None,
        };
        let name = &*call.function;
        match (name, pair(args)) {
            ("_&&_", Ok(pair)) => Ok(Node::And(pair)),
            ("_||_", Ok(pair)) => Ok(Node::Or(pair)),
            ("_==_", Ok(pair)) => Ok(Node::Equal(pair, true)),
            ("_!=_", Ok(pair)) => Ok(Node::Equal(pair, false)),
            ("_[_]", Ok(pair)) => Ok(index(*pair, false)),
            ("_[?_]" | "_?._", Ok(pair)) => Ok(index(*pair, true)),
            ("or", Ok(pair)) => Ok(Node::OptionalOr(pair, false)),
            ("orValue", Ok(pair)) => Ok(Node::OptionalOr(pair, true)),
            ("@in", Ok(pair)) if overload == Some("in_list") => member(*pair, name, overload),
            (_, Ok(pair)) => operation(name, overload, Vec::from(*pair)),
            ("_?_:_", Err(args)) => conditional(args),
            ("@not_strictly_false", Err(mut args)) if args.len() == 1 => {
                Ok(Node::NotStrictlyFalse(Box::new(args.remove(0))))
            }
            (_, Err(args)) => operation(name, overload, args),
        }
    }

    fn structure(&mut self, made: &Struct) -> Result<Node, Error> {
        let fields = made.fields.iter();
        let fields = fields.map(|f| Ok((f.name.clone(), self.node(&f.value)?, f.optional)));
        let fields = fields.collect::<Result<_, Error>>()?;
        Ok(Node::Struct(Box::new(StructNode { name: (*made.name).into(), fields })))
    }

    fn slot(&mut self) -> usize {
        self.slots += 1;
        self.slots - 1
    }

    fn fold(&mut self, fold: &Fold) -> Result<Node, Error> {
        let range = self.node(&fold.range)?;
        let init = self.node(&fold.init)?;
        let (accumulator, item) = (self.slot(), self.slot());
        let item2 = fold.item2.as_ref().map(|_| self.slot());
        let outer = self.scopes.len();
        self.scopes.push((fold.accumulator.clone(), accumulator));
        self.scopes.push((fold.item.clone(), item));
        if let (Some(name), Some(slot)) = (&fold.item2, item2) {
            self.scopes.push((name.clone(), slot));
        }
        let condition = self.node(&fold.condition)?;
        let collects = &*fold.accumulator == ACCUMULATOR
            && matches!(fold.init.kind, Kind::List(_) | Kind::Map(_));
        let before = std::mem::replace(&mut self.taken, collects.then_some(accumulator));
        let step = self.node(&fold.step)?;
        self.taken = before;
        self.scopes.truncate(outer + 1);
        let result = self.node(&fold.result)?;
        self.scopes.pop();
        Ok(Node::Fold(Box::new(FoldNode {
            range,
            item,
            item2,
            accumulator,
            init,
            condition,
            step,
            result,
        })))
    }
}
