//! The last message of exec and attach: how the process ended.

use bytes::Bytes;
use serde_json::json;

/// What the client asked for, which decides how its end is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A process of its own: its exit code is the result.
    Exec,
    /// The container's first process: the end of the attachment is a success, whatever the container
    /// returned.
    Attach,
}

impl Kind {
    /// The error of a process or an attachment that could not be started.
    pub(super) fn not_started(self, why: &str) -> String {
        match self {
            Kind::Exec => format!("error executing command in container: {why}"),
            Kind::Attach => format!("error attaching to container: {why}"),
        }
    }
}

/// Exit codes go as a Status from v4 on, before that as a sentence; before v4 success says nothing.
pub(super) fn of_exit(kind: Kind, code: i32, structured: bool) -> Option<Bytes> {
    if kind == Kind::Attach || code == 0 {
        return structured.then(|| json!({"metadata": {}, "status": "Success"}).to_string().into());
    }
    let text = format!("command terminated with non-zero exit code: exit status {code}");
    if !structured {
        return Some(text.into());
    }
    let cause = json!({"reason": "ExitCode", "message": code.to_string()});
    let status = json!({
        "metadata": {},
        "status": "Failure",
        "message": text,
        "reason": "NonZeroExitCode",
        "details": {"causes": [cause]},
    });
    Some(status.to_string().into())
}

pub(super) fn of_failure(text: &str, structured: bool) -> Option<Bytes> {
    if !structured {
        return Some(text.to_owned().into());
    }
    let status = json!({
        "metadata": {},
        "status": "Failure",
        "message": format!("Internal error occurred: {text}"),
        "reason": "InternalError",
        "details": {"causes": [{"message": text}]},
        "code": 500,
    });
    Some(status.to_string().into())
}
