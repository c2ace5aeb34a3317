//! Names, literals, lists, maps, and what stands in parentheses.

use super::{Parsed, Parser, RESERVED, START, starts};
use crate::ast::{Element, Entry, Expr, Kind, Literal, Struct, StructField};
use crate::lexer::{Token, Word};
use crate::literal;

impl<'t> Parser<'t> {
    pub(super) fn primary(&mut self, expecting: &str) -> Parsed {
        let token = self.peek();
        match token.word {
            Word::Name => self.name(None),
            Word::Mark(".") if self.ahead().word == Word::Name => {
                self.next += 1;
                self.name(Some(token.at))
            }
            Word::Mark(".") => {
                let bad = self.ahead();
                self.no_viable(token.byte, bad)
            }
            Word::Mark("(") => {
                self.next += 1;
                let inside = self.expr(START)?;
                self.expect(")", None)?;
                Ok(inside)
            }
            Word::Mark("[") => self.list(),
            Word::Mark("{") => self.map(),
            Word::Mark("-") if self.ahead_is_number() => {
                self.next += 1;
                self.number(token.at, "-")
            }
            Word::Int | Word::Uint | Word::Float => self.number(token.at, ""),
            _ => self.constant(token, expecting),
        }
    }

    fn constant(&mut self, token: Token<'t>, expecting: &str) -> Parsed {
        let value = match token.word {
            Word::String => literal::unquote(token.text).map(|text| Literal::String(text.into())),
            Word::Bytes => literal::unquote_bytes(token.text).map(|b| Literal::Bytes(b.into())),
            Word::Mark("true") => Ok(Literal::Bool(true)),
            Word::Mark("false") => Ok(Literal::Bool(false)),
            Word::Mark("null") => Ok(Literal::Null),
            // One superfluous word is passed over.
            _ if token.word != Word::End && starts(&self.ahead()) => {
                self.extraneous(expecting);
                return self.primary(START);
            }
            _ => return self.mismatched(expecting),
        };
        self.next += 1;
        let value = value.unwrap_or_else(|fault| {
            self.issues.add(Some(token.at), fault);
            Literal::Null
        });
        self.node(token.at, Kind::Literal(value))
    }

    fn number(&mut self, at: u32, sign: &str) -> Parsed {
        let token = self.take();
        let (digits, radix) =
            token.text.strip_prefix("0x").map_or((token.text, 10), |hex| (hex, 16));
        let parsed = match token.word {
            Word::Float => format!("{sign}{}", token.text).parse().ok().map(Literal::Double),
            Word::Uint => u64::from_str_radix(digits.trim_end_matches(['u', 'U']), radix)
                .ok()
                .map(Literal::Uint),
            _ => i64::from_str_radix(&format!("{sign}{digits}"), radix).ok().map(Literal::Int),
        };
        let kind = match token.word {
            Word::Float => "double",
            Word::Uint => "uint",
            _ => "int",
        };
        let value = parsed.filter(|v| !matches!(v, Literal::Double(d) if d.is_infinite()));
        let value = value.unwrap_or_else(|| {
            self.issues.add(Some(at), format!("invalid {kind} literal"));
            Literal::Null
        });
        self.node(at, Kind::Literal(value))
    }

    /// A variable, a function's call, or a message.
    fn name(&mut self, leading_dot: Option<u32>) -> Parsed {
        let token = self.take();
        let at = leading_dot.unwrap_or(token.at);
        if let Some(expr) = self.message(leading_dot.is_some())? {
            return Ok(expr);
        }
        if RESERVED.contains(&token.text) {
            self.issues.add(Some(at), format!("reserved identifier: {}", token.text));
        }
        let dot = if leading_dot.is_some() { "." } else { "" };
        let name = format!("{dot}{}", token.text);
        if self.is("(") {
            let at = self.take().at;
            let args = self.arguments()?;
            return self.call_or_macro(at, &name, None, args);
        }
        let id = self.nodes.id(token.at);
        Ok(Expr::ident(id, &name))
    }

    /// `a.b.Name{…}`, the first name being behind us.
    fn message(&mut self, leading_dot: bool) -> Parsed<Option<Expr>> {
        let start = self.next;
        let mut name =
            format!("{}{}", if leading_dot { "." } else { "" }, self.tokens[start - 1].text);
        while self.is(".") && self.ahead().word == Word::Name {
            self.next += 1;
            name = format!("{name}.{}", self.take().text);
        }
        if !self.is("{") {
            self.next = start;
            return Ok(None);
        }
        let at = self.take().at;
        let mut fields = Vec::new();
        while !self.is("}") {
            fields.push(self.field()?);
            if !self.take_if(",") {
                break;
            }
        }
        self.expect("}", None)?;
        let made = Struct { name: name.into(), fields };
        Ok(Some(self.node(at, Kind::Struct(Box::new(made)))?))
    }

    /// `name: value` of a message.
    fn field(&mut self) -> Parsed<StructField> {
        let optional = self.take_if("?");
        if self.peek().word != Word::Name {
            return self.mismatched("IDENTIFIER");
        }
        let name = self.take();
        let colon = self.peek().at;
        self.expect(":", None)?;
        let id = self.nodes.id(colon);
        Ok(StructField { id, name: name.text.into(), value: self.expr(START)?, optional })
    }

    fn list(&mut self) -> Parsed {
        let at = self.take().at;
        let id = self.nodes.id(at);
        let mut elements = Vec::new();
        self.separated("]", &mut |parser| {
            let optional = parser.take_if("?");
            elements.push(Element { value: parser.expr(START)?, optional });
            Ok(())
        })?;
        self.measured(Expr { id, kind: Kind::List(elements) })
    }

    fn map(&mut self) -> Parsed {
        let at = self.take().at;
        let id = self.nodes.id(at);
        let mut entries = Vec::new();
        self.separated("}", &mut |parser| {
            let optional = parser.take_if("?");
            let key = parser.expr(START)?;
            parser.expect(":", None)?;
            entries.push(Entry { key, value: parser.expr(START)?, optional });
            Ok(())
        })?;
        self.measured(Expr { id, kind: Kind::Map(entries) })
    }

    /// Parts with commas between, one more comma allowed at the end.
    fn separated(
        &mut self,
        close: &str,
        part: &mut dyn FnMut(&mut Self) -> Parsed<()>,
    ) -> Parsed<()> {
        if self.take_if(",") {
            return self.expect(close, None);
        }
        while !self.is(close) {
            part(self)?;
            if !self.take_if(",") {
                return self.expect(close, Some(&format!("{{'{close}', ','}}")));
            }
            if self.is(",") || self.peek().word == Word::End {
                break;
            }
        }
        self.expect(close, None)
    }
}
