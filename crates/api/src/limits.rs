//! Limits on what a body may become while it is read. Each is counted as it grows, so that a small
//! body can neither exhaust a stack nor the memory of the process.

/// Deepest nesting of lists and maps that any reader follows, and that any change of a tree may
/// reach. Upstream's JSON reader stops at 10,000; real objects stay below 60 (schemas in
/// definitions). Every recursive walk (validation, pruning, defaulting, printing, dropping) relies
/// on it: at 120 levels the deepest of them uses a fraction of a thread's stack.
pub const DEPTH_MAX: usize = 120;

/// The error for deeper input (Go's `encoding/json`).
pub const TOO_DEEP: &str = "exceeded max depth";

/// Most bytes that aliases, copies or defaults may add to one object: the size of the largest body
/// (apiserver `MaxRequestBodyBytes`; upstream limits the copies of a JSON patch by the same number).
pub const EXPANSION_MAX: usize = 3 * 1024 * 1024;

/// Largest body accepted (upstream's `MaxRequestBodyBytes`): three times etcd's request limit.
pub const BODY_MAX: usize = 3 * 1024 * 1024;

/// Findings of strict decoding that are kept (sigs.k8s.io/json keeps 100).
const FINDINGS_MAX: usize = 100;
/// Bytes of findings after which no further one is kept: paths can be as long as the body.
const FINDINGS_BYTES: usize = 64 * 1024;

/// Findings of strict decoding, each once.
#[derive(Debug, Default)]
pub struct Findings {
    list: Vec<String>,
    bytes: usize,
}

impl Findings {
    /// Records a finding, which is made only when there is room for it.
    pub fn add(&mut self, finding: impl FnOnce() -> String) {
        if self.list.len() >= FINDINGS_MAX || self.bytes >= FINDINGS_BYTES {
            return;
        }
        let finding = finding();
        if !self.list.contains(&finding) {
            self.bytes += finding.len();
            self.list.push(finding);
        }
    }

    pub fn into_list(self) -> Vec<String> {
        self.list
    }
}

/// Most memory that the tree of one body may take. Text-heavy bodies of the largest size need a
/// third of it; a body of nothing but small maps would need four times as much.
pub const TREE_MAX: usize = 64 * 1024 * 1024;

/// The error for a body that exceeds [`TREE_MAX`].
pub const TOO_LARGE: &str = "the object holds too many values: more than 64 MiB in memory";

/// Bytes of memory of a value in a list or map, without what it points to.
pub const VALUE: usize = size_of::<serde_json::Value>();
/// Bytes of memory of a map that is not empty: a node of the B-tree has room for eleven entries.
pub const MAP: usize = 640;
/// Bytes of memory of an entry of a map, without its key's text and its value's content; nodes are
/// about half full.
pub const ENTRY: usize = 2 * (size_of::<String>() + VALUE);

/// Counts down what may still be allocated.
#[derive(Debug, Clone)]
pub struct Budget {
    left: usize,
}

/// A budget was exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{TOO_LARGE}")]
pub struct Exceeded;

impl Budget {
    pub fn new(bytes: usize) -> Budget {
        Budget { left: bytes }
    }

    /// The budget of one body's tree.
    pub fn of_tree() -> Budget {
        Budget::new(TREE_MAX)
    }

    /// Takes `bytes`, before what they stand for is allocated.
    pub fn take(&mut self, bytes: usize) -> Result<(), Exceeded> {
        self.left = self.left.checked_sub(bytes).ok_or(Exceeded)?;
        Ok(())
    }

    pub fn left(&self) -> usize {
        self.left
    }
}

/// About how many bytes a tree's JSON text has.
pub fn text_size(value: &serde_json::Value) -> usize {
    use serde_json::Value;
    match value {
        Value::String(text) => 2 + text.len(),
        Value::Array(items) => 2 + items.iter().map(|item| 1 + text_size(item)).sum::<usize>(),
        Value::Object(map) => {
            let entry = |(key, value): (&String, &Value)| 4 + key.len() + text_size(value);
            2 + map.iter().map(entry).sum::<usize>()
        }
        _ => 4,
    }
}

/// Whether a tree is nested deeper than `allowed` levels. Stops at that level.
pub fn is_deeper(value: &serde_json::Value, allowed: usize) -> bool {
    use serde_json::Value;
    let below = |value: &Value| is_deeper(value, allowed - 1);
    match value {
        Value::Array(items) => allowed == 0 || items.iter().any(below),
        Value::Object(map) => allowed == 0 || map.values().any(below),
        _ => false,
    }
}
