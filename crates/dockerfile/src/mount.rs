//! `RUN --mount=…`.

use crate::error::{Error, Result};
use crate::suggest::nearest;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MountKind {
    #[default]
    Bind,
    Cache,
    Tmpfs,
    Secret,
    Ssh,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sharing {
    #[default]
    Shared,
    Private,
    Locked,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mount {
    pub kind: MountKind,
    pub from: String,
    pub source: String,
    pub target: String,
    pub read_only: bool,
    /// Bytes of a tmpfs; 0: no limit.
    pub size: u64,
    pub id: String,
    pub sharing: Option<Sharing>,
    pub required: bool,
    /// A secret as a variable; an empty name means the secret's own.
    pub env: Option<String>,
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

const KINDS: [(&str, MountKind); 5] = [
    ("bind", MountKind::Bind),
    ("cache", MountKind::Cache),
    ("tmpfs", MountKind::Tmpfs),
    ("secret", MountKind::Secret),
    ("ssh", MountKind::Ssh),
];
const SHARINGS: [(&str, Sharing); 3] =
    [("shared", Sharing::Shared), ("private", Sharing::Private), ("locked", Sharing::Locked)];
const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "target",
    "readonly",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "src",
    "dst",
    "destination",
    "ro",
    "rw",
    "readwrite",
    "env",
];

/// What can be said before variables are known.
pub(crate) fn check(text: &str) -> Result<()> {
    for field in fields(text)? {
        let (key, value) = field.split_once('=').unwrap_or((&field, ""));
        let dollar = value.find('$').is_some_and(|at| at + 1 < value.len());
        if key.eq_ignore_ascii_case("from") && dollar {
            return Err(Error::new(
                "'from' doesn't support variable expansion, define alias stage instead",
            )
            .with_fix("write FROM <image with the variable> AS <name>, and from=<name>"));
        }
    }
    Ok(())
}

/// The stage or image that a mount takes its files from.
pub(crate) fn from(text: &str) -> Result<String> {
    let fields = fields(text)?;
    let from = |field: &String| {
        let (key, value) = field.split_once('=')?;
        key.eq_ignore_ascii_case("from").then(|| value.to_owned())
    };
    Ok(fields.iter().find_map(from).unwrap_or_default())
}

/// Reads a mount; `expand` replaces variables in its values.
pub fn mount(text: &str, expand: &mut dyn FnMut(&str) -> Result<String>) -> Result<Mount> {
    let mut mount = Mount::default();
    let mut read_only = None;
    for field in fields(text)? {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_lowercase(), Some(expand(value)?)),
            None => (field.to_lowercase(), None),
        };
        let takes_none = ["readonly", "ro", "readwrite", "rw", "required"];
        if value.is_none() && !takes_none.contains(&key.as_str()) {
            return Err(Error::new(format!("invalid field '{field}' must be a key=value pair")));
        }
        let value = value.unwrap_or_else(|| "true".to_owned());
        match key.as_str() {
            "readonly" | "ro" => read_only = Some(truth(&key, &value)?),
            "readwrite" | "rw" => read_only = Some(!truth(&key, &value)?),
            _ => set(&mut mount, &key, &value, &field)?,
        }
    }
    let writable = matches!(mount.kind, MountKind::Cache | MountKind::Tmpfs);
    mount.read_only = read_only.unwrap_or(!writable);
    rules(&mount)?;
    Ok(mount)
}

fn set(mount: &mut Mount, key: &str, value: &str, field: &str) -> Result<()> {
    let kind = || KINDS.iter().find(|(_, k)| *k == mount.kind).map_or("", |(name, _)| name);
    let unexpected = || {
        Error::new(format!("unexpected key '{key}' for mount type '{}'", kind()))
            .with_fix("name the type first")
    };
    let secret = matches!(mount.kind, MountKind::Secret | MountKind::Ssh);
    let number = |radix| {
        u32::from_str_radix(value, radix)
            .map_err(|_| Error::new(format!("invalid value {value} for {key}")))
    };
    match key {
        "type" => mount.kind = named("mount type", value, &KINDS)?,
        "from" => mount.from = value.to_owned(),
        "source" | "src" => mount.source = value.to_owned(),
        "target" | "dst" | "destination" => mount.target = value.to_owned(),
        "required" if secret => mount.required = truth(key, value)?,
        "size" if mount.kind == MountKind::Tmpfs => mount.size = bytes(key, value)?,
        "required" | "size" => return Err(unexpected()),
        "id" => mount.id = value.to_owned(),
        "sharing" => mount.sharing = Some(named("sharing value", value, &SHARINGS)?),
        "mode" => mount.mode = Some(number(8)?),
        "uid" => mount.uid = Some(number(10)?),
        "gid" => mount.gid = Some(number(10)?),
        "env" => mount.env = Some(value.to_owned()),
        _ => {
            let error = Error::new(format!("unexpected key '{key}' in '{field}'"));
            return Err(match nearest(key, &KEYS) {
                Some(near) => error.with_fix(format!("did you mean {near}?")),
                None => error.with_fix(format!("keys are {}", KEYS.join(", "))),
            });
        }
    }
    Ok(())
}

fn rules(mount: &Mount) -> Result<()> {
    let kind = KINDS.iter().find(|(_, k)| *k == mount.kind).map_or("", |(name, _)| name);
    let has_owner = matches!(mount.kind, MountKind::Secret | MountKind::Ssh | MountKind::Cache);
    let mut owner = [("mode", mount.mode), ("uid", mount.uid), ("gid", mount.gid)].into_iter();
    if let Some((key, _)) = owner.find(|(_, v)| v.is_some() && !has_owner) {
        return Err(Error::new(format!("{key} not allowed for {kind:?} type mounts")));
    }
    if mount.kind == MountKind::Secret {
        let refused = [
            (!mount.from.is_empty(), "secret mount should not have a from"),
            (mount.sharing.is_some(), "secret mount should not define sharing"),
            (
                mount.source.is_empty() && mount.target.is_empty() && mount.id.is_empty(),
                "invalid secret mount. one of source, target required",
            ),
            (!mount.source.is_empty() && !mount.id.is_empty(), "both source and id can't be set"),
        ];
        if let Some((_, message)) = refused.iter().find(|(wrong, _)| *wrong) {
            return Err(Error::new(*message).with_fix("write type=secret,id=<name>"));
        }
    }
    if mount.sharing.is_some() && mount.kind != MountKind::Cache {
        return Err(Error::new(format!("invalid cache sharing set for {kind} mount")));
    }
    let needs_target = matches!(mount.kind, MountKind::Bind | MountKind::Cache | MountKind::Tmpfs);
    if needs_target && mount.target.is_empty() {
        return Err(Error::new(format!("a {kind} mount needs a target"))
            .with_fix("add target=<path in the container>"));
    }
    Ok(())
}

fn named<T: Copy>(what: &str, value: &str, known: &[(&'static str, T)]) -> Result<T> {
    let lower = value.to_lowercase();
    if let Some((_, found)) = known.iter().find(|(name, _)| *name == lower) {
        return Ok(*found);
    }
    let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
    let error = Error::new(format!("unsupported {what} {value:?}"));
    Err(match nearest(&lower, &names) {
        Some(near) => error.with_fix(format!("did you mean {near}?")),
        None => error.with_fix(format!("use one of {}", names.join(", "))),
    })
}

/// Go's words for yes and no.
fn truth(key: &str, value: &str) -> Result<bool> {
    match value {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => {
            Err(Error::new(format!("invalid value for {key}: {value}"))
                .with_fix("write true or false"))
        }
    }
}

/// A size as docker reads it: units are powers of 1024.
fn bytes(key: &str, text: &str) -> Result<u64> {
    let bad =
        || Error::new(format!("invalid value for {key}: {text}")).with_fix("write e.g. 64m or 1g");
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..split].parse().map_err(|_| bad())?;
    let unit = text[split..].trim().to_lowercase();
    let power = match unit.trim_end_matches('b').trim_end_matches('i') {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(bad()),
    };
    let value = number * 1024f64.powi(power);
    if value.is_finite() && value < u64::MAX as f64 { Ok(value as u64) } else { Err(bad()) }
}

/// One line of comma-separated values; quoted ones may hold commas, and `""` is a quote.
fn fields(text: &str) -> Result<Vec<String>> {
    let bad =
        || Error::new(format!("failed to parse csv mounts: {text}")).with_fix("close the quote");
    let mut out = Vec::new();
    let mut chars = text.chars().peekable();
    loop {
        let mut field = String::new();
        if chars.peek() == Some(&'"') {
            chars.next();
            loop {
                match chars.next() {
                    Some('"') if chars.peek() == Some(&'"') => field.extend(chars.next()),
                    Some('"') => break,
                    Some(c) => field.push(c),
                    None => return Err(bad()),
                }
            }
        } else {
            while let Some(c) = chars.next_if(|c| *c != ',') {
                if c == '"' {
                    return Err(bad());
                }
                field.push(c);
            }
        }
        out.push(field);
        match chars.next() {
            None => return Ok(out),
            Some(',') => {}
            Some(_) => return Err(bad()),
        }
    }
}
