//! `cargo xtask tidy`: holds the code to ARCHITECTURE.md's table, to the schema's field names and to the numbers in
//! `tidy.json`.
//!
//! The numbers are ratchets: more than recorded is refused, and fewer must be recorded, so that they only
//! fall. `cargo xtask tidy --write` records the present ones where none rose.

mod circles;
mod fields;
mod layers;
mod ratchets;
mod source;

use std::path::Path;

use anyhow::{Result, bail};

const TABLE: &str = "ARCHITECTURE.md";
const NUMBERS: &str = "xtask/tidy.json";

pub(crate) fn run(write: bool) -> Result<()> {
    let mut faults = layers::check(&std::fs::read_to_string(TABLE)?, &layers::metadata()?);
    let crates = source::crates(Path::new("crates"))?;
    let measured = ratchets::measure(&crates);
    faults.extend(fields::check(&crates)?);
    faults.extend(ratchets::hold(&measured, Path::new(NUMBERS), write)?);
    if faults.is_empty() {
        println!("tidy: {} crates", crates.len());
        return Ok(());
    }
    for fault in &faults {
        eprintln!("{fault}");
    }
    bail!("tidy found {} faults", faults.len());
}
