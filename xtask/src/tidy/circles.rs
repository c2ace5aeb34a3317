//! Circles between the folders of a crate: modules at its root that use each other, directly or not.

use std::collections::{BTreeMap, BTreeSet};

use syn::visit::{self, Visit};

use super::source::{Crate, is_test};

/// The root modules of the crate that stand in a circle.
pub(super) fn find(of: &Crate) -> Vec<String> {
    let roots: BTreeSet<&str> =
        of.files.iter().filter_map(|file| Some(file.module.first()?.as_str())).collect();
    let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in &of.files {
        let Some(own) = file.module.first() else { continue };
        let mut paths = Paths { module: file.module.clone(), found: BTreeSet::new() };
        paths.visit_file(&file.tree);
        let others = paths.found.into_iter().filter(|name| name != own);
        uses.entry(own.clone())
            .or_default()
            .extend(others.filter(|name| roots.contains(name.as_str())));
    }
    uses.keys().filter(|name| reaches(name, name, &uses)).cloned().collect()
}

fn reaches(from: &str, to: &str, uses: &BTreeMap<String, BTreeSet<String>>) -> bool {
    let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
    while let Some(name) = next.pop() {
        for used in uses.get(name).into_iter().flatten() {
            if used == to {
                return true;
            }
            if seen.insert(used) {
                next.push(used);
            }
        }
    }
    false
}

/// Collects the root modules that paths name.
struct Paths {
    module: Vec<String>,
    found: BTreeSet<String>,
}

impl Paths {
    /// Notes the root module of a path, when it begins at the crate or at this module.
    fn note<'a>(&mut self, mut segments: impl Iterator<Item = &'a syn::Ident>) {
        let mut at = match segments.next() {
            Some(first) if first == "crate" => Vec::new(),
            Some(first) if first == "self" => self.module.clone(),
            Some(first) if first == "super" => {
                self.module.iter().rev().skip(1).rev().cloned().collect()
            }
            _ => return,
        };
        for segment in segments {
            match segment == "super" {
                true => drop(at.pop()),
                false => at.push(segment.to_string()),
            }
        }
        self.found.extend(at.into_iter().next());
    }

    fn tree(&mut self, prefix: &mut Vec<syn::Ident>, tree: &syn::UseTree) {
        match tree {
            syn::UseTree::Path(path) => {
                prefix.push(path.ident.clone());
                self.tree(prefix, &path.tree);
                prefix.pop();
            }
            syn::UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.tree(prefix, tree));
            }
            syn::UseTree::Name(syn::UseName { ident })
            | syn::UseTree::Rename(syn::UseRename { ident, .. }) => {
                self.note(prefix.iter().chain([ident]));
            }
            syn::UseTree::Glob(_) => self.note(prefix.iter()),
        }
    }
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.note(path.segments.iter().map(|segment| &segment.ident));
        visit::visit_path(self, path);
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.tree(&mut Vec::new(), &item.tree);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if is_test(&item.attrs) {
            return;
        }
        self.module.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.module.pop();
    }

    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {
        // `pub(super)` names no use.
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::source::File;
    use super::*;

    fn krate(files: &[(&str, &str)]) -> Crate {
        let file = |(module, text): &(&str, &str)| File {
            path: PathBuf::from(module),
            module: module.split("::").map(str::to_owned).collect(),
            text: (*text).to_owned(),
            tree: syn::parse_file(text).expect("Rust"),
        };
        Crate { name: "x".into(), files: files.iter().map(file).collect() }
    }

    #[test]
    fn circles_are_found_through_any_path() {
        let found = find(&krate(&[
            ("a", "use crate::b::{self, C};"),
            ("b::inner", "fn f() { super::super::c::g() }"),
            ("c", "fn g() -> crate::a::T { loop {} }"),
            ("d", "use crate::{a, b};\n#[cfg(test)] mod tests { use crate::e::X; }"),
            ("e", "use super::d; pub(crate) fn h() {}"),
        ]));
        assert_eq!(found, ["a", "b", "c"]);
    }

    #[test]
    fn trees_are_no_circles() {
        assert!(
            find(&krate(&[("a", "use crate::b;"), ("a::x", "use super::y;"), ("b", "")]))
                .is_empty()
        );
    }
}
