//! The least and the most an expression can cost, from declared sizes (cel-go `checker/cost.go`).
//! The unit is upstream's: one step of the interpreter. Definitions are refused by these numbers,
//! so they are upstream's to the digit.

pub(crate) mod calls;
mod own;
mod range;

use std::collections::HashMap;

use crate::ast::{ACCUMULATOR, Element, Entry, Expr, Fold, Id, Kind, Literal, Select};
use crate::checker::Checked;
use crate::declared::{Decl, Shape};
use crate::types::Type;

pub use range::Range;

pub(crate) const LIST_COST: u64 = 10;
pub(crate) const MAP_COST: u64 = 30;
pub(crate) const STRUCT_COST: u64 = 40;
/// Looking at one character.
pub(crate) const PER_CHARACTER: f64 = 0.1;
/// One character of a pattern, for each step over the text.
pub(crate) const PER_PATTERN_CHARACTER: f64 = 0.25;

/// A step from a declared place to one below. The first is a variable's name.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Name(Box<str>),
    /// Items of a list, or values of a map.
    Below,
    Key,
    Index,
}

/// Sizes of what a list or map holds.
#[derive(Debug, Clone, Copy)]
struct EntrySize {
    is_list: bool,
    key: Range,
    value: Range,
}

impl EntrySize {
    fn union(self, other: EntrySize) -> EntrySize {
        EntrySize { key: self.key.union(other.key), value: self.value.union(other.value), ..self }
    }
}

struct Local {
    name: Box<str>,
    path: Vec<Step>,
    size: Option<Range>,
    entries: Option<EntrySize>,
}

/// What a call costs by itself, and how large its result is, if that is known.
struct CallCost {
    cost: Range,
    size: Option<Range>,
}

struct Coster<'c> {
    checked: &'c Checked,
    root: Option<&'c Decl>,
    paths: HashMap<Id, Vec<Step>>,
    sizes: HashMap<Id, Range>,
    entries: HashMap<Id, EntrySize>,
    locals: Vec<Local>,
}

/// The cost, where variables hold data of the declaration.
pub(crate) fn estimate(checked: &Checked, root: Option<&Decl>) -> Range {
    let mut coster = Coster {
        checked,
        root,
        paths: HashMap::new(),
        sizes: HashMap::new(),
        entries: HashMap::new(),
        locals: Vec::new(),
    };
    coster.cost(&checked.tree.root)
}

impl<'c> Coster<'c> {
    fn cost(&mut self, expr: &'c Expr) -> Range {
        match &expr.kind {
            Kind::Literal(_) => Range::fixed(0),
            Kind::Struct(made) => made
                .fields
                .iter()
                .fold(Range::fixed(STRUCT_COST), |sum, field| sum.plus(self.cost(&field.value))),
            Kind::Ident(name) => self.ident(expr, name),
            Kind::Select(select) => self.select(expr, select),
            Kind::Call(call) => self.call(expr, call),
            Kind::List(elements) => self.list(expr, elements),
            Kind::Map(entries) => self.map(expr, entries),
            Kind::Fold(fold) if is_bind(fold) => self.bind(expr, fold),
            Kind::Fold(fold) => self.fold(expr, fold),
        }
    }

    fn local(&self, name: &str) -> Option<&Local> {
        self.locals.iter().rev().find(|local| &*local.name == name)
    }

    fn ident(&mut self, expr: &Expr, name: &str) -> Range {
        let path = self.local(name).map(|local| local.path.clone());
        self.paths.insert(expr.id, path.unwrap_or_else(|| vec![Step::Name(name.into())]));
        Range::fixed(1)
    }

    fn path(&self, expr: &Expr) -> Vec<Step> {
        if let Kind::Ident(name) = &expr.kind
            && let Some(local) = self.local(name)
        {
            return local.path.clone();
        }
        self.paths.get(&expr.id).cloned().unwrap_or_default()
    }

    fn path_and(&self, expr: &Expr, step: Step) -> Vec<Step> {
        let mut path = self.path(expr);
        path.push(step);
        path
    }

    fn select(&mut self, expr: &Expr, select: &'c Select) -> Range {
        let operand = self.cost(&select.operand);
        if select.test_only {
            return operand;
        }
        self.paths
            .insert(expr.id, self.path_and(&select.operand, Step::Name(select.field.clone())));
        match self.checked.type_of(&select.operand) {
            Type::Map(..) | Type::Object(_) | Type::Var(_) => operand.plus(Range::fixed(1)),
            _ => operand,
        }
    }

    fn list(&mut self, expr: &Expr, elements: &'c [Element]) -> Range {
        let mut cost = Range::fixed(LIST_COST);
        let mut item = nothing_yet(elements.is_empty());
        for element in elements {
            cost = cost.plus(self.cost(&element.value));
            item = item.union(self.size_or_unknown(&element.value));
        }
        let entries = EntrySize { is_list: true, key: Range::fixed(1), value: item };
        self.entries.insert(expr.id, entries);
        cost
    }

    fn map(&mut self, expr: &Expr, entries: &'c [Entry]) -> Range {
        let mut cost = Range::fixed(MAP_COST);
        let (mut key, mut value) =
            (nothing_yet(entries.is_empty()), nothing_yet(entries.is_empty()));
        for entry in entries {
            cost = cost.plus(self.cost(&entry.key)).plus(self.cost(&entry.value));
            key = key.union(self.size_or_unknown(&entry.key));
            value = value.union(self.size_or_unknown(&entry.value));
        }
        self.entries.insert(expr.id, EntrySize { is_list: false, key, value });
        cost
    }

    fn push_local(&mut self, name: &str, value: &Expr) {
        let (path, size, entries) = (self.path(value), self.size(value), self.entry_size(value));
        self.locals.push(Local { name: name.into(), path, size, entries });
    }

    /// An item variable: `step` says which part of the range it takes.
    fn push_item(&mut self, name: &str, range: &Expr, step: Step) {
        let entries = self.entry_size(range);
        let size = entries.map(|e| if step == Step::Below { e.value } else { e.key });
        let path = self.path_and(range, step);
        self.locals.push(Local { name: name.into(), path, size, entries: None });
    }

    fn push_items(&mut self, fold: &Fold) {
        let is_list = match self.entry_size(&fold.range) {
            Some(entries) => entries.is_list,
            None => matches!(self.checked.type_of(&fold.range), Type::List(_)),
        };
        let key = if is_list { Step::Index } else { Step::Key };
        match &fold.item2 {
            Some(second) => {
                self.push_item(&fold.item, &fold.range, key);
                self.push_item(second, &fold.range, Step::Below);
            }
            None => {
                self.push_item(&fold.item, &fold.range, if is_list { Step::Below } else { key });
            }
        }
    }

    fn fold(&mut self, expr: &Expr, fold: &'c Fold) -> Range {
        let before = self.cost(&fold.range).plus(self.cost(&fold.init));
        self.push_local(&fold.accumulator, &fold.init);
        let outer = self.locals.len();
        self.push_items(fold);
        let each = self.cost(&fold.condition).plus(self.cost(&fold.step));
        self.locals.truncate(outer);
        let result = self.cost(&fold.result);
        self.locals.pop();
        let count = self.size_or_unknown(&fold.range);
        self.fold_size(expr, fold, count);
        before.plus(result).plus(count.times(each))
    }

    fn fold_size(&mut self, expr: &Expr, fold: &Fold, count: Range) {
        match fold.init.kind {
            Kind::Literal(_) => {
                let size = self.size(&fold.init);
                self.set_size(expr.id, size);
            }
            Kind::List(_) | Kind::Map(_) => {
                self.set_size(expr.id, Some(count));
                if let Some(entries) = self.entry_size(&fold.step) {
                    self.entries.insert(expr.id, entries);
                }
            }
            _ => {}
        }
    }

    fn bind(&mut self, expr: &Expr, fold: &'c Fold) -> Range {
        let before = self.cost(&fold.range).plus(self.cost(&fold.init));
        self.push_local(&fold.accumulator, &fold.init);
        let result = self.cost(&fold.result);
        self.locals.pop();
        self.copy_size(expr.id, &fold.result);
        before.plus(result)
    }

    fn copy_size(&mut self, id: Id, from: &Expr) {
        let size = self.size(from);
        self.set_size(id, size);
        if let Some(entries) = self.entry_size(from) {
            self.entries.insert(id, entries);
        }
    }

    fn set_size(&mut self, id: Id, size: Option<Range>) {
        if let Some(size) = size {
            self.sizes.insert(id, size);
        }
    }

    fn size_or_unknown(&mut self, expr: &Expr) -> Range {
        self.size(expr).unwrap_or(Range::UNKNOWN)
    }

    /// How many characters, items or entries a value has.
    fn size(&mut self, expr: &Expr) -> Option<Range> {
        if let Some(size) = self.sizes.get(&expr.id) {
            return Some(*size);
        }
        if let Some(size) = written_size(expr) {
            return Some(Range::fixed(size));
        }
        if let Some(size) = self.declared_size(&self.path(expr)) {
            self.sizes.insert(expr.id, size);
            return Some(size);
        }
        if is_scalar(self.checked.type_of(expr)) {
            return Some(Range::fixed(1));
        }
        match &expr.kind {
            Kind::Ident(name) => self.local(name)?.size,
            _ => None,
        }
    }

    fn entry_size(&self, expr: &Expr) -> Option<EntrySize> {
        if let Some(entries) = self.entries.get(&expr.id) {
            return Some(*entries);
        }
        match &expr.kind {
            Kind::Ident(name) => self.local(name)?.entries,
            _ => None,
        }
    }

    /// The declared limit at a path; its first step is not looked at, as upstream does not.
    fn declared_size(&self, path: &[Step]) -> Option<Range> {
        let (_, below) = path.split_first()?;
        let mut decl = self.root?;
        let mut keys = false;
        for step in below {
            if keys {
                return None;
            }
            match (step, &decl.shape) {
                (Step::Below, Shape::List(item, _)) => decl = item,
                (Step::Below, Shape::Map(value)) => decl = value,
                (Step::Key, Shape::Map(_)) => keys = true,
                (Step::Name(name), Shape::Object(_)) => decl = decl.field(name)?,
                _ => return None,
            }
        }
        // Keys have the plain string type, of which no limit is declared.
        Some(Range { min: 0, max: if keys { 0 } else { decl.max } })
    }
}

/// The size of the things in a literal before the first was seen.
fn nothing_yet(is_empty: bool) -> Range {
    Range { min: if is_empty { 0 } else { u64::MAX }, max: 0 }
}

/// Macros that name a value are comprehensions over nothing that never run.
fn is_bind(fold: &Fold) -> bool {
    matches!(&fold.range.kind, Kind::List(items) if items.is_empty())
        && matches!(fold.condition.kind, Kind::Literal(Literal::Bool(false)))
        && &*fold.accumulator != ACCUMULATOR
}

/// What the text alone says.
fn written_size(expr: &Expr) -> Option<u64> {
    Some(match &expr.kind {
        Kind::Literal(Literal::String(text)) => text.chars().count() as u64,
        Kind::Literal(Literal::Bytes(bytes)) => bytes.len() as u64,
        Kind::Literal(_) => 1,
        Kind::List(elements) => elements.len() as u64,
        Kind::Map(entries) => entries.len() as u64,
        _ => return None,
    })
}

fn is_scalar(ty: &Type) -> bool {
    match ty {
        Type::Bool | Type::Double | Type::Duration | Type::Int | Type::Timestamp | Type::Uint => {
            true
        }
        other => other.unwrap_optional().is_some_and(is_scalar),
    }
}
