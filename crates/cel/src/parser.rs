//! Text to tree, by precedence climbing. Faults are worded as clients of upstream see them; at
//! most one missing or superfluous word is mended, as there, so that what follows is told as well.

mod members;
mod primary;

use crate::ast::{Expr, Id, Kind, Tree};
use crate::issues::Issues;
use crate::lexer::{Token, Word, tokens};

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
/// Words that name values and an operator.
const KEYWORDS: [&str; 4] = ["true", "false", "null", "in"];

/// Whether a word belongs to the grammar, so that no variable, and no field as it is, can be called
/// by it.
pub fn is_reserved(word: &str) -> bool {
    RESERVED.contains(&word) || KEYWORDS.contains(&word)
}

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

/// `bindings` says whether `cel.bind` is a macro.
pub(crate) fn parse(text: &str, bindings: bool) -> Result<Tree, Issues> {
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
    let nodes = Nodes::default();
    let mut parser = Parser { text, tokens, next: 0, depth: 0, nodes, issues, bindings };
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
    bindings: bool,
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

    /// `!` or `-` at the text's end, told in upstream's odd ways.
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
