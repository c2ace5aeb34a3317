//! What a client asks: its protocol, its deadline, its one message.

use std::time::Duration;

use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use prost::Message;

use super::Status;
use crate::Code;
use crate::connection::Body;
use crate::frame::{FrameError, Frames};

/// The answer to what is no gRPC call.
pub(super) fn wrong_protocol(request: &Request<Incoming>) -> Option<Response<Body>> {
    let kind = request.headers().get("content-type").and_then(|v| v.to_str().ok()).unwrap_or("");
    let status = if request.method() != http::Method::POST {
        StatusCode::METHOD_NOT_ALLOWED
    } else if !kind.starts_with("application/grpc") {
        StatusCode::UNSUPPORTED_MEDIA_TYPE
    } else {
        return None;
    };
    let mut response = Response::new(Empty::new().boxed_unsync());
    *response.status_mut() = status;
    Some(response)
}

/// How long the client waits: at most eight digits and a unit (gRPC over HTTP/2, `Timeout`).
pub(super) fn deadline(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = number.parse().ok().filter(|_| number.len() <= 8)?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

/// The message of a call that has one.
pub(super) async fn read<Q: Message + Default>(
    request: Request<Incoming>,
    max: usize,
) -> Result<Q, Status> {
    let mut frames = Frames::new(max);
    let mut body = std::pin::pin!(request.into_body());
    loop {
        if let Some(question) = frames.next().map_err(unreadable)? {
            return Ok(question);
        }
        match body.frame().await {
            Some(Ok(frame)) => frames.push(frame.data_ref().map_or(&[], |data| &data[..])),
            Some(Err(error)) => return Err(Status::new(Code::Canceled, error.to_string())),
            None => return Err(Status::new(Code::Internal, "the call has no whole message")),
        }
    }
}

fn unreadable(error: FrameError) -> Status {
    let code = match error {
        FrameError::Long { .. } => Code::ResourceExhausted,
        FrameError::Compressed => Code::Unimplemented,
        FrameError::Malformed(_) => Code::Internal,
    };
    Status::new(code, error.to_string())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::HeaderMap;

    #[test]
    fn deadlines_are_digits_and_a_unit() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", text.parse().unwrap());
            super::deadline(&headers)
        };
        assert_eq!(of("2S"), Some(Duration::from_secs(2)));
        assert_eq!(of("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        assert_eq!(of("15u"), Some(Duration::from_micros(15)));
        for wrong in ["", "S", "3", "-1S", "123456789S", "1é", "1s"] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
        assert_eq!(super::deadline(&HeaderMap::new()), None);
    }
}
