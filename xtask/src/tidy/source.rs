//! The sources of the crates, parsed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

pub(super) struct Crate {
    pub(super) name: String,
    pub(super) files: Vec<File>,
}

/// A source file that is no test.
pub(super) struct File {
    pub(super) path: PathBuf,
    /// Its module's path below the crate's root.
    pub(super) module: Vec<String>,
    pub(super) text: String,
    pub(super) tree: syn::File,
}

/// All crates below a folder.
pub(super) fn crates(folder: &Path) -> Result<Vec<Crate>> {
    let mut found = Vec::new();
    for path in entries(folder)? {
        let source = path.join("src");
        if source.is_dir() {
            let mut files = Vec::new();
            collect(&source, &source, &mut files)?;
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            found.push(Crate { name, files });
        }
    }
    Ok(found)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut paths: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    paths.sort();
    Ok(paths)
}

fn collect(root: &Path, folder: &Path, files: &mut Vec<File>) -> Result<()> {
    for path in entries(folder)? {
        let stem = path.file_stem().unwrap_or_default();
        if stem == "tests" {
            continue;
        }
        if path.is_dir() {
            collect(root, &path, files)?;
        } else if path.extension().is_some_and(|end| end == "rs") {
            let text = fs::read_to_string(&path)?;
            let tree = syn::parse_file(&text).with_context(|| path.display().to_string())?;
            let module = module(path.strip_prefix(root)?);
            files.push(File { path, module, text, tree });
        }
    }
    Ok(())
}

/// `a/b.rs` and `a/b/mod.rs` are `a::b`; `lib.rs` and `main.rs` are the root.
fn module(path: &Path) -> Vec<String> {
    let path = path.with_extension("");
    let mut parts: Vec<String> =
        path.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if parts.last().is_some_and(|last| last == "mod")
        || matches!(parts.as_slice(), [only] if only == "lib" || only == "main")
    {
        parts.pop();
    }
    parts
}

/// Whether an item is compiled for tests only.
pub(super) fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let is_cfg = attribute.path().is_ident("cfg");
        let condition = is_cfg.then(|| attribute.parse_args::<syn::Path>().ok()).flatten();
        condition.is_some_and(|path| path.is_ident("test"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_follow_from_paths() {
        for (path, expected) in
            [("lib.rs", &[][..]), ("a.rs", &["a"]), ("a/mod.rs", &["a"]), ("a/b.rs", &["a", "b"])]
        {
            assert_eq!(module(Path::new(path)), expected, "{path}");
        }
    }
}
