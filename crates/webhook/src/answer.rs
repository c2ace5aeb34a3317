//! Answers of webhooks as client-go reads them.

use http::StatusCode;
use serde_json::Value;

/// Why there is no answer, in the words of Go's client, which users look for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The HTTP status of an answer that says so.
    pub code: Option<u16>,
    pub message: String,
}

impl Failure {
    pub(crate) fn new(message: String) -> Failure {
        Failure { code: None, message }
    }
}

/// The answer's tree.
pub(crate) fn read(status: StatusCode, body: &[u8]) -> Result<Value, Failure> {
    let tree: Result<Value, _> = serde_json::from_slice(body);
    let of_server = |message| Err(Failure { code: Some(status.as_u16()), message });
    let told = tree.as_ref().ok().filter(|tree| tree["kind"] == "Status");
    if let Some(status) = told.filter(|status| status["status"] != "Success") {
        return of_server(status["message"].as_str().unwrap_or("unknown").to_owned());
    }
    if !status.is_success() {
        return of_server(refused(status.as_u16(), &String::from_utf8_lossy(body)));
    }
    tree.map_err(|e| {
        let fault = validation::go_syntax_fault(body).unwrap_or_else(|| e.to_string());
        Failure::new(format!("couldn't get version/kind; json parse error: {fault}"))
    })
}

/// An error answer without a `Status` (client-go's `NewGenericServerResponse`).
fn refused(code: u16, text: &str) -> String {
    match code {
        401 => "the server has asked for the client to provide credentials".into(),
        403 if text.is_empty() => "the server does not allow access to the requested resource".into(),
        403 => text.into(),
        404 => "the server could not find the requested resource".into(),
        405 => "the server does not allow this method on the requested resource".into(),
        429 => "the server has received too many requests and has asked us to try again later".into(),
        503 => "the server is currently unable to handle the request".into(),
        504 => "the server was unable to return a response in the time allotted, but may still be processing the request".into(),
        500.. => format!("an error on the server ({text:?}) has prevented the request from succeeding"),
        _ => format!("the server responded with the status code {code} but did not return more information"),
    }
}
