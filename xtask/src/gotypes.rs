//! What Go type declarations say that OpenAPI does not: which fields are pointers and which are
//! left out when empty. It decides whether an explicit zero survives a round trip.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::Result;

/// One field's Go facts.
#[derive(Debug, Clone, Default)]
pub(crate) struct GoField {
    pointer: bool,
    omit_empty: bool,
    omit_zero: bool,
    /// Protobuf field number; 0 when the declaration has none.
    tag: u32,
}

impl GoField {
    /// `*` pointer, `+` always present, `~` a struct left out when zero.
    pub(crate) fn presence(&self) -> &'static str {
        match (self.pointer, self.omit_empty || self.omit_zero) {
            (true, true) => "*",
            (true, false) => "*+",
            (false, false) => "+",
            (false, true) if self.omit_zero => "~",
            (false, true) => "",
        }
    }
}

#[derive(Debug, Default)]
struct GoStruct {
    fields: HashMap<String, GoField>,
    /// Embedded structs, each with the field number of the message it is in protobuf.
    inline: Vec<(String, u32)>,
}

/// All structs, by short package and name.
#[derive(Debug, Default)]
pub(crate) struct GoTypes {
    structs: HashMap<(String, String), GoStruct>,
}

impl GoTypes {
    /// Reads the `types.go` files of a Kubernetes source tree.
    pub(crate) fn read(source: &Path) -> Result<GoTypes> {
        let staging = source.join("staging/src/k8s.io");
        let mut go = GoTypes::default();
        let roots = [
            (staging.join("api"), ""),
            (staging.join("apimachinery/pkg/apis/meta"), "meta."),
            (staging.join("apiextensions-apiserver/pkg/apis/apiextensions"), "apiextensions."),
            (staging.join("kube-aggregator/pkg/apis/apiregistration"), "apiregistration."),
        ];
        for (root, prefix) in roots {
            for file in types_files(&root)? {
                let folder = file.parent().and_then(|p| p.strip_prefix(&root).ok());
                let package = folder.map(|f| f.to_string_lossy().replace('/', "."));
                let text = std::fs::read_to_string(&file)?;
                go.read_file(&format!("{prefix}{}", package.unwrap_or_default()), &text);
            }
        }
        Ok(go)
    }

    fn read_file(&mut self, package: &str, text: &str) {
        let mut current: Option<String> = None;
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("type ") {
                current = rest.strip_suffix(" struct {").map(str::to_owned);
            } else if line == "}" {
                current = None;
            } else if let Some(name) = &current {
                let key = (package.to_owned(), name.clone());
                self.structs.entry(key).or_default().read_line(line.trim());
            }
        }
    }

    /// A field's facts and its path of protobuf field numbers (embedded structs are messages).
    pub(crate) fn field(
        &self,
        package: &str,
        name: &str,
        field: &str,
    ) -> Option<(&GoField, Vec<u32>)> {
        let found = self.structs.get(&(package.to_owned(), name.to_owned()))?;
        if let Some(facts) = found.fields.get(field) {
            return Some((facts, vec![facts.tag]));
        }
        found.inline.iter().find_map(|(inline, tag)| {
            let (facts, path) = match inline.split_once('.') {
                Some((import, name)) => self.field(&imported(import), name, field)?,
                None => self.field(package, inline, field)?,
            };
            // An embedded struct without a number (TypeMeta) is not part of the message.
            let path = if *tag == 0 { vec![0] } else { [&[*tag], path.as_slice()].concat() };
            Some((facts, path))
        })
    }
}

/// `metav1` is `meta.v1`, `corev1` and `v1` are `core.v1`.
fn imported(import: &str) -> String {
    match import {
        "metav1" => "meta.v1".into(),
        _ => "core.v1".into(),
    }
}

impl GoStruct {
    fn read_line(&mut self, line: &str) {
        let Some((declaration, rest)) = line.split_once('`') else { return };
        let Some(tag) = rest.split("json:\"").nth(1).and_then(|t| t.split('"').next()) else {
            return;
        };
        let words: Vec<&str> = declaration.split_whitespace().collect();
        let mut parts = tag.split(',');
        let name = parts.next().unwrap_or("");
        let flags: Vec<&str> = parts.collect();
        let proto = rest.split("protobuf:\"").nth(1).and_then(|t| t.split(',').nth(1));
        let tag = proto.and_then(|t| t.parse().ok()).unwrap_or(0);
        if name.is_empty() {
            self.inline.extend(words.last().map(|w| (w.trim_start_matches('*').to_owned(), tag)));
            return;
        }
        let field = GoField {
            pointer: words.get(1).is_some_and(|t| t.starts_with('*')),
            omit_empty: flags.contains(&"omitempty"),
            omit_zero: flags.contains(&"omitzero"),
            tag,
        };
        self.fields.insert(name.to_owned(), field);
    }
}

fn types_files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(types_files(&path)?);
        } else if path.extension().is_some_and(|e| e == "go")
            && !path.to_string_lossy().contains("zz_generated")
            && !path.to_string_lossy().ends_with("_test.go")
        {
            found.push(path);
        }
    }
    Ok(found)
}
