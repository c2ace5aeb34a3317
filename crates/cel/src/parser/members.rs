//! What follows an expression directly: fields, calls, indices.

use super::{DEPTH_MAX, Parsed, Parser, START, START_OR_CLOSE, START_OR_OPTIONAL, Stop, starts};
use crate::ast::{Call, Expr, Kind, Literal, Select};
use crate::lexer::{Token, Word};
use crate::macros;

impl<'t> Parser<'t> {
    pub(super) fn member(&mut self, expecting: &str) -> Parsed {
        let mut operand = self.primary(expecting)?;
        loop {
            operand = match self.peek().word {
                Word::Mark(".") => self.select(operand)?,
                Word::Mark("[") => self.index(operand)?,
                _ => return Ok(operand),
            };
        }
    }

    fn select(&mut self, operand: Expr) -> Parsed {
        let dot = self.take();
        let optional = self.take_if("?");
        let name = self.peek();
        let field = match name.word {
            Word::Name => name.text,
            Word::QuotedName => {
                self.issues.add(Some(name.at), "unsupported syntax: '`'");
                name.text
            }
            Word::Mark(word @ ("true" | "false" | "null")) => {
                self.syntax(name.at, &format!("mismatched input '{word}' expecting IDENTIFIER"));
                return Err(Stop);
            }
            // An operator behind the dot is one all the same.
            Word::Mark("in") => {
                let _: Parsed = self.no_viable(dot.byte, name);
                return Ok(operand);
            }
            _ => return self.no_viable(dot.byte, name),
        };
        self.next += 1;
        if self.is("(") && name.word == Word::Name && !optional {
            return self.member_call(operand, field);
        }
        if optional {
            let id = self.nodes.id(name.at);
            let id_call = self.nodes.id(dot.at);
            let field = Expr::literal(id, Literal::String(field.into()));
            return self.measured(Expr::call(id_call, "_?._", vec![operand, field]));
        }
        let select = Select { operand, field: field.into(), test_only: false };
        self.node(dot.at, Kind::Select(Box::new(select)))
    }

    pub(super) fn no_viable<T>(&mut self, from: usize, bad: Token<'t>) -> Parsed<T> {
        let text = self.text.get(from..bad.byte).unwrap_or("");
        let end = if bad.word == Word::End { "" } else { bad.text };
        self.syntax(bad.at, &format!("no viable alternative at input '{text}{end}'"));
        Err(Stop)
    }

    fn member_call(&mut self, target: Expr, name: &str) -> Parsed {
        let at = self.take().at;
        let args = self.arguments()?;
        self.call_or_macro(at, name, Some(target), args)
    }

    pub(super) fn call_or_macro(
        &mut self,
        at: u32,
        name: &str,
        target: Option<Expr>,
        args: Vec<Expr>,
    ) -> Parsed {
        let id = self.nodes.id(at);
        let binds = self.bindings && macros::binds(name, target.as_ref(), args.len());
        if !binds && !macros::applies(name, args.len(), target.is_some()) {
            let call = Call { function: name.into(), target, args };
            return self.measured(Expr { id, kind: Kind::Call(Box::new(call)) });
        }
        let heights = &self.nodes.heights;
        let below = target.iter().chain(&args).map(|e| heights[e.id as usize]).max().unwrap_or(0);
        match macros::expand(&mut self.nodes, at, name, target, args) {
            Ok(expr) => {
                self.nodes.heights[expr.id as usize] = below;
                self.measured_at(expr, below)
            }
            Err((place, message)) => {
                self.issues.add(Some(place), message);
                Ok(Expr::literal(id, Literal::Null))
            }
        }
    }

    fn measured_at(&mut self, expr: Expr, below: u32) -> Parsed {
        self.nodes.heights[expr.id as usize] = below + 1;
        if below < DEPTH_MAX {
            return Ok(expr);
        }
        self.issues.add(None, "max recursion depth exceeded");
        Err(Stop)
    }

    pub(super) fn arguments(&mut self) -> Parsed<Vec<Expr>> {
        let mut args = Vec::new();
        let superfluous = !starts(&self.peek()) && self.ahead().word == Word::Mark(")");
        if superfluous && self.peek().word != Word::Mark(")") {
            self.extraneous(START_OR_CLOSE);
        }
        if self.take_if(")") {
            return Ok(args);
        }
        args.push(self.expr(START_OR_CLOSE)?);
        while self.take_if(",") {
            args.push(self.expr(START)?);
        }
        self.expect(")", None)?;
        Ok(args)
    }

    fn index(&mut self, operand: Expr) -> Parsed {
        let at = self.take().at;
        let function = if self.take_if("?") { "_[?_]" } else { "_[_]" };
        let id = self.nodes.id(at);
        let index = self.expr(START_OR_OPTIONAL)?;
        self.expect("]", None)?;
        self.measured(Expr::call(id, function, vec![operand, index]))
    }
}
