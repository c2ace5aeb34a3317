//! The flags in front of an instruction's arguments.

use crate::error::{Error, Result};
use crate::suggest::nearest;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Bool,
    Text,
    /// May come several times.
    Texts,
}

/// An instruction's flags, checked against those that it knows.
#[derive(Default)]
pub(crate) struct Flags(Vec<(&'static str, String)>);

impl Flags {
    pub(crate) fn parse(given: &[String], known: &[(&'static str, Kind)]) -> Result<Flags> {
        let mut out = Flags::default();
        for flag in given {
            let (name, value) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (flag.as_str(), None),
            };
            let bare = name.trim_start_matches("--");
            let Some((key, kind)) = known.iter().find(|(known, _)| *known == bare) else {
                return Err(unknown(name, known));
            };
            if *kind != Kind::Texts && out.0.iter().any(|(k, _)| k == key) {
                return Err(Error::new(format!("duplicate flag specified: {name}"))
                    .with_fix("give it once"));
            }
            let missing = || {
                Error::new(format!("missing a value on flag: {name}"))
                    .with_fix(format!("write {name}=<value>"))
            };
            let value = match (kind, value) {
                (Kind::Bool, None) => "true".to_owned(),
                (Kind::Bool, Some("")) | (_, None) => return Err(missing()),
                (Kind::Bool, Some(value)) => match value.to_lowercase().as_str() {
                    word @ ("true" | "false") => word.to_owned(),
                    _ => {
                        return Err(Error::new(format!(
                            "expecting boolean value for flag {name}, not: {value}"
                        ))
                        .with_fix("write true or false"));
                    }
                },
                (_, Some(value)) => value.to_owned(),
            };
            out.0.push((key, value));
        }
        Ok(out)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.find(name).unwrap_or_default()
    }

    pub(crate) fn find(&self, name: &str) -> Option<String> {
        self.0.iter().find(|(k, _)| *k == name).map(|(_, v)| v.clone())
    }

    pub(crate) fn is_set(&self, name: &str) -> bool {
        self.find(name).is_some_and(|v| v == "true")
    }

    pub(crate) fn all(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(k, _)| *k == name).map(|(_, v)| v.clone()).collect()
    }
}

fn unknown(name: &str, known: &[(&'static str, Kind)]) -> Error {
    let error = Error::new(format!("unknown flag: {name}"));
    let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
    match nearest(name.trim_start_matches("--"), &names) {
        Some(near) => error.with_fix(format!("did you mean --{near}?")),
        None if names.is_empty() => error.with_fix("this instruction has no flags"),
        None => error.with_fix(format!("it has --{}", names.join(", --"))),
    }
}
