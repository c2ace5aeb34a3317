//! An expression as a tree. Macros are expanded already; every node has a number, by which the
//! checker's and the estimator's findings are kept.

/// A node's number: index into [`Tree::places`].
pub(crate) type Id = u32;

/// A parsed expression.
#[derive(Debug, Clone)]
pub(crate) struct Tree {
    pub(crate) root: Expr,
    /// Where each node stands in the text, in characters.
    pub(crate) places: Vec<u32>,
}

#[derive(Debug, Clone)]
pub(crate) struct Expr {
    pub(crate) id: Id,
    pub(crate) kind: Kind,
}

#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Literal(Literal),
    Ident(Box<str>),
    Select(Box<Select>),
    Call(Box<Call>),
    List(Vec<Element>),
    Map(Vec<Entry>),
    /// A message literal: `Object{…}` and `JSONPatch{…}`, where the environment has these types.
    Struct(Box<Struct>),
    Fold(Box<Fold>),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Box<str>),
    Bytes(Box<[u8]>),
}

#[derive(Debug, Clone)]
pub(crate) struct Select {
    pub(crate) operand: Expr,
    pub(crate) field: Box<str>,
    /// `has(operand.field)`.
    pub(crate) test_only: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) function: Box<str>,
    /// What a member function is called on.
    pub(crate) target: Option<Expr>,
    pub(crate) args: Vec<Expr>,
}

#[derive(Debug, Clone)]
pub(crate) struct Element {
    pub(crate) value: Expr,
    /// `[?value]`.
    pub(crate) optional: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Struct {
    pub(crate) name: Box<str>,
    pub(crate) fields: Vec<StructField>,
}

#[derive(Debug, Clone)]
pub(crate) struct StructField {
    pub(crate) id: Id,
    pub(crate) name: Box<str>,
    pub(crate) value: Expr,
    /// `Name{?field: value}`.
    pub(crate) optional: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: Expr,
    pub(crate) value: Expr,
    /// `{?key: value}`.
    pub(crate) optional: bool,
}

/// A comprehension: what macros over lists and maps become. The accumulator starts as `init` and
/// becomes `step` for each item while `condition` holds; the value is `result`.
#[derive(Debug, Clone)]
pub(crate) struct Fold {
    pub(crate) range: Expr,
    pub(crate) item: Box<str>,
    /// The second variable: a map's value or a list's item, `item` being the key or index then.
    pub(crate) item2: Option<Box<str>>,
    pub(crate) accumulator: Box<str>,
    pub(crate) init: Expr,
    pub(crate) condition: Expr,
    pub(crate) step: Expr,
    pub(crate) result: Expr,
}

/// The name macros give their accumulator; no text can spell it.
pub(crate) const ACCUMULATOR: &str = "@result";

impl Expr {
    pub(crate) fn call(id: Id, function: &str, args: Vec<Expr>) -> Expr {
        let call = Call { function: function.into(), target: None, args };
        Expr { id, kind: Kind::Call(Box::new(call)) }
    }

    pub(crate) fn ident(id: Id, name: &str) -> Expr {
        Expr { id, kind: Kind::Ident(name.into()) }
    }

    pub(crate) fn literal(id: Id, value: Literal) -> Expr {
        Expr { id, kind: Kind::Literal(value) }
    }

    /// `a.b.c` as one name.
    pub(crate) fn qualified_name(&self) -> Option<String> {
        match &self.kind {
            Kind::Ident(name) => Some(name.to_string()),
            Kind::Select(select) if !select.test_only => {
                Some(format!("{}.{}", select.operand.qualified_name()?, select.field))
            }
            _ => None,
        }
    }

    /// Every node below this one and itself, outermost first.
    pub(crate) fn walk<'e>(&'e self, see: &mut dyn FnMut(&'e Expr)) {
        see(self);
        for child in self.children() {
            child.walk(see);
        }
    }

    pub(crate) fn children(&self) -> Vec<&Expr> {
        match &self.kind {
            Kind::Literal(_) | Kind::Ident(_) => Vec::new(),
            Kind::Struct(made) => made.fields.iter().map(|field| &field.value).collect(),
            Kind::Select(select) => vec![&select.operand],
            Kind::Call(call) => call.target.iter().chain(&call.args).collect(),
            Kind::List(elements) => elements.iter().map(|e| &e.value).collect(),
            Kind::Map(entries) => entries.iter().flat_map(|e| [&e.key, &e.value]).collect(),
            Kind::Fold(fold) => {
                vec![&fold.range, &fold.init, &fold.condition, &fold.step, &fold.result]
            }
        }
    }
}
