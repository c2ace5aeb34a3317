//! Layers by what they were made of.
//!
//! One small file a key below `cache/`, with the time of its last use as its own. A file that is torn, or whose
//! layer is gone, is no entry. Layers that only the cache holds may take so much; what was not used for longest goes first.

use std::collections::HashSet;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::time::SystemTime;

use runtime::image::ImageStore;
use serde::{Deserialize, Serialize};

use crate::error::{IoContext, Result};

/// The result of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// `None`: it changed nothing.
    pub(crate) layer: Option<String>,
    pub(crate) created: String,
}

/// An entry, its last use, and the layer that it holds beside images.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Used {
    path: PathBuf,
    at: SystemTime,
    layer: Option<String>,
    bytes: u64,
}

/// Which entries stay and which go: newest first, as long as their layers fit. Several may hold one layer.
fn divide(mut entries: Vec<Used>, limit: u64) -> (Vec<Used>, Vec<Used>) {
    entries.sort_by(|a, b| b.at.cmp(&a.at).then_with(|| a.path.cmp(&b.path)));
    let mut held: HashSet<String> = HashSet::new();
    let mut total = 0u64;
    let mut is_full = false;
    entries.into_iter().partition(|entry| {
        let Some(layer) = &entry.layer else { return true };
        if held.contains(layer) {
            return true;
        }
        // What is older than one that does not fit goes with it: what is left is what was used last.
        is_full |= total.saturating_add(entry.bytes) > limit;
        if !is_full {
            total += entry.bytes;
            held.insert(layer.clone());
        }
        !is_full
    })
}

pub(crate) struct Cache {
    dir: PathBuf,
}

impl Cache {
    pub(crate) fn open(dir: PathBuf) -> Result<Cache> {
        fs::create_dir_all(&dir).at("make", &dir)?;
        Ok(Cache { dir })
    }

    pub(crate) fn get(&self, key: &str, store: &ImageStore) -> Option<Entry> {
        let bytes = fs::read(self.dir.join(key)).ok()?;
        let entry: Entry = serde_json::from_slice(&bytes).ok()?;
        let whole = entry.layer.as_ref().is_none_or(|l| store.holds_layer(l));
        if whole {
            self.touch(key);
        }
        whole.then_some(entry)
    }

    /// An entry whose time cannot be set only goes sooner.
    fn touch(&self, key: &str) {
        let opened = fs::File::options().append(true).open(self.dir.join(key));
        if let Err(e) = opened.and_then(|file| file.set_modified(SystemTime::now())) {
            tracing::debug!(key, "cache entry not touched: {e}");
        }
    }

    /// Forgets entries until the layers that only they hold take no more than `limit` bytes, and removes the
    /// layers that nothing holds then. Returns how many bytes of layers have gone.
    pub(crate) fn collect(&self, store: &ImageStore, limit: u64) -> Result<u64> {
        let of_images: HashSet<String> = store.list().into_iter().flat_map(|i| i.layers).collect();
        let mut used = Vec::new();
        for entry in fs::read_dir(&self.dir).at("list", &self.dir)? {
            let path = entry.at("list", &self.dir)?.path();
            let bytes = fs::read(&path).at("read", &path)?;
            let Ok(Entry { layer, .. }) = serde_json::from_slice(&bytes) else {
                fs::remove_file(&path).at("remove", &path)?;
                continue;
            };
            let at = fs::metadata(&path).and_then(|m| m.modified()).at("inspect", &path)?;
            let layer = layer.filter(|layer| !of_images.contains(layer));
            let bytes = match &layer {
                Some(layer) => store.layer_bytes(layer).unwrap_or(0),
                None => 0,
            };
            used.push(Used { path, at, layer, bytes });
        }
        let before = store.all_layers_bytes()?;
        let (stay, go) = divide(used, limit);
        for entry in go {
            fs::remove_file(&entry.path).at("remove", &entry.path)?;
        }
        store.collect(&stay.into_iter().filter_map(|entry| entry.layer).collect())?;
        Ok(before.saturating_sub(store.all_layers_bytes()?))
    }

    pub(crate) fn put(&self, key: &str, entry: &Entry) -> Result<()> {
        let path = self.dir.join(key);
        let part = self.dir.join(format!("{key}.part"));
        let bytes = serde_json::to_vec(entry).expect("strings only");
        let write = || {
            let mut file = fs::File::create(&part)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&part, &path)
        };
        write().at("write", &path)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use runtime::image::Times;

    use super::*;

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let entry = |name: &str, age: u64, layer: Option<&str>, bytes: u64| Used {
            path: name.into(),
            at: SystemTime::UNIX_EPOCH + Duration::from_secs(1000 - age),
            layer: layer.map(str::to_owned),
            bytes,
        };
        let all = vec![
            entry("old", 9, Some("a"), 10),
            entry("small and older", 10, Some("d"), 1),
            entry("none", 20, None, 0),
            entry("new", 1, Some("b"), 60),
            entry("again", 30, Some("b"), 60),
            entry("middle", 5, Some("c"), 35),
        ];
        let names = |limit: u64| {
            let (stay, _) = divide(all.clone(), limit);
            stay.into_iter().map(|e| e.path.display().to_string()).collect::<Vec<_>>().join(",")
        };
        assert_eq!(names(1000), "new,middle,old,small and older,none,again");
        assert_eq!(names(105), "new,middle,old,none,again");
        assert_eq!(names(100), "new,middle,none,again");
        assert_eq!(names(59), "none");
    }

    #[test]
    fn layers_of_images_and_of_what_was_used_last_stay() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let store = ImageStore::open(dir.path().join("store")).unwrap();
        let cache = Cache::open(dir.path().join("cache")).unwrap();
        let layer = |name: &str| {
            let files = dir.path().join(name);
            fs::create_dir(&files).unwrap();
            fs::write(files.join(name), [b'x'; 1000]).unwrap();
            store.commit_layer(&files, Times::AsTheyAre).unwrap()
        };
        let layers = ["image", "old", "new"].map(layer);
        let config = format!(
            r#"{{"os":"linux","rootfs":{{"type":"layers","diff_ids":[{:?}]}}}}"#,
            layers[0]
        );
        store.commit_image(config.as_bytes(), &["app:1".to_owned()], false).unwrap();
        for (key, layer) in ["image", "old", "new"].iter().zip(&layers) {
            let entry = Entry { layer: Some(layer.clone()), created: "now".to_owned() };
            cache.put(key, &entry).unwrap();
            let file = fs::File::options().append(true).open(dir.path().join("cache").join(key));
            file.unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        }
        fs::write(dir.path().join("cache/torn"), "{").unwrap();
        assert!(cache.get("new", &store).is_some());
        assert_eq!(cache.collect(&store, 1500).unwrap(), 1000);
        let there = |key: &str| cache.get(key, &store).is_some();
        assert!(there("image") && there("new") && !there("old"));
        assert!(!store.holds_layer(&layers[1]) && !dir.path().join("cache/torn").exists());
        assert_eq!(cache.collect(&store, 0).unwrap(), 1000);
        assert!(there("image") && !there("new"));
    }

    #[test]
    fn a_torn_entry_or_one_without_its_layer_is_none() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let store = ImageStore::open(dir.path().join("store")).unwrap();
        let cache = Cache::open(dir.path().join("cache")).unwrap();
        let entry = Entry { layer: None, created: "now".to_owned() };
        cache.put("a", &entry).unwrap();
        assert_eq!(cache.get("a", &store), Some(entry.clone()));
        let whole = fs::read(dir.path().join("cache/a")).unwrap();
        for length in 0..whole.len() {
            fs::write(dir.path().join("cache/a"), &whole[..length]).unwrap();
            assert_eq!(cache.get("a", &store), None, "{length}");
        }
        let gone = Entry { layer: Some(format!("sha256:{}", "0".repeat(64))), ..entry };
        cache.put("b", &gone).unwrap();
        assert_eq!(cache.get("b", &store), None);
    }
}
