//! The image so far.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

pub(crate) fn digest(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        // Lengths keep the parts apart.
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

#[derive(Clone, Debug)]
pub(crate) struct State {
    /// Diff ids, lowest first.
    pub(crate) layers: Vec<String>,
    /// The image's `config`: Env, Cmd, Labels, …
    pub(crate) config: Map<String, Value>,
    pub(crate) history: Vec<Value>,
    /// What else the base's configuration says.
    other: Map<String, Value>,
    /// Declared ARGs and their values.
    pub(crate) arguments: BTreeMap<String, String>,
    /// Names what the files are made of.
    pub(crate) key: String,
    /// When the last layer was made.
    pub(crate) created: String,
    /// Whether CMD was set after the base.
    pub(crate) cmd_is_own: bool,
}

/// Seconds since 1970 as images write times.
pub(crate) fn time_text(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map(|t| t.to_string()).unwrap_or_default()
}

impl State {
    pub(crate) fn scratch(architecture: &str, created: String) -> State {
        let other = json!({ "architecture": architecture, "os": "linux" });
        let Value::Object(other) = other else { unreachable!("an object") };
        State {
            layers: Vec::new(),
            config: Map::new(),
            history: Vec::new(),
            other,
            arguments: BTreeMap::new(),
            key: digest(&["scratch"]),
            created,
            cmd_is_own: false,
        }
    }

    /// An image's configuration as the base of a stage.
    pub(crate) fn of_image(id: &str, bytes: &[u8], created: String) -> Result<State> {
        let bad = |what: &str| Error::refused(format!("image {id}: its configuration {what}"));
        let value: Value = serde_json::from_slice(bytes).map_err(|e| bad(&e.to_string()))?;
        let Value::Object(mut other) = value else { return Err(bad("is no object")) };
        let rootfs = other.remove("rootfs").unwrap_or_default();
        let list = rootfs
            .get("diff_ids")
            .and_then(Value::as_array)
            .ok_or_else(|| bad("lists no layers"))?;
        let layers = list.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        let config = match other.remove("config") {
            Some(Value::Object(config)) => config,
            _ => Map::new(),
        };
        let history = match other.remove("history") {
            Some(Value::Array(history)) => history,
            _ => Vec::new(),
        };
        other.remove("created");
        let key = digest(&["image", id]);
        let (arguments, cmd_is_own) = (BTreeMap::new(), false);
        Ok(State { layers, config, history, other, arguments, key, created, cmd_is_own })
    }

    /// The configuration's bytes: the same state gives the same ones.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut all = self.other.clone();
        all.insert("created".to_owned(), json!(self.created));
        all.insert("config".to_owned(), Value::Object(self.config.clone()));
        all.insert("history".to_owned(), json!(self.history));
        all.insert("rootfs".to_owned(), json!({ "type": "layers", "diff_ids": self.layers }));
        Value::Object(all).to_string().into_bytes()
    }

    pub(crate) fn text(&self, key: &str) -> String {
        self.config.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    pub(crate) fn list(&self, key: &str) -> Vec<String> {
        let list = self.config.get(key).and_then(Value::as_array).into_iter().flatten();
        list.filter_map(Value::as_str).map(str::to_owned).collect()
    }

    pub(crate) fn set(&mut self, key: &str, value: Value) {
        self.config.insert(key.to_owned(), value);
    }

    pub(crate) fn set_env(&mut self, key: &str, value: &str) {
        let mut list = self.list("Env");
        let entry = format!("{key}={value}");
        match list.iter_mut().find(|e| e.split('=').next() == Some(key)) {
            Some(found) => *found = entry,
            None => list.push(entry),
        }
        self.set("Env", json!(list));
    }

    /// Adds names to a set, e.g. of volumes or ports.
    pub(crate) fn add_to_set(&mut self, key: &str, names: &[String]) {
        let set = self.config.entry(key).or_insert_with(|| json!({}));
        if !set.is_object() {
            *set = json!({});
        }
        for name in names {
            set[name.as_str()] = json!({});
        }
    }

    pub(crate) fn set_label(&mut self, key: &str, value: &str) {
        let set = self.config.entry("Labels").or_insert_with(|| json!({}));
        if !set.is_object() {
            *set = json!({});
        }
        set[key] = json!(value);
    }

    pub(crate) fn set_author(&mut self, name: &str) {
        self.other.insert("author".to_owned(), json!(name));
    }

    /// What a variable stands for: ENV goes before ARG.
    pub(crate) fn variables(&self) -> BTreeMap<String, String> {
        let mut all = self.arguments.clone();
        for entry in self.list("Env") {
            let (key, value) = entry.split_once('=').unwrap_or((&entry, ""));
            all.insert(key.to_owned(), value.to_owned());
        }
        all
    }

    pub(crate) fn shell(&self) -> Vec<String> {
        match self.list("Shell") {
            list if list.is_empty() => vec!["/bin/sh".to_owned(), "-c".to_owned()],
            list => list,
        }
    }

    pub(crate) fn workdir(&self) -> String {
        match self.text("WorkingDir") {
            text if text.is_empty() => "/".to_owned(),
            text => text,
        }
    }

    /// Books an instruction; one without a layer is an empty one.
    pub(crate) fn book(&mut self, by: &str, layer: Option<String>) {
        let mut entry = json!({ "created": self.created, "created_by": by, "comment": "trireme" });
        match layer {
            Some(layer) => self.layers.push(layer),
            None => entry["empty_layer"] = json!(true),
        }
        self.history.push(entry);
    }
}
