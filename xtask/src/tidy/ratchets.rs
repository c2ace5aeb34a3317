//! Numbers that may only fall: long files and functions, missing headers, loose tasks, circles.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use syn::visit::{self, Visit};

use super::circles;
use super::source::{Crate, File, is_test};

/// Lines of a file and of a function that are too many (style: files near 200, functions near 10).
const FILE_LINES: usize = 500;
const FUNCTION_LINES: usize = 70;

/// What was found for each rule: places, worst first.
pub(super) type Measured = BTreeMap<String, Vec<String>>;

pub(super) fn measure(crates: &[Crate]) -> Measured {
    let mut found: BTreeMap<String, Vec<(usize, String)>> = BTreeMap::new();
    let mut note = |rule: &str, size: usize, place: String| {
        found.entry(rule.to_owned()).or_default().push((size, place));
    };
    for of in crates {
        for file in &of.files {
            let path = file.path.display();
            let lines = file.text.lines().count();
            if lines > FILE_LINES {
                note(&format!("files over {FILE_LINES} lines"), lines, path.to_string());
            }
            if !file.text.starts_with("//!") {
                note("files without a header", 1, path.to_string());
            }
            let code = Code::of(file);
            for (line, length) in code.long {
                let rule = format!("functions over {FUNCTION_LINES} lines");
                note(&rule, length, format!("{path}:{line}"));
            }
            // The crate of tasks is where they are started.
            for line in code.spawns.into_iter().filter(|_| of.name != "tasks") {
                note("bare tokio::spawn", 1, format!("{path}:{line}"));
            }
        }
        for module in circles::find(of) {
            note(&format!("modules in circles of {}", of.name), 1, module);
        }
    }
    let sorted = |mut places: Vec<(usize, String)>| {
        places.sort_by(|a, b| b.cmp(a));
        places.into_iter().map(|(size, place)| format!("{place} ({size})")).collect()
    };
    found.into_iter().map(|(rule, places)| (rule, sorted(places))).collect()
}

/// What a file's code, without its tests, has too much of.
#[derive(Default)]
struct Code {
    /// First line and length of each long function.
    long: Vec<(usize, usize)>,
    /// Lines that call `tokio::spawn`.
    spawns: Vec<usize>,
}

impl Code {
    fn of(file: &File) -> Code {
        let mut code = Code::default();
        code.visit_file(&file.tree);
        code
    }

    fn body(&mut self, block: &syn::Block) {
        let braces = block.brace_token.span;
        let (start, end) = (braces.open().start().line, braces.close().end().line);
        if end - start + 1 > FUNCTION_LINES {
            self.long.push((start, end - start + 1));
        }
    }
}

impl<'ast> Visit<'ast> for Code {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.body(&item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.body(&item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<String> = path.segments.iter().map(|part| part.ident.to_string()).collect();
        if names == ["tokio", "spawn"] {
            self.spawns.extend(path.segments.first().map(|part| part.ident.span().start().line));
        }
        visit::visit_path(self, path);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_test(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }
}

/// Compares with the recorded numbers; records the present ones when asked to and none rose.
pub(super) fn hold(measured: &Measured, file: &Path, write: bool) -> Result<Vec<String>> {
    let text = fs::read_to_string(file).unwrap_or_else(|_| "{}".into());
    let recorded: BTreeMap<String, usize> =
        serde_json::from_str(&text).with_context(|| file.display().to_string())?;
    let faults = compare(measured, &recorded);
    let rose = faults.iter().any(|fault| fault.rose);
    if write && !rose {
        let numbers: BTreeMap<&String, usize> =
            measured.iter().map(|(rule, places)| (rule, places.len())).collect();
        fs::write(file, serde_json::to_string_pretty(&numbers)? + "\n")?;
        return Ok(Vec::new());
    }
    Ok(faults.into_iter().map(|fault| fault.text).collect())
}

struct Fault {
    rose: bool,
    text: String,
}

fn compare(measured: &Measured, recorded: &BTreeMap<String, usize>) -> Vec<Fault> {
    let mut rules: Vec<&String> = measured.keys().chain(recorded.keys()).collect();
    rules.sort();
    rules.dedup();
    let none = Vec::new();
    let fault = |rule: &String| {
        let places = measured.get(rule).unwrap_or(&none);
        let (now, before) = (places.len(), recorded.get(rule).copied().unwrap_or(0));
        match now.cmp(&before) {
            std::cmp::Ordering::Equal => None,
            std::cmp::Ordering::Less => Some(Fault {
                rose: false,
                text: format!("{rule}: {now}, fewer than {before}; run `cargo xtask tidy --write`"),
            }),
            std::cmp::Ordering::Greater => Some(Fault {
                rose: true,
                text: format!("{rule}: {now}, more than {before}:\n  {}", places.join("\n  ")),
            }),
        }
    };
    rules.into_iter().filter_map(fault).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_may_only_fall() {
        let measured = Measured::from([("x".into(), vec!["a (1)".into(), "b (1)".into()])]);
        let recorded = |n: usize| BTreeMap::from([("x".to_owned(), n)]);
        assert!(compare(&measured, &recorded(2)).is_empty());
        assert!(compare(&measured, &recorded(1)).iter().all(|fault| fault.rose));
        assert!(compare(&measured, &recorded(3)).iter().all(|fault| !fault.rose));
        assert_eq!(compare(&Measured::new(), &recorded(3)).len(), 1);
    }

    #[test]
    fn long_functions_and_spawns_are_found_but_in_tests() {
        let long = format!("fn f() {{\n{}}}\n", "    tokio::spawn(g());\n".repeat(80));
        let text = format!("{long}impl X {{ {long} }}\n#[cfg(test)]\nmod tests {{ {long} }}\n");
        let tree = syn::parse_file(&text).expect("Rust");
        let file = File { path: "x.rs".into(), module: vec!["x".into()], text, tree };
        let code = Code::of(&file);
        assert_eq!((code.long.len(), code.spawns.len()), (2, 160));
    }
}
