//! Project automation in our own language: `cargo xtask test|tidy|schema`.

mod clients;
mod debian;
mod gotypes;
mod kernel;
mod schema;
mod suite;
mod test;
mod tidy;

use std::path::Path;

use anyhow::{Result, bail};

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["test", extra @ ..] => test::run(extra),
        ["clients", args @ ..] => suite::main(args),
        ["tidy"] => tidy::run(false),
        ["tidy", "--write"] => tidy::run(true),
        ["schema", reference, go_source] => {
            schema::run(Path::new(reference), Path::new(go_source), Path::new("crates/api/schema"))
        }
        _ => bail!(
            "usage: cargo xtask test [cargo test arguments] | clients [--trireme <binary>] [name…] | tidy [--write] | schema <reference folder> <Kubernetes source tree>"
        ),
    }
}
