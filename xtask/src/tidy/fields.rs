//! Field names in code: `value["spec"]["repilcas"]` is `Null` without a word, so every name by which a tree is
//! indexed must be a field of the schema, or stand in `xtask/other-fields.txt`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::source::Crate;

const SCHEMAS: &str = "crates/api/schema";
const OTHERS: &str = "xtask/other-fields.txt";

/// Faults: names that are no fields, and listed names that nothing uses.
pub(super) fn check(crates: &[Crate]) -> Result<Vec<String>> {
    let known = known(Path::new(SCHEMAS))?;
    let others = fs::read_to_string(OTHERS).context(OTHERS)?;
    let others: BTreeSet<&str> = listed(&others).collect();
    let mut faults = Vec::new();
    let mut used = BTreeSet::new();
    for file in crates.iter().flat_map(|of| &of.files) {
        for (line, name) in indexed(&file.text) {
            if others.contains(name) {
                used.insert(name);
            } else if !known.contains(name) && !is_key(name) {
                let place = format!("{}:{line}", file.path.display());
                faults.push(format!("{place}: no field is called {name:?} ({OTHERS} has others)"));
            }
        }
    }
    faults.extend(others.difference(&used).map(|name| format!("{OTHERS}: nothing uses {name}")));
    Ok(faults)
}

/// Keys of annotations, labels, extensions and directives are no fields.
fn is_key(name: &str) -> bool {
    name.contains(['/', '.', '$']) || name.starts_with("x-kubernetes-")
}

/// Words of a list with comments.
fn listed(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.starts_with('#')).flat_map(str::split_whitespace)
}

/// All JSON names of the schema.
fn known(folder: &Path) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "schema") {
            names.extend(fields(&fs::read_to_string(path)?).map(str::to_owned));
        }
    }
    Ok(names)
}

/// Field lines are indented by two; `!` marks fields that must be there.
fn fields(schema: &str) -> impl Iterator<Item = &str> {
    let lines = schema.lines().filter_map(|line| line.strip_prefix("  "));
    lines.filter_map(|line| line.split([' ', '!']).next()).filter(|name| !name.is_empty())
}

/// Line and name of every `…["name"]` before the file's tests.
fn indexed(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let code = text.lines().take_while(|line| line.trim() != "#[cfg(test)]");
    code.enumerate().flat_map(|(at, line)| in_line(line).map(move |name| (at + 1, name)))
}

fn in_line(line: &str) -> impl Iterator<Item = &str> {
    line.match_indices("[\"").filter_map(|(at, open)| {
        // An index follows an expression; anything else is a list.
        let before = line[..at].chars().next_back()?;
        let (name, _) = line[at + open.len()..].split_once("\"]")?;
        let is_index = before.is_alphanumeric() || "_)]?".contains(before);
        (is_index && !name.contains('"')).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_are_found_and_lists_are_not() {
        let text = "let a = &x[\"spec\"][\"replicas\"];\nlet b = [\"word\"];\nf()[\"x\"] = y(&[\"a\", \"b\"]);\n\
                    #[cfg(test)]\nmod tests { z[\"wrong\"]; }\n";
        let found: Vec<_> = indexed(text).collect();
        assert_eq!(found, [(1, "spec"), (1, "replicas"), (3, "x")]);
    }

    #[test]
    fn fields_are_the_names_of_the_schema() {
        let text = "package core.v1\n\ntype A\n  volumeID! +string #1\n  readOnly bool #4\n";
        assert_eq!(fields(text).collect::<Vec<_>>(), ["volumeID", "readOnly"]);
    }

    #[test]
    fn keys_are_no_fields() {
        assert!(is_key("kubernetes.io/os") && is_key("$patch") && !is_key("repilcas"));
    }
}
