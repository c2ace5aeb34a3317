//! A node's meaning: each instruction's flags and arguments, checked.

use std::sync::LazyLock;
use std::time::Duration;

use regex::Regex;

use crate::error::{Error, Result};
use crate::flags::{Flags, Kind};
use crate::instruction::*;
use crate::node::{Arguments, Node};
use crate::read;
use crate::suggest::nearest;

const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

const TRANSFER: [(&str, Kind); 4] =
    [("chown", Kind::Text), ("chmod", Kind::Text), ("link", Kind::Bool), ("exclude", Kind::Texts)];

/// Reads one instruction.
pub fn step(node: &Node) -> Result<Step> {
    let instruction = instruction(node).map_err(|e| e.at_line(node.lines.0))?;
    Ok(Step { instruction, lines: node.lines, original: node.original.clone() })
}

fn instruction(node: &Node) -> Result<Instruction> {
    let keyword = node.keyword.to_uppercase();
    let plain = || Flags::parse(&node.flags, &[]).map(drop);
    let words = || match &node.arguments {
        Arguments::Words { words, .. } => words.clone(),
        _ => Vec::new(),
    };
    let json = matches!(node.arguments, Arguments::Words { json: true, .. });
    match keyword.as_str() {
        "ADD" => transfer(
            node,
            words(),
            &[("keep-git-dir", Kind::Bool), ("checksum", Kind::Text), ("unpack", Kind::Bool)],
        )
        .map(Instruction::Add),
        "COPY" => transfer(node, words(), &[("from", Kind::Text), ("parents", Kind::Bool)])
            .map(Instruction::Copy),
        "FROM" => from(node, &words()).map(Instruction::From),
        "HEALTHCHECK" => healthcheck(node, words(), json).map(Instruction::Healthcheck),
        "ONBUILD" => onbuild(node).map(Instruction::Onbuild),
        "RUN" => run(node, words(), json).map(Instruction::Run),
        "ARG" => {
            plain()?;
            args(&words()).map(Instruction::Arg)
        }
        "ENV" | "LABEL" => {
            plain()?;
            let pairs = pairs(node, &keyword)?;
            Ok(if keyword == "ENV" { Instruction::Env(pairs) } else { Instruction::Label(pairs) })
        }
        "CMD" | "ENTRYPOINT" => {
            plain()?;
            let line = CommandLine { words: words(), shell: !json };
            Ok(if keyword == "CMD" {
                Instruction::Cmd(line)
            } else {
                Instruction::Entrypoint(line)
            })
        }
        _ => plain_instruction(node, &keyword, words(), json),
    }
}

/// An instruction without flags, whose arguments are words.
fn plain_instruction(
    node: &Node,
    keyword: &str,
    mut words: Vec<String>,
    json: bool,
) -> Result<Instruction> {
    let plain = || Flags::parse(&node.flags, &[]).map(drop);
    match keyword {
        "EXPOSE" | "VOLUME" => {
            if words.is_empty() {
                return Err(at_least_one(keyword));
            }
            plain()?;
            if keyword == "EXPOSE" {
                words.sort_unstable();
                return Ok(Instruction::Expose(words));
            }
            words.iter_mut().for_each(|w| *w = w.trim().to_owned());
            if words.iter().any(String::is_empty) {
                return Err(Error::new("VOLUME specified can not be an empty string")
                    .with_fix("name a directory of the image"));
            }
            Ok(Instruction::Volume(words))
        }
        "SHELL" => {
            plain()?;
            match words {
                list if list.is_empty() => Err(at_least_one(keyword)),
                list if json => Ok(Instruction::Shell(list)),
                _ => Err(Error::new(format!(
                    "SHELL requires the arguments to be in JSON form: {}",
                    node.original
                ))
                .with_fix(r#"write SHELL ["/bin/sh", "-c"]"#)),
            }
        }
        "MAINTAINER" | "STOPSIGNAL" | "USER" | "WORKDIR" => {
            let [word] = words.as_slice() else {
                return Err(Error::new(format!("{keyword} requires exactly one argument"))
                    .with_fix(format!("write {keyword} <value>")));
            };
            plain()?;
            let word = word.clone();
            Ok(match keyword {
                "MAINTAINER" => Instruction::Maintainer(word),
                "STOPSIGNAL" => Instruction::StopSignal(word),
                "USER" => Instruction::User(word),
                _ => Instruction::Workdir(word),
            })
        }
        _ => {
            let error = Error::new(format!("unknown instruction: {}", node.keyword));
            Err(match nearest(keyword, &KEYWORDS) {
                Some(near) => error.with_fix(format!("did you mean {near}?")),
                None => error.with_fix(
                    "if it belongs to the line above, that line must end with the escape sign",
                ),
            })
        }
    }
}

fn at_least_one(keyword: &str) -> Error {
    Error::new(format!("{keyword} requires at least one argument"))
}

fn pairs(node: &Node, keyword: &str) -> Result<Vec<(String, String)>> {
    let Arguments::Pairs(pairs) = &node.arguments else { return Err(at_least_one(keyword)) };
    if pairs.is_empty() {
        return Err(at_least_one(keyword));
    }
    if pairs.iter().any(|(key, _, _)| key.is_empty()) {
        return Err(Error::new(format!("{keyword} names can not be blank"))
            .with_fix("no blank before the ="));
    }
    Ok(pairs.iter().map(|(key, value, _)| (key.clone(), value.clone())).collect())
}

fn args(words: &[String]) -> Result<Vec<(String, Option<String>)>> {
    if words.is_empty() {
        return Err(at_least_one("ARG"));
    }
    let pair = |word: &String| match word.split_once('=') {
        Some(("", _)) => {
            Err(Error::new("ARG names can not be blank").with_fix("no blank before the ="))
        }
        Some((key, value)) => Ok((key.to_owned(), Some(value.to_owned()))),
        None => Ok((word.clone(), None)),
    };
    words.iter().map(pair).collect()
}

fn transfer(node: &Node, words: Vec<String>, more: &[(&'static str, Kind)]) -> Result<Transfer> {
    let keyword = node.keyword.to_uppercase();
    if words.len() < 2 {
        return Err(Error::new(format!(
            "{keyword} requires at least two arguments, but only one was provided. Destination could not be determined"
        ))
        .with_fix(format!("write {keyword} <source> <destination>")));
    }
    let known: Vec<_> = TRANSFER.iter().chain(more).copied().collect();
    let flags = Flags::parse(&node.flags, &known)?;
    let mut sources = words;
    let destination = sources.pop().unwrap_or_default();
    if read::heredoc(&destination)?.is_some() {
        return Err(Error::new(format!("{keyword} cannot accept a heredoc as a destination"))
            .with_fix("the last argument is the place in the image"));
    }
    let mut out = Transfer {
        destination,
        from: flags.text("from"),
        chown: flags.text("chown"),
        chmod: flags.text("chmod"),
        link: flags.is_set("link"),
        parents: flags.is_set("parents"),
        exclude: flags.all("exclude"),
        checksum: flags.text("checksum"),
        keep_git_dir: flags.find("keep-git-dir").map(|v| v == "true"),
        unpack: flags.find("unpack").map(|v| v == "true"),
        ..Transfer::default()
    };
    for source in sources {
        let Some(announced) = read::heredoc(&source)? else {
            out.sources.push(source);
            continue;
        };
        let found = node.heredocs.iter().find(|h| h.name == announced.name);
        let content = found.map(|h| h.text()).unwrap_or_default();
        out.inline.push(InlineFile { name: announced.name, content, expand: announced.expand });
    }
    Ok(out)
}

fn from(node: &Node, words: &[String]) -> Result<From> {
    static NAME: LazyLock<Regex> =
        LazyLock::new(|| Regex::new("^[a-z][a-z0-9-_.]*$").expect("a constant"));
    let name = match words {
        [_] => String::new(),
        [_, as_, name] if as_.eq_ignore_ascii_case("as") => name.to_lowercase(),
        _ => {
            return Err(Error::new("FROM requires either one or three arguments")
                .with_fix("write FROM <image> [AS <name>]"));
        }
    };
    if !name.is_empty() && !NAME.is_match(&name) {
        return Err(Error::new(format!(
            "invalid name for build stage: {:?}, name can't start with a number or contain symbols",
            words[2]
        ))
        .with_fix("use letters, digits, '-', '_' and '.', a letter first"));
    }
    let flags = Flags::parse(&node.flags, &[("platform", Kind::Text)])?;
    Ok(From { base: words[0].clone(), name, platform: flags.text("platform") })
}

fn onbuild(node: &Node) -> Result<String> {
    static KEYWORD: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"(?i)^\s*ONBUILD\s*").expect("a constant"));
    let inner = match &node.arguments {
        Arguments::Instruction(inner) => inner.keyword.to_uppercase(),
        Arguments::Words { words, .. } if !words.is_empty() => "ONBUILD".to_owned(),
        _ => return Err(at_least_one("ONBUILD")),
    };
    Flags::parse(&node.flags, &[])?;
    match inner.as_str() {
        "ONBUILD" => {
            return Err(Error::new("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
                .with_fix("write ONBUILD once"));
        }
        "MAINTAINER" | "FROM" => {
            return Err(Error::new(format!("{inner} isn't allowed as an ONBUILD trigger")));
        }
        _ => {}
    }
    let mut text = KEYWORD.replace(&node.original, "").into_owned();
    for heredoc in &node.heredocs {
        text = format!("{text}\n{}{}", heredoc.content, heredoc.name);
    }
    Ok(text)
}

fn run(node: &Node, words: Vec<String>, json: bool) -> Result<Run> {
    let known = [
        ("mount", Kind::Texts),
        ("network", Kind::Text),
        ("security", Kind::Text),
        ("device", Kind::Texts),
    ];
    let flags = Flags::parse(&node.flags, &known)?;
    if words.is_empty() {
        return Err(at_least_one("RUN"));
    }
    let mounts = flags.all("mount");
    mounts.iter().try_for_each(|text| crate::mount::check(text))?;
    let network = match flags.text("network").as_str() {
        "" | "default" => Network::Default,
        "none" => Network::None,
        "host" => Network::Host,
        other => {
            return Err(Error::new(format!("unsupported network mode {other:?}"))
                .with_fix("use default, none or host"));
        }
    };
    let insecure = match flags.text("security").as_str() {
        "" | "sandbox" => false,
        "insecure" => true,
        other => {
            return Err(Error::new(format!("security mode {other:?} is not valid"))
                .with_fix("use sandbox or insecure"));
        }
    };
    if let Some(device) = flags.all("device").first() {
        return Err(Error::new(format!("--device={device} is not supported"))
            .with_fix("build without it, or use RUN --security=insecure"));
    }
    let command = CommandLine { words, shell: !json };
    Ok(Run { command, heredocs: node.heredocs.clone(), mounts, network, insecure })
}

fn healthcheck(node: &Node, mut words: Vec<String>, json: bool) -> Result<Healthcheck> {
    if words.is_empty() {
        return Err(at_least_one("HEALTHCHECK"));
    }
    let kind = words.remove(0).to_uppercase();
    if kind == "NONE" {
        if !words.is_empty() {
            return Err(Error::new("HEALTHCHECK NONE takes no arguments"));
        }
        return Ok(Healthcheck { test: vec![kind], ..Healthcheck::default() });
    }
    let known = ["interval", "timeout", "start-period", "start-interval", "retries"];
    let known = known.map(|name| (name, Kind::Text));
    let flags = Flags::parse(&node.flags, &known)?;
    if kind != "CMD" {
        return Err(Error::new(format!("Unknown type {kind:?} in HEALTHCHECK (try CMD)")));
    }
    if words.is_empty() {
        return Err(Error::new("Missing command after HEALTHCHECK CMD"));
    }
    let retries = match flags.text("retries").as_str() {
        "" => 0,
        text => match text.parse::<i32>() {
            Ok(number) if number < 0 => {
                return Err(Error::new(format!("--retries cannot be negative ({number})")));
            }
            Ok(number) => number.unsigned_abs(),
            Err(_) => return Err(Error::new(format!("--retries={text} is no number"))),
        },
    };
    words.insert(0, if json { kind } else { "CMD-SHELL".to_owned() });
    Ok(Healthcheck {
        test: words,
        interval: interval(&flags, "interval")?,
        timeout: interval(&flags, "timeout")?,
        start_period: interval(&flags, "start-period")?,
        start_interval: interval(&flags, "start-interval")?,
        retries,
    })
}

fn interval(flags: &Flags, name: &str) -> Result<Duration> {
    let text = flags.text(name);
    if text.is_empty() {
        return Ok(Duration::ZERO);
    }
    let nanos = duration(&text).ok_or_else(|| {
        Error::new(format!("--{name}={text} is no duration")).with_fix("write e.g. 1m30s or 500ms")
    })?;
    if nanos != 0 && nanos < 1_000_000 {
        return Err(Error::new(format!("Interval {name:?} cannot be less than 1ms")));
    }
    Ok(Duration::from_nanos(u64::try_from(nanos).unwrap_or(0)))
}

/// A duration in Go's notation, in nanoseconds.
fn duration(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut total = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 6e10,
            "h" => 3.6e12,
            _ => return None,
        };
        total += number * unit;
        rest = &rest[end..];
    }
    (total < i64::MAX as f64).then_some((sign * total) as i64)
}
