//! Files of one volume that hide each other.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::Warnings;
use crate::check::At;
use crate::value::{items, text};

/// A path in a volume and what puts a file there.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    path: String,
    source: String,
}

impl Entry {
    fn new(path: &Value, source: &str) -> Entry {
        let path = text(path).trim_end_matches('/').to_owned();
        Entry { path, source: source.to_owned() }
    }

    fn shown(&self) -> String {
        match self.source.as_str() {
            "" => format!("{:?}", self.path),
            source => format!("{:?} ({source})", self.path),
        }
    }
}

/// Paths seen, in an order in which those below a path follow it.
#[derive(Default)]
struct Seen {
    by_path: BTreeMap<String, Vec<(usize, Entry)>>,
    count: usize,
}

impl Seen {
    /// Earlier entries that are the same path, above it or below it, in the order they came in.
    fn overlaps(&self, entry: &Entry) -> Vec<Entry> {
        if entry.path.is_empty() {
            return Vec::new();
        }
        let mut found: BTreeSet<&(usize, Entry)> = BTreeSet::new();
        let above = entry.path.match_indices('/').map(|(end, _)| &entry.path[..end]);
        for path in above.chain([entry.path.as_str()]).filter(|path| !path.is_empty()) {
            found.extend(self.by_path.get(path).into_iter().flatten());
        }
        let below = format!("{}/", entry.path);
        let after = self.by_path.range(below.clone()..);
        for (_, entries) in after.take_while(|(path, _)| path.starts_with(&below)) {
            found.extend(entries);
        }
        found.into_iter().map(|(_, entry)| entry.clone()).collect()
    }

    fn add(&mut self, entry: Entry) {
        self.by_path.entry(entry.path.clone()).or_default().push((self.count, entry));
        self.count += 1;
    }
}

pub(super) fn overlaps(warnings: &Warnings, volumes: &At<'_>) {
    for volume in volumes.value().as_array().into_iter().flatten() {
        let name = text(&volume["name"]);
        for (field, title) in [("configMap", "name"), ("secret", "secretName"), ("downwardAPI", "")]
        {
            let source = &volume[field];
            let shown = described(field, text(&source[title]));
            let mut seen = Seen::default();
            for item in items(source, "items") {
                add(warnings, (name, &shown), &mut seen, Entry::new(&item["path"], ""));
            }
        }
        projected(warnings, name, &volume["projected"]);
    }
}

fn projected(warnings: &Warnings, volume: &str, projected: &Value) {
    let mut seen = Seen::default();
    for source in items(projected, "sources") {
        if source.as_object().is_none_or(serde_json::Map::is_empty) {
            warnings.add(format!("volume {volume:?} (Projected) has no sources provided"));
            continue;
        }
        // A source's own entries are compared with those of the sources before it and its own.
        for entry in entries(source) {
            add(warnings, (volume, "Projected"), &mut seen, entry);
        }
    }
}

fn entries(source: &Value) -> Vec<Entry> {
    for (field, title) in [("configMap", "name"), ("secret", "name"), ("downwardAPI", "")] {
        if source[field]["items"].is_array() {
            let shown = described(field, text(&source[field][title]));
            return items(&source[field], "items")
                .map(|i| Entry::new(&i["path"], &shown))
                .collect();
        }
    }
    let (token, bundle) = (&source["serviceAccountToken"], &source["clusterTrustBundle"]);
    if token.is_object() {
        return vec![Entry::new(&token["path"], "ServiceAccountToken")];
    }
    if bundle.is_object() {
        let name = bundle["name"].as_str().unwrap_or_else(|| text(&bundle["signerName"]));
        return vec![Entry::new(&bundle["path"], &format!("ClusterTrustBundle {name:?}"))];
    }
    let certificate = &source["podCertificate"];
    [
        ("certificateChainPath", "PodCertificate chain"),
        ("keyPath", "PodCertificate key"),
        ("credentialBundlePath", "PodCertificate credential bundle"),
    ]
    .into_iter()
    .filter(|(field, _)| !text(&certificate[*field]).is_empty())
    .map(|(field, shown)| Entry::new(&certificate[field], shown))
    .collect()
}

fn described(field: &str, name: &str) -> String {
    match field {
        "configMap" => format!("ConfigMap {name:?}"),
        "secret" => format!("Secret {name:?}"),
        _ => "DownwardAPI".into(),
    }
}

fn add(warnings: &Warnings, (volume, shown): (&str, &str), seen: &mut Seen, entry: Entry) {
    if warnings.is_full() {
        return;
    }
    for other in seen.overlaps(&entry) {
        let (one, two) = (entry.shown(), other.shown());
        warnings.add(format!("volume {volume:?} ({shown}): overlapping paths: {one} with {two}"));
    }
    seen.add(entry);
}
