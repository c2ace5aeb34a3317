//! One instruction as it is written, before its meaning is looked at.

/// What follows the keyword and its flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arguments {
    /// Words, or one word that is the whole rest of the line; `json`: they were a JSON array.
    Words { words: Vec<String>, json: bool },
    /// `key=value`; the flag is false for the old form `key value`.
    Pairs(Vec<(String, String, bool)>),
    /// The instruction behind ONBUILD.
    Instruction(Box<Node>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heredoc {
    pub name: String,
    pub file_descriptor: u32,
    /// Variables in it are replaced: its name was not quoted.
    pub expand: bool,
    /// `<<-`: leading tabs go.
    pub chomp: bool,
    pub content: String,
}

impl Heredoc {
    /// The content, without leading tabs when they are to go.
    pub fn text(&self) -> String {
        if !self.chomp {
            return self.content.clone();
        }
        self.content.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// As written: any case.
    pub keyword: String,
    pub flags: Vec<String>,
    pub arguments: Arguments,
    pub heredocs: Vec<Heredoc>,
    /// The joined line.
    pub original: String,
    /// First and last line, from 1.
    pub lines: (usize, usize),
    /// Comments right above.
    pub comments: Vec<String>,
}

impl Node {
    /// The node as text, in the form of BuildKit's recorded results.
    pub fn dump(&self) -> String {
        let mut text = self.keyword.to_lowercase();
        if !self.flags.is_empty() {
            let flags: Vec<String> = self.flags.iter().map(|f| quoted(f)).collect();
            text = format!("{text} [{}]", flags.join(" "));
        }
        let words: Vec<String> = match &self.arguments {
            Arguments::Words { words, .. } => words.iter().map(|w| quoted(w)).collect(),
            Arguments::Pairs(pairs) => {
                let sign = |equals: bool| quoted(if equals { "=" } else { "" });
                let pair = |(k, v, e): &(String, String, bool)| [quoted(k), quoted(v), sign(*e)];
                pairs.iter().flat_map(pair).collect()
            }
            Arguments::Instruction(node) => vec![format!("({})", node.dump())],
        };
        for word in words {
            text = format!("{text} {word}");
        }
        text.trim().to_owned()
    }

    pub(crate) fn may_have_heredocs(&self) -> bool {
        let node = match &self.arguments {
            Arguments::Instruction(inner) => inner,
            _ => self,
        };
        let json = matches!(node.arguments, Arguments::Words { json: true, .. });
        !json && ["add", "copy", "run"].contains(&node.keyword.to_lowercase().as_str())
    }
}

/// A string as BuildKit's results quote it.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            c if c.is_ascii_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
