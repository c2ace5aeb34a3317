//! The crates' table: every crate stands in it, and uses only crates that stand below it.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Longest allowed chain of internal dependencies: two cores rebuild all that is above a change.
const CHAIN_MAX: usize = 9;

/// The section of the table.
const SECTION: &str = "## The crates";

/// What `cargo metadata` says of the workspace.
pub(super) fn metadata() -> Result<Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .output()
        .context("run cargo metadata")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Faults of the crates' dependencies against the table in `text`.
pub(super) fn check(text: &str, metadata: &Value) -> Vec<String> {
    let section = text.lines().skip_while(|line| *line != SECTION).skip(1);
    let table: Vec<&str> =
        section.take_while(|line| !line.starts_with("## ")).filter_map(row).collect();
    let place = |name: &str| table.iter().position(|row| *row == name);
    let uses = internal(metadata);
    let mut faults = Vec::new();
    for (name, used) in &uses {
        let Some(own) = place(name) else {
            faults.push(format!("{}: the crate `{name}` is missing in the table", super::TABLE));
            continue;
        };
        let above = used.iter().filter(|other| place(other).is_some_and(|at| at <= own));
        faults.extend(above.map(|other| {
            format!("crates/{name}/Cargo.toml: `{name}` uses `{other}`, which stands above it")
        }));
    }
    let gone = table.iter().filter(|row| !uses.contains_key(**row));
    faults.extend(gone.map(|row| format!("{}: there is no crate `{row}`", super::TABLE)));
    let longest = uses.keys().map(|name| chain(name, &uses, uses.len())).max().unwrap_or(0);
    if longest > CHAIN_MAX {
        faults.push(format!("{longest} crates depend on each other in a chain ({CHAIN_MAX})"));
    }
    faults
}

/// The crate of a table row: "| `name` | …".
fn row(line: &str) -> Option<&str> {
    line.strip_prefix("| `")?.split_once("` |").map(|(name, _)| name)
}

type Uses = BTreeMap<String, Vec<String>>;

/// The dependencies of each crate below `crates/` on others there, without those of tests.
fn internal(metadata: &Value) -> Uses {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let ours = |package: &&Value| text(&package["manifest_path"]).contains("/crates/");
    let packages = list(&metadata["packages"]);
    let used = |package: &Value| {
        let dependencies = list(&package["dependencies"]).into_iter();
        let inner = dependencies.filter(|d| d["path"].is_string() && d["kind"].is_null());
        inner.map(|d| text(&d["name"])).collect()
    };
    packages.iter().filter(ours).map(|p| (text(&p["name"]), used(p))).collect()
}

/// Crates in the longest chain from this one; `left` ends circles, which cargo refuses anyway.
fn chain(name: &str, uses: &Uses, left: usize) -> usize {
    let below = uses.get(name).into_iter().flatten();
    let longest = below.map(|other| if left == 0 { 0 } else { chain(other, uses, left - 1) });
    1 + longest.max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(uses: &[(&str, &[&str])]) -> Value {
        let dependency = |name: &&str| json!({"name": name, "path": "/w/crates/x", "kind": null});
        let package = |(name, used): &(&str, &[&str])| {
            let mut dependencies: Vec<Value> = used.iter().map(dependency).collect();
            dependencies.push(json!({"name": "top", "path": "/w/crates/top", "kind": "dev"}));
            dependencies.push(json!({"name": "serde", "kind": null}));
            json!({"name": name, "manifest_path": format!("/w/crates/{name}/Cargo.toml"),
                "dependencies": dependencies})
        };
        json!({"packages": uses.iter().map(package).collect::<Vec<_>>()})
    }

    const TABLE: &str =
        "## The crates\n| crate | it is |\n| `top` | a |\n| `low` | b |\n## Files\n| `x` | c |\n";

    #[test]
    fn arrows_point_down() {
        assert!(check(TABLE, &of(&[("top", &["low"]), ("low", &[])])).is_empty());
        let faults = check(TABLE, &of(&[("top", &[]), ("low", &["top"])]));
        assert_eq!(faults, ["crates/low/Cargo.toml: `low` uses `top`, which stands above it"]);
    }

    #[test]
    fn table_and_crates_are_the_same() {
        let faults = check(TABLE, &of(&[("top", &[]), ("new", &[])]));
        assert_eq!(faults.len(), 2, "{faults:?}");
    }

    #[test]
    fn chains_are_short() {
        let names: Vec<String> = (0..10).map(|n| format!("c{n}")).collect();
        let rows: String = names.iter().map(|name| format!("| `{name}` | x |\n")).collect();
        let table = format!("## The crates\n{rows}");
        let next: Vec<Vec<&str>> =
            (0..10).map(|n| names.get(n + 1).map(String::as_str).into_iter().collect()).collect();
        let uses: Vec<(&str, &[&str])> =
            names.iter().zip(&next).map(|(name, next)| (name.as_str(), &next[..])).collect();
        assert_eq!(check(&table, &of(&uses)), ["10 crates depend on each other in a chain (9)"]);
    }
}
