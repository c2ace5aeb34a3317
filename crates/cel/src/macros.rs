//! Macros: calls that become comprehensions, presence tests or conditionals before anything is
//! checked. The set is that of Kubernetes' environment: CEL's own, those of optionals, those with two
//! variables, and `sortBy`.

use crate::ast::{ACCUMULATOR, Call, Element, Expr, Fold, Kind, Literal, Select};
use crate::parser::Nodes;

/// Nodes from which on no macro may copy its target: chains of `optMap` double it at each link.
const NODES_MAX: usize = 100_000;

/// Where and why a macro's arguments are not what it takes.
type Fault = (u32, String);

pub(crate) fn applies(name: &str, args: usize, is_member: bool) -> bool {
    match (name, args) {
        ("has", 1) => !is_member,
        ("all" | "exists" | "exists_one" | "existsOne", 2 | 3)
        | ("map", 2 | 3)
        | ("filter" | "sortBy" | "optMap" | "optFlatMap", 2)
        | ("transformList" | "transformMap" | "transformMapEntry", 3 | 4) => is_member,
        _ => false,
    }
}

/// Whether the call is `cel.bind(name, value, inside)`, which some environments have.
pub(crate) fn binds(name: &str, target: Option<&Expr>, args: usize) -> bool {
    let is_cel = |target: &Expr| matches!(&target.kind, Kind::Ident(name) if &**name == "cel");
    name == "bind" && args == 3 && target.is_some_and(is_cel)
}

pub(crate) fn expand(
    nodes: &mut Nodes,
    at: u32,
    name: &str,
    target: Option<Expr>,
    args: Vec<Expr>,
) -> Result<Expr, Fault> {
    let mut maker = Maker { nodes, at };
    let Some(target) = target else { return maker.has(args) };
    match name {
        "bind" => maker.named(args),
        "map" | "filter" => maker.one_variable_list(name, target, args),
        "optMap" | "optFlatMap" => maker.optional(name, target, args),
        "sortBy" => maker.sort_by(target, args),
        "transformList" | "transformMap" | "transformMapEntry" => {
            maker.transform(name, target, args)
        }
        _ => maker.quantifier(name, target, args),
    }
}

struct Maker<'n> {
    nodes: &'n mut Nodes,
    at: u32,
}

/// A comprehension's parts besides its range and variables.
struct Parts {
    init: Expr,
    condition: Expr,
    step: Expr,
    result: Expr,
}

impl Maker<'_> {
    fn node(&mut self, kind: Kind) -> Expr {
        Expr { id: self.nodes.id(self.at), kind }
    }

    fn literal(&mut self, value: Literal) -> Expr {
        self.node(Kind::Literal(value))
    }

    fn accumulator(&mut self) -> Expr {
        self.node(Kind::Ident(ACCUMULATOR.into()))
    }

    fn call(&mut self, function: &str, args: Vec<Expr>) -> Expr {
        self.node(Kind::Call(Box::new(Call { function: function.into(), target: None, args })))
    }

    fn member_call(&mut self, function: &str, target: Expr, args: Vec<Expr>) -> Expr {
        let call = Call { function: function.into(), target: Some(target), args };
        self.node(Kind::Call(Box::new(call)))
    }

    fn list_of(&mut self, value: Expr) -> Expr {
        self.node(Kind::List(vec![Element { value, optional: false }]))
    }

    fn fault<T>(&self, at: &Expr, message: impl Into<String>) -> Result<T, Fault> {
        Err((self.nodes.place(at.id), message.into()))
    }

    /// The name of a variable.
    fn variable(&self, expr: &Expr, otherwise: &str) -> Result<Box<str>, Fault> {
        match &expr.kind {
            Kind::Ident(name) if &**name == "__result__" => {
                self.fault(expr, "iteration variable overwrites accumulator variable")
            }
            Kind::Ident(name) => Ok(name.clone()),
            _ => self.fault(expr, otherwise),
        }
    }

    fn has(&mut self, mut args: Vec<Expr>) -> Result<Expr, Fault> {
        let Some(argument) = args.pop() else { return Err((self.at, String::new())) };
        match argument.kind {
            Kind::Select(select) if !select.test_only => {
                let tested = Select { test_only: true, ..*select };
                Ok(self.node(Kind::Select(Box::new(tested))))
            }
            _ => self.fault(&argument, "invalid argument to has() macro"),
        }
    }

    fn fold(&mut self, range: Expr, items: (Box<str>, Option<Box<str>>), parts: Parts) -> Expr {
        self.node(Kind::Fold(Box::new(Fold {
            range,
            item: items.0,
            item2: items.1,
            accumulator: ACCUMULATOR.into(),
            init: parts.init,
            condition: parts.condition,
            step: parts.step,
            result: parts.result,
        })))
    }

    /// `all`, `exists`, `exists_one`, over one variable or two.
    fn quantifier(&mut self, name: &str, target: Expr, mut args: Vec<Expr>) -> Result<Expr, Fault> {
        let items = self.variables(&args[..args.len() - 1])?;
        let Some(test) = args.pop() else { return Err((self.at, String::new())) };
        let parts = match name {
            "all" => self.all(test),
            "exists" => self.exists(test),
            _ => self.exists_one(test),
        };
        Ok(self.fold(target, items, parts))
    }

    fn variables(&self, args: &[Expr]) -> Result<(Box<str>, Option<Box<str>>), Fault> {
        let simple = "argument must be a simple name";
        let first = self.variable(&args[0], simple)?;
        let Some(arg) = args.get(1) else { return Ok((first, None)) };
        let second = self.variable(arg, simple)?;
        if first == second {
            return self.fault(arg, format!("duplicate variable name: {first}"));
        }
        Ok((first, Some(second)))
    }

    fn all(&mut self, test: Expr) -> Parts {
        let (accumulator, again) = (self.accumulator(), self.accumulator());
        Parts {
            init: self.literal(Literal::Bool(true)),
            condition: self.call("@not_strictly_false", vec![accumulator]),
            step: self.call("_&&_", vec![again, test]),
            result: self.accumulator(),
        }
    }

    fn exists(&mut self, test: Expr) -> Parts {
        let (accumulator, again) = (self.accumulator(), self.accumulator());
        let not = self.call("!_", vec![accumulator]);
        Parts {
            init: self.literal(Literal::Bool(false)),
            condition: self.call("@not_strictly_false", vec![not]),
            step: self.call("_||_", vec![again, test]),
            result: self.accumulator(),
        }
    }

    fn exists_one(&mut self, test: Expr) -> Parts {
        let (accumulator, one) = (self.accumulator(), self.literal(Literal::Int(1)));
        let more = self.call("_+_", vec![accumulator, one]);
        let same = self.accumulator();
        let (accumulator, one) = (self.accumulator(), self.literal(Literal::Int(1)));
        Parts {
            init: self.literal(Literal::Int(0)),
            condition: self.literal(Literal::Bool(true)),
            step: self.call("_?_:_", vec![test, more, same]),
            result: self.call("_==_", vec![accumulator, one]),
        }
    }

    /// The accumulator grows by a list of one.
    fn append(&mut self, value: Expr) -> Expr {
        let (accumulator, list) = (self.accumulator(), self.list_of(value));
        self.call("_+_", vec![accumulator, list])
    }

    /// Parts of a comprehension that collects: each item's step, if the filter lets it through.
    fn collect(&mut self, init: Kind, step: Expr, filter: Option<Expr>) -> Parts {
        let step = match filter {
            None => step,
            Some(filter) => {
                let same = self.accumulator();
                self.call("_?_:_", vec![filter, step, same])
            }
        };
        Parts {
            init: self.node(init),
            condition: self.literal(Literal::Bool(true)),
            step,
            result: self.accumulator(),
        }
    }

    fn one_variable_list(
        &mut self,
        name: &str,
        target: Expr,
        args: Vec<Expr>,
    ) -> Result<Expr, Fault> {
        let item = self.variable(&args[0], "argument is not an identifier")?;
        let mut args = args.into_iter();
        let (first, second, third) = (args.next(), args.next(), args.next());
        let (value, filter) = match (name, first, second, third) {
            ("filter", Some(item), filter, _) => (item, filter),
            (_, _, filter, Some(value)) => (value, filter),
            (_, _, Some(value), None) => (value, None),
            _ => return Err((self.at, String::new())),
        };
        let step = self.append(value);
        let parts = self.collect(Kind::List(Vec::new()), step, filter);
        Ok(self.fold(target, (item, None), parts))
    }

    fn transform(&mut self, name: &str, target: Expr, mut args: Vec<Expr>) -> Result<Expr, Fault> {
        let items = self.variables(&args[..2])?;
        let Some(value) = args.pop() else { return Err((self.at, String::new())) };
        let filter = (args.len() == 3).then(|| args.pop()).flatten();
        let (init, step) = match name {
            "transformList" => (Kind::List(Vec::new()), self.append(value)),
            "transformMap" => {
                let (accumulator, key) =
                    (self.accumulator(), self.node(Kind::Ident(items.0.clone())));
                let step = self.call("cel.@mapInsert", vec![accumulator, key, value]);
                (Kind::Map(Vec::new()), step)
            }
            _ => {
                let accumulator = self.accumulator();
                (Kind::Map(Vec::new()), self.call("cel.@mapInsert", vec![accumulator, value]))
            }
        };
        let parts = self.collect(init, step, filter);
        Ok(self.fold(target, items, parts))
    }

    /// A value with a name: a comprehension over nothing, whose accumulator is the name.
    fn bind(&mut self, name: &str, value: Expr, inside: Expr) -> Expr {
        let (range, condition) =
            (self.node(Kind::List(Vec::new())), self.literal(Literal::Bool(false)));
        let step = self.node(Kind::Ident(name.into()));
        let fold = Fold {
            range,
            item: "#unused".into(),
            item2: None,
            accumulator: name.into(),
            init: value,
            condition,
            step,
            result: inside,
        };
        self.node(Kind::Fold(Box::new(fold)))
    }

    fn named(&mut self, args: Vec<Expr>) -> Result<Expr, Fault> {
        const SIMPLE: &str = "cel.bind() variable names must be simple identifiers";
        let mut args = args.into_iter();
        let (Some(name), Some(value), Some(inside)) = (args.next(), args.next(), args.next())
        else {
            return Err((self.at, SIMPLE.to_owned()));
        };
        match &name.kind {
            Kind::Ident(word) => Ok(self.bind(word, value, inside)),
            _ => self.fault(&name, SIMPLE),
        }
    }

    fn optional(&mut self, name: &str, target: Expr, mut args: Vec<Expr>) -> Result<Expr, Fault> {
        let simple = format!("{name}() variable name must be a simple identifier");
        let Kind::Ident(variable) = args[0].kind.clone() else {
            return self.fault(&args[0], simple);
        };
        let Some(inside) = args.pop() else { return Err((self.at, simple)) };
        if self.nodes.count() > NODES_MAX {
            return Err((self.at, "expression grows too large by its macros".into()));
        }
        let again = self.copy(&target);
        let has = self.member_call("hasValue", target, Vec::new());
        let value = self.member_call("value", again, Vec::new());
        let mut bound = self.bind(&variable, value, inside);
        if name == "optMap" {
            bound = self.call("optional.of", vec![bound]);
        }
        let none = self.call("optional.none", Vec::new());
        Ok(self.call("_?_:_", vec![has, bound, none]))
    }

    fn sort_by(&mut self, target: Expr, args: Vec<Expr>) -> Result<Expr, Fault> {
        const INPUT: &str = "@__sortBy_input__";
        if matches!(target.kind, Kind::Literal(_) | Kind::Map(_) | Kind::Struct(_)) {
            let message = "sortBy can only be applied to a list, identifier, comprehension, call or select expression";
            return self.fault(&target, message);
        }
        let (range, list) =
            (self.node(Kind::Ident(INPUT.into())), self.node(Kind::Ident(INPUT.into())));
        let keys = self.one_variable_list("map", range, args)?;
        let sorted = self.member_call("@sortByAssociatedKeys", list, vec![keys]);
        Ok(self.bind(INPUT, target, sorted))
    }

    /// The same tree under new numbers.
    fn copy(&mut self, expr: &Expr) -> Expr {
        let mut copy = expr.clone();
        self.renumber(&mut copy);
        copy
    }

    fn renumber(&mut self, expr: &mut Expr) {
        let at = self.nodes.place(expr.id);
        expr.id = self.nodes.id(at);
        match &mut expr.kind {
            Kind::Literal(_) | Kind::Ident(_) => {}
            Kind::Struct(made) => made.fields.iter_mut().for_each(|field| {
                field.id = self.nodes.id(self.nodes.place(field.id));
                self.renumber(&mut field.value);
            }),
            Kind::Select(select) => self.renumber(&mut select.operand),
            Kind::Call(call) => {
                call.target.iter_mut().chain(&mut call.args).for_each(|e| self.renumber(e));
            }
            Kind::List(elements) => elements.iter_mut().for_each(|e| self.renumber(&mut e.value)),
            Kind::Map(entries) => entries.iter_mut().for_each(|e| {
                self.renumber(&mut e.key);
                self.renumber(&mut e.value);
            }),
            Kind::Fold(fold) => {
                let Fold { range, init, condition, step, result, .. } = &mut **fold;
                [range, init, condition, step, result].into_iter().for_each(|e| self.renumber(e));
            }
        }
    }
}
