//! Layers by what they were made of.
//!
//! One small file a key below `cache/`. A file that is torn, or whose layer is gone, is no entry.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

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
        whole.then_some(entry)
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
    use super::*;

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
