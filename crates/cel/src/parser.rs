//! Text to tree, by precedence climbing. Faults are worded as clients of the original see them; at
//! most one missing or superfluous word is mended, as there, so that what follows is told as well.

use crate::ast::{Call, Element, Entry, Expr, Id, Kind, Literal, Select, Tree};
use crate::issues::Issues;
use crate::lexer::{Token, Word, tokens};
use crate::{literal, macros};

/// The longest text, in characters.
const TEXT_MAX: usize = 100_000;
/// How deep expressions nest (cel-go `maxRecursionDepth`); the tree's walks rely on it.
const DEPTH_MAX: u32 = 250;
/// Names that are no variables though they may be fields.
const RESERVED: [&str; 17] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];
/// Operators and how tightly they bind.
const BINARY: [(&[&str], u8); 5] = [
    (&["||"], OR),
    (&["&&"], 2),
    (&["<", "<=", ">=", ">", "==", "!=", "in"], 3),
    (&["+", "-"], 4),
    (&["*", "/", "%"], 5),
];
const OR: u8 = 1;
const START: &str = "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";
const START_OR_CLOSE: &str = "{'[', '{', '(', ')', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";
const START_OR_OPTIONAL: &str = "{'[', '{', '(', '.', '-', '!', '?', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";

/// Parsing cannot go on; why is among the issues.
pub(crate) struct Stop;
type Parsed<T = Expr> = Result<T, Stop>;

pub(crate) fn parse(text: &str) -> Result<Tree, Issues> {
    let mut issues = Issues::of(text);
    let size = text.chars().count();
    if size > TEXT_MAX {
        issues.add(
            None,
            format!("expression code point size exceeds limit: size: {size}, limit {TEXT_MAX}"),
        );
        return Err(issues);
    }
    let tokens = tokens(text, &mut issues);
    let mut parser = Parser { text, tokens, next: 0, depth: 0, nodes: Nodes::default(), issues };
    let root = parser.whole();
    match root {
        Ok(root) if parser.issues.is_empty() => Ok(Tree { root, places: parser.nodes.places }),
        _ => Err(parser.issues),
    }
}

/// Numbers of nodes: their places, and how high the tree is below each.
#[derive(Default)]
pub(crate) struct Nodes {
    places: Vec<u32>,
    heights: Vec<u32>,
}

impl Nodes {
    pub(crate) fn id(&mut self, at: u32) -> Id {
        self.places.push(at);
        self.heights.push(0);
        (self.places.len() - 1) as Id
    }

    pub(crate) fn count(&self) -> usize {
        self.places.len()
    }

    pub(crate) fn place(&self, id: Id) -> u32 {
        self.places[id as usize]
    }
}

struct Parser<'t> {
    text: &'t str,
    tokens: Vec<Token<'t>>,
    next: usize,
    depth: u32,
    nodes: Nodes,
    issues: Issues,
}

impl<'t> Parser<'t> {
    fn peek(&self) -> Token<'t> {
        self.tokens[self.next.min(self.tokens.len() - 1)]
    }

    fn ahead(&self) -> Token<'t> {
        self.tokens[(self.next + 1).min(self.tokens.len() - 1)]
    }

    fn is(&self, mark: &str) -> bool {
        self.peek().word == Word::Mark(self.known(mark))
    }

    /// The same mark as the lexer has it.
    fn known(&self, mark: &str) -> &'static str {
        match self.peek().word {
            Word::Mark(found) if found == mark => found,
            _ => "",
        }
    }

    fn take(&mut self) -> Token<'t> {
        let token = self.peek();
        self.next += 1;
        token
    }

    fn take_if(&mut self, mark: &str) -> bool {
        let found = self.is(mark);
        self.next += usize::from(found);
        found
    }

    fn syntax(&mut self, at: u32, message: &str) {
        self.issues.add(Some(at), format!("Syntax error: {message}"));
    }

    fn mismatched<T>(&mut self, expecting: &str) -> Parsed<T> {
        let token = self.peek();
        self.syntax(token.at, &format!("mismatched input '{}' expecting {expecting}", token.text));
        Err(Stop)
    }

    fn extraneous(&mut self, expecting: &str) {
        let token = self.take();
        self.syntax(token.at, &format!("extraneous input '{}' expecting {expecting}", token.text));
    }

    /// A mark that must come; one word before it is passed over, and a missing one made up.
    fn expect(&mut self, mark: &str, or: Option<&str>) -> Parsed<()> {
        if self.take_if(mark) {
            return Ok(());
        }
        let expecting = or.map_or(format!("'{mark}'"), str::to_owned);
        if self.ahead().word != Word::End && self.ahead().text == mark {
            self.extraneous(&expecting);
            self.next += 1;
            return Ok(());
        }
        let token = self.peek();
        let follows =
            token.word == Word::End && matches!(mark, ")" | "]") || mark == ":" && starts(&token);
        if !follows {
            return self.mismatched(&expecting);
        }
        self.syntax(token.at, &format!("missing '{mark}' at '{}'", token.text));
        if token.word == Word::End { Err(Stop) } else { Ok(()) }
    }

    fn whole(&mut self) -> Parsed {
        let root = self.expr(START)?;
        match self.peek().word {
            Word::End => Ok(root),
            _ if self.ahead().word == Word::End => {
                self.extraneous("<EOF>");
                Err(Stop)
            }
            _ => self.mismatched("<EOF>"),
        }
    }

    /// A node over others; too high a tree ends the parse.
    fn node(&mut self, at: u32, kind: Kind) -> Parsed {
        let expr = Expr { id: self.nodes.id(at), kind };
        self.measured(expr)
    }

    fn measured(&mut self, expr: Expr) -> Parsed {
        let heights = &self.nodes.heights;
        let below = expr.children().iter().map(|e| heights[e.id as usize]).max().unwrap_or(0);
        self.nodes.heights[expr.id as usize] = below + 1;
        if below >= DEPTH_MAX {
            self.issues.add(None, "max recursion depth exceeded");
            // Taken apart level by level by the caller's return; nothing is built on it.
            return Err(Stop);
        }
        Ok(expr)
    }

    fn expr(&mut self, expecting: &str) -> Parsed {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            self.issues.add(None, format!("expression recursion limit exceeded: {DEPTH_MAX}"));
            return Err(Stop);
        }
        let condition = self.binary(OR, expecting)?;
        let result = if self.is("?") { self.conditional(condition) } else { Ok(condition) };
        self.depth -= 1;
        result
    }

    fn conditional(&mut self, condition: Expr) -> Parsed {
        let at = self.take().at;
        let id = self.nodes.id(at);
        let then = self.binary(OR, START)?;
        self.expect(":", None)?;
        let otherwise = self.expr(START)?;
        self.measured(Expr::call(id, "_?_:_", vec![condition, then, otherwise]))
    }

    /// Operators of this level and those that bind tighter, left to right. One frame of the stack for
    /// all levels: nesting is what limits texts.
    fn binary(&mut self, least: u8, expecting: &str) -> Parsed {
        let mut left = self.unary(expecting)?;
        while let Some((mark, level)) = self.operator().filter(|(_, level)| *level >= least) {
            left = match mark {
                "||" => self.logic(left, mark, "_||_", level)?,
                "&&" => self.logic(left, mark, "_&&_", level)?,
                _ => self.operation(left, mark, level)?,
            };
        }
        Ok(left)
    }

    fn operator(&self) -> Option<(&'static str, u8)> {
        let Word::Mark(mark) = self.peek().word else { return None };
        BINARY.iter().find(|(marks, _)| marks.contains(&mark)).map(|(_, level)| (mark, *level))
    }

    fn operation(&mut self, left: Expr, mark: &str, level: u8) -> Parsed {
        let at = self.take().at;
        let id = self.nodes.id(at);
        let right = self.binary(level + 1, START)?;
        let function = if mark == "in" { "@in".to_owned() } else { format!("_{mark}_") };
        self.measured(Expr::call(id, &function, vec![left, right]))
    }

    /// Terms joined by `||` or `&&`, as a balanced tree: long chains stay flat.
    fn logic(&mut self, first: Expr, mark: &str, function: &str, level: u8) -> Parsed {
        let (mut terms, mut ids) = (vec![Some(first)], Vec::new());
        while self.is(mark) {
            let at = self.take().at;
            terms.push(Some(self.binary(level + 1, START)?));
            ids.push(self.nodes.id(at));
        }
        self.balanced(function, &mut terms, &ids)
    }

    fn balanced(&mut self, function: &str, terms: &mut [Option<Expr>], ids: &[Id]) -> Parsed {
        if ids.is_empty() {
            return terms[0].take().ok_or(Stop);
        }
        let middle = ids.len() / 2;
        let (left, right) = terms.split_at_mut(middle + 1);
        let left = self.balanced(function, left, &ids[..middle])?;
        let right = self.balanced(function, right, &ids[middle + 1..])?;
        self.measured(Expr::call(ids[middle], function, vec![left, right]))
    }

    fn unary(&mut self, expecting: &str) -> Parsed {
        for (mark, function) in [("!", "!_"), ("-", "-_")] {
            // A minus before a number is the number's, unless there are several.
            if !self.is(mark) || (mark == "-" && self.ahead_is_number()) {
                continue;
            }
            let at = self.peek().at;
            let mut count = 0;
            while self.is(mark) {
                self.next += 1;
                count += 1;
            }
            let id = self.nodes.id(at);
            if self.peek().word == Word::End {
                return self.nothing_to(mark);
            }
            let operand = self.member(START)?;
            return match count % 2 {
                0 => Ok(operand),
                _ => self.measured(Expr::call(id, function, vec![operand])),
            };
        }
        self.member(expecting)
    }

    /// `!` or `-` at the text's end, told in the original's odd ways.
    fn nothing_to(&mut self, mark: &str) -> Parsed {
        if mark == "!" {
            self.extraneous(START);
            return Err(Stop);
        }
        let (from, end) = (self.tokens[self.next - 1].byte, self.peek());
        let _: Parsed = self.no_viable(from, end);
        self.mismatched(START)
    }

    fn ahead_is_number(&self) -> bool {
        matches!(self.ahead().word, Word::Int | Word::Float)
    }

    fn member(&mut self, expecting: &str) -> Parsed {
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

    fn no_viable<T>(&mut self, from: usize, bad: Token<'t>) -> Parsed<T> {
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

    fn call_or_macro(
        &mut self,
        at: u32,
        name: &str,
        target: Option<Expr>,
        args: Vec<Expr>,
    ) -> Parsed {
        let id = self.nodes.id(at);
        if !macros::applies(name, args.len(), target.is_some()) {
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

    fn arguments(&mut self) -> Parsed<Vec<Expr>> {
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

    fn primary(&mut self, expecting: &str) -> Parsed {
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
        while !self.is("}") {
            self.take_if("?");
            if self.peek().word != Word::Name {
                return self.mismatched("IDENTIFIER");
            }
            self.next += 1;
            self.expect(":", None)?;
            self.expr(START)?;
            if !self.take_if(",") {
                break;
            }
        }
        self.expect("}", None)?;
        Ok(Some(self.node(at, Kind::Struct(name.into()))?))
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

/// Whether an expression may start with the word.
fn starts(token: &Token<'_>) -> bool {
    match token.word {
        Word::End | Word::QuotedName => false,
        Word::Mark(mark) => {
            matches!(mark, "[" | "{" | "(" | "." | "-" | "!" | "true" | "false" | "null")
        }
        _ => true,
    }
}
