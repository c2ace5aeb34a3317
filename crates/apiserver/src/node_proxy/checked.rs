//! Errors of the kubelet's log endpoint, which are plain text, as a Status.
//!
//! Rule: upstream's `GenericHttpResponseChecker`. Clients know the sentences of the kubelet ("is waiting
//! to start: PodInitializing") as the message of a BadRequest; without a Status they show "the server
//! rejected our request for an unknown reason".

use std::time::Duration;

use api::Status;
use api::status::Details;
use http::Response;
use http_body_util::BodyExt;

use resources::respond::Body;

/// Bytes of an error that are told (upstream's `maxReadLength`).
const ERROR_MAX: usize = 50_000;
/// Longest that a kubelet may take to send the rest of an error.
const ERROR_TIMEOUT: Duration = Duration::from_secs(10);

/// The answer, if it is a success.
pub(super) async fn logs(name: &str, response: Response<Body>) -> Result<Response<Body>, Status> {
    let code = response.status().as_u16();
    if (200..=206).contains(&code) {
        return Ok(response);
    }
    let text = text(response.into_body()).await;
    Err(match code {
        500 => Status::internal(text),
        400 => Status::bad_request(text),
        _ => unexpected(code, name, &text),
    })
}

/// The first bytes of an error.
async fn text(mut body: Body) -> String {
    let mut all = Vec::new();
    let read = async {
        while let Some(Ok(frame)) = body.frame().await {
            let data = frame.data_ref().map_or(&[][..], |data| data);
            all.extend_from_slice(data.get(..ERROR_MAX - all.len()).unwrap_or(data));
            if all.len() >= ERROR_MAX {
                return;
            }
        }
    };
    if tokio::time::timeout(ERROR_TIMEOUT, read).await.is_err() {
        tracing::debug!("an error of the kubelet did not end in time");
    }
    String::from_utf8_lossy(&all).into_owned()
}

/// Upstream's `NewGenericServerResponse` for `pods/log`, without a verb.
fn unexpected(code: u16, name: &str, text: &str) -> Status {
    let (reason, message): (&str, String) = match code {
        401 => ("Unauthorized", "the server has asked for the client to provide credentials".into()),
        403 => ("Forbidden", text.into()),
        404 => ("NotFound", "the server could not find the requested resource".into()),
        405 => (
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource".into(),
        ),
        406 if text.is_empty() || text == "unknown" => (
            "NotAcceptable",
            "the server was unable to respond with a content type that the client supports".into(),
        ),
        406 => ("NotAcceptable", text.into()),
        409 => ("Conflict", "the server reported a conflict".into()),
        415 => ("UnsupportedMediaType", text.into()),
        422 => ("Invalid", "the server rejected our request due to an error in our request".into()),
        429 => (
            "TooManyRequests",
            "the server has received too many requests and has asked us to try again later".into(),
        ),
        503 => {
            ("ServiceUnavailable", "the server is currently unable to handle the request".into())
        }
        504 => (
            "Timeout",
            "the server was unable to return a response in the time allotted, but may still be processing the request".into(),
        ),
        500.. => (
            "InternalError",
            format!("an error on the server ({text:?}) has prevented the request from succeeding"),
        ),
        _ => (
            "",
            format!("the server responded with the status code {code} but did not return more information"),
        ),
    };
    let mut status = Status::failure(code, reason, format!("{message} ( pods/log {name})"));
    let details = Details { name: name.into(), kind: "pods/log".into(), ..Details::default() };
    status.details = Some(details);
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use resources::respond::full;

    async fn told(code: u16, text: &str) -> (u16, String, String) {
        let mut response = Response::new(full(text.to_owned()));
        *response.status_mut() = http::StatusCode::from_u16(code).expect("a code");
        let status = logs("web", response).await.expect_err("refused");
        (status.code, status.reason, status.message)
    }

    #[tokio::test]
    async fn the_kubelets_sentence_is_the_message_of_a_bad_request() {
        let sentence = "container \"app\" in pod \"web\" is waiting to start: PodInitializing";
        assert_eq!(told(400, sentence).await, (400, "BadRequest".into(), sentence.into()));
        let (code, reason, message) = told(500, "broken").await;
        assert_eq!((code, reason.as_str()), (500, "InternalError"));
        assert_eq!(message, "Internal error occurred: broken");
        let (code, reason, message) = told(404, "pod \"web\" not found").await;
        assert_eq!((code, reason.as_str()), (404, "NotFound"));
        assert_eq!(message, "the server could not find the requested resource ( pods/log web)");
    }

    #[tokio::test]
    async fn a_success_goes_on_and_a_long_error_is_cut() {
        assert!(logs("web", Response::new(full("a line\n"))).await.is_ok());
        let (_, _, message) = told(400, &"x".repeat(ERROR_MAX + 1)).await;
        assert_eq!(message.len(), ERROR_MAX);
    }
}
