//! From the parser's events to a tree.

use std::collections::HashMap;
use std::mem;

use serde_json::{Map, Value};

use super::Document;
use super::scalar::key_text;
use crate::limits::{self, Budget, DEPTH_MAX, Findings, TOO_DEEP, TOO_LARGE};

/// A key of a mapping whose entries are taken over (YAML 1.1 `merge`).
const MERGE: &str = "<<";

/// A collection being read.
enum Open {
    Sequence(Vec<Value>),
    Mapping {
        map: Map<String, Value>,
        /// The key whose value comes next.
        key: Option<Key>,
        /// Mappings to take over what is not set here.
        merged: Vec<Value>,
    },
}

struct Key {
    text: String,
    /// As Go's `%#v` prints it.
    shown: String,
}

impl Key {
    fn of(value: Value) -> Result<Key> {
        let is_text = value.is_string();
        let text = key_text(value)?;
        let shown = if is_text { format!("{text:?}") } else { text.clone() };
        Ok(Key { text, shown })
    }
}

struct Level {
    open: Open,
    anchor: usize,
    /// The budget that was left when it began.
    before: usize,
    /// Levels below this one, so far.
    height: usize,
}

/// A value that aliases may repeat.
struct Anchored {
    value: Value,
    memory: usize,
    height: usize,
}

pub(super) struct Builder {
    levels: Vec<Level>,
    anchors: HashMap<usize, Anchored>,
    memory: Budget,
    duplicates: Findings,
    root: Value,
}

impl Default for Builder {
    fn default() -> Builder {
        Builder {
            levels: Vec::new(),
            anchors: HashMap::new(),
            memory: Budget::of_tree(),
            duplicates: Findings::default(),
            root: Value::Null,
        }
    }
}

type Result<T = ()> = std::result::Result<T, String>;

impl Builder {
    pub(super) fn finish(self) -> Document {
        Document { value: self.root, duplicates: self.duplicates.into_list() }
    }

    pub(super) fn open_mapping(&mut self, anchor: usize) -> Result {
        self.open(Open::Mapping { map: Map::new(), key: None, merged: Vec::new() }, anchor)
    }

    pub(super) fn open_sequence(&mut self, anchor: usize) -> Result {
        self.open(Open::Sequence(Vec::new()), anchor)
    }

    fn open(&mut self, open: Open, anchor: usize) -> Result {
        if self.levels.len() >= DEPTH_MAX {
            return Err(TOO_DEEP.into());
        }
        if let Some(Level { open: Open::Mapping { key: None, .. }, .. }) = self.levels.last() {
            return Err("invalid map key: a key must be a scalar".into());
        }
        self.charge(limits::MAP)?;
        self.levels.push(Level { open, anchor, before: self.memory.left(), height: 0 });
        Ok(())
    }

    pub(super) fn close(&mut self, line: usize) -> Result {
        let Some(level) = self.levels.pop() else { return Ok(()) };
        let value = match level.open {
            Open::Sequence(items) => Value::Array(items),
            Open::Mapping { mut map, merged, .. } => {
                merged.into_iter().try_for_each(|from| merge(&mut map, from))?;
                Value::Object(map)
            }
        };
        let memory = limits::MAP + level.before.saturating_sub(self.memory.left());
        self.remember(level.anchor, &value, memory, level.height + 1)?;
        self.add(value, level.height + 1, line)
    }

    pub(super) fn scalar(&mut self, value: Value, anchor: usize, line: usize) -> Result {
        let memory = value.as_str().map_or(0, str::len);
        self.charge(memory)?;
        self.remember(anchor, &value, memory, 0)?;
        self.add(value, 0, line)
    }

    pub(super) fn alias(&mut self, anchor: usize, line: usize) -> Result {
        let Some(Anchored { memory, height, .. }) = self.anchors.get(&anchor) else {
            // The parser knows the name: the alias stands inside what it names.
            return Err("anchor value contains itself".into());
        };
        let (memory, height) = (*memory, *height);
        if self.levels.len() + height > DEPTH_MAX {
            return Err(TOO_DEEP.into());
        }
        self.memory.take(memory).map_err(|_| "document contains excessive aliasing")?;
        let value = self.anchors.get(&anchor).map(|found| found.value.clone());
        self.add(value.unwrap_or_default(), height, line)
    }

    fn charge(&mut self, bytes: usize) -> Result {
        self.memory.take(bytes).map_err(|_| TOO_LARGE.to_owned())
    }

    fn remember(&mut self, anchor: usize, value: &Value, memory: usize, height: usize) -> Result {
        if anchor != 0 {
            self.charge(memory)?;
            self.anchors.insert(anchor, Anchored { value: value.clone(), memory, height });
        }
        Ok(())
    }

    /// Puts a whole value where it belongs: an item, a key, a key's value, or the document.
    fn add(&mut self, value: Value, height: usize, line: usize) -> Result {
        self.memory.take(limits::VALUE).map_err(|_| TOO_LARGE)?;
        let Some(level) = self.levels.last_mut() else {
            self.root = value;
            return Ok(());
        };
        level.height = level.height.max(height);
        match &mut level.open {
            Open::Sequence(items) => items.push(value),
            Open::Mapping { key: slot @ None, .. } => *slot = Some(Key::of(value)?),
            Open::Mapping { map, key: slot, merged } => {
                let Some(key) = mem::take(slot) else { return Ok(()) };
                if key.text == MERGE {
                    merged.push(value);
                    return Ok(());
                }
                self.memory.take(limits::ENTRY + key.text.len()).map_err(|_| TOO_LARGE)?;
                if map.contains_key(&key.text) {
                    let shown = key.shown;
                    self.duplicates.add(|| format!("line {line}: key {shown} already set in map"));
                }
                map.insert(key.text, value);
            }
        }
        Ok(())
    }
}

/// Takes over what `from`, a mapping or a list of such, has and `map` has not.
fn merge(map: &mut Map<String, Value>, from: Value) -> Result {
    match from {
        Value::Object(entries) => {
            for (key, value) in entries {
                map.entry(key).or_insert(value);
            }
            Ok(())
        }
        Value::Array(maps) if maps.iter().all(Value::is_object) => {
            maps.into_iter().try_for_each(|one| merge(map, one))
        }
        _ => Err("map merge requires map or sequence of maps as the value".into()),
    }
}
