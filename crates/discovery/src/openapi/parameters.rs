//! Parameters of operations: which an action takes, and what each is.

use serde_json::{Value, json};

/// Name, type and meaning of every query parameter.
const QUERY: [(&str, &str, &str); 33] = [
    (
        "allowWatchBookmarks",
        "boolean",
        "Whether a watch also sends BOOKMARK events, which say how far it has come.",
    ),
    ("command", "string", "The command to run, one argument each time; no shell reads it."),
    ("container", "string", "The container meant; the only one when the pod has no other."),
    (
        "continue",
        "string",
        "The token of a former page: the list goes on after it, at the same revision. An expired one (410) is answered with another that goes on with the present state.",
    ),
    ("dryRun", "string", "With `All`, everything is checked and nothing is stored."),
    ("fieldManager", "string", "Who makes this change: at most 128 printable characters."),
    ("fieldSelector", "string", "Only objects whose fields are as this says."),
    (
        "fieldValidation",
        "string",
        "What unknown and duplicate fields of the body do: `Ignore` drops them, `Warn` drops them and says so in a header, `Strict` refuses the request.",
    ),
    ("follow", "boolean", "Whether the log is followed as it grows."),
    (
        "force",
        "boolean",
        "Whether an apply takes fields over from their other managers. Apply only.",
    ),
    (
        "gracePeriodSeconds",
        "integer",
        "Seconds until the object is deleted; 0 is at once, nothing is the kind's own default.",
    ),
    (
        "ignoreStoreReadErrorWithClusterBreakingPotential",
        "boolean",
        "Whether an object that cannot be read from the store is deleted all the same, without regard to finalizers.",
    ),
    (
        "insecureSkipTLSVerifyBackend",
        "boolean",
        "Whether the kubelet's certificate is taken unseen.",
    ),
    ("labelSelector", "string", "Only objects whose labels are as this says."),
    (
        "limit",
        "integer",
        "Most objects of a page; `continue` in its metadata tells that there are more.",
    ),
    ("limitBytes", "integer", "Most bytes of the log."),
    (
        "orphanDependents",
        "boolean",
        "Deprecated; use propagationPolicy. Whether dependents stay behind without their owner.",
    ),
    ("path", "string", "The path to ask for at the other side."),
    ("ports", "integer", "The ports to forward, where WebSockets are used."),
    ("pretty", "string", "With `true`, the answer is indented."),
    ("previous", "boolean", "The log of the container's former run."),
    (
        "propagationPolicy",
        "string",
        "What becomes of dependents: `Orphan` leaves them, `Background` deletes them afterwards, `Foreground` before the object.",
    ),
    ("resourceVersion", "string", "The revision that the answer must show or follow."),
    (
        "resourceVersionMatch",
        "string",
        "How a list takes resourceVersion: `Exact`, or `NotOlderThan`.",
    ),
    (
        "sendInitialEvents",
        "boolean",
        "Whether a watch begins with the present state, ended by a bookmark that says so. Needs resourceVersionMatch=NotOlderThan.",
    ),
    (
        "shardSelector",
        "string",
        "Only objects of some ranges of hashes; alpha, behind the feature gate ShardedListAndWatch.",
    ),
    ("sinceSeconds", "integer", "Only what was logged within so many seconds."),
    ("stderr", "boolean", "Whether standard error is sent."),
    ("stdin", "boolean", "Whether standard input is taken."),
    ("stdout", "boolean", "Whether standard output is sent."),
    ("stream", "string", "Which stream of the log: `All`, `Stdout`, `Stderr`."),
    ("tailLines", "integer", "Only so many lines from the end."),
    ("timeoutSeconds", "integer", "Seconds after which a list or watch ends."),
];

/// As above, of the names that come after.
const MORE: [(&str, &str, &str); 3] = [
    ("timestamps", "boolean", "Whether each line begins with its time (RFC 3339)."),
    ("tty", "boolean", "Whether a terminal is made for the command."),
    ("watch", "boolean", "Whether changes are sent as they happen, instead of a list."),
];

pub(super) const LIST: &[&str] = &[
    "allowWatchBookmarks",
    "continue",
    "fieldSelector",
    "labelSelector",
    "limit",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "shardSelector",
    "timeoutSeconds",
    "watch",
];
pub(super) const WRITE: &[&str] = &["dryRun", "fieldManager", "fieldValidation"];
pub(super) const PATCH: &[&str] = &["dryRun", "fieldManager", "fieldValidation", "force"];
pub(super) const DELETE: &[&str] = &[
    "dryRun",
    "gracePeriodSeconds",
    "ignoreStoreReadErrorWithClusterBreakingPotential",
    "orphanDependents",
    "propagationPolicy",
];
/// Besides those of DELETE.
pub(super) const DELETE_COLLECTION: &[&str] = &[
    "continue",
    "fieldSelector",
    "labelSelector",
    "limit",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "shardSelector",
    "timeoutSeconds",
];
pub(super) const LOG: &[&str] = &[
    "container",
    "follow",
    "insecureSkipTLSVerifyBackend",
    "limitBytes",
    "previous",
    "sinceSeconds",
    "stream",
    "tailLines",
    "timestamps",
];

/// Those of a connection, by its subresource.
pub(super) fn of_connection(subresource: &str) -> &'static [&'static str] {
    match subresource {
        "exec" => &["command", "container", "stderr", "stdin", "stdout", "tty"],
        "attach" => &["container", "stderr", "stdin", "stdout", "tty"],
        "portforward" => &["ports"],
        _ => &["path"],
    }
}

pub(super) fn query(name: &str) -> Value {
    let known = QUERY.iter().chain(&MORE).find(|(known, ..)| *known == name);
    let (_, kind, meaning) = known.copied().unwrap_or((name, "string", ""));
    json!({
        "name": name, "in": "query", "description": meaning,
        "schema": {"type": kind, "uniqueItems": true},
    })
}

pub(super) fn path(name: &str, meaning: &str) -> Value {
    json!({
        "name": name, "in": "path", "description": meaning, "required": true,
        "schema": {"type": "string", "uniqueItems": true},
    })
}
