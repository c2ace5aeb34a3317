//! A digest of everything that OpenAPI documents are made of: clients keep a document for as long as
//! its hash stays the same, across versions of this program.

use std::path::{Path, PathBuf};

const PARTS: [&str; 4] = ["src/openapi.rs", "src/openapi", "../api/schema", "../api/build.rs"];

fn main() {
    let mut files = Vec::new();
    for part in PARTS {
        println!("cargo::rerun-if-changed={part}");
        collect(Path::new(part), &mut files);
    }
    files.sort();
    let mut hash = FNV_OFFSET;
    for file in files {
        let bytes = std::fs::read(&file).expect("a source file can be read");
        hash = bytes
            .into_iter()
            .fold(hash, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME));
    }
    println!("cargo::rustc-env=OPENAPI_SOURCES={hash:016x}");
}

// FNV-1a of 64 bits: stable over compilers, unlike the standard library's hashers.
const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

fn collect(path: &Path, files: &mut Vec<PathBuf>) {
    match std::fs::read_dir(path) {
        Ok(entries) => entries.flatten().for_each(|entry| collect(&entry.path(), files)),
        Err(_) => files.push(path.to_owned()),
    }
}
