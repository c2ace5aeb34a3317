//! What a client gets: messages, then the verdict in trailers; or the verdict alone, in the head.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use http::{HeaderMap, HeaderValue, Response};
use http_body_util::{BodyExt as _, Empty, StreamBody};
use hyper::body::Frame;
use prost::Message;

use super::Status;
use crate::Code;
use crate::connection::Body;
use crate::frame::{framed, percent_encoded};

type Part = Result<Frame<Bytes>, Infallible>;

fn verdict(code: Code, message: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("grpc-status", HeaderValue::from(code as u32));
    if let Ok(message) = HeaderValue::from_str(&percent_encoded(message))
        && !message.is_empty()
    {
        headers.insert("grpc-message", message);
    }
    headers
}

fn trailers(ended: Result<(), Status>) -> Part {
    let headers = match ended {
        Ok(()) => verdict(Code::Ok, ""),
        Err(Status { code, message }) => verdict(code, &message),
    };
    Ok(Frame::trailers(headers))
}

fn response(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let kind = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert("content-type", kind);
    response
}

/// Nothing but the verdict.
pub(super) fn refused(status: &Status) -> Response<Body> {
    let mut response = response(Empty::new().boxed_unsync());
    response.headers_mut().extend(verdict(status.code, &status.message));
    response
}

pub(super) fn one<A: Message>(answer: Result<A, Status>) -> Response<Body> {
    match answer {
        Err(status) => refused(&status),
        Ok(answer) => {
            let parts = [Ok(Frame::data(framed(&answer))), trailers(Ok(()))];
            response(StreamBody::new(futures::stream::iter(parts)).boxed_unsync())
        }
    }
}

/// Messages until the stream ends, or for so long.
pub(super) fn many<A: Message + 'static>(
    answers: BoxStream<'static, Result<A, Status>>,
    limit: Option<Duration>,
) -> Response<Body> {
    let until = limit.and_then(|limit| tokio::time::Instant::now().checked_add(limit));
    // The verdict is the last part: after it there is no stream to go on with.
    let parts = futures::stream::unfold(Some(answers), move |answers| async move {
        let mut answers = answers?;
        match next(&mut answers, until).await {
            Some(Ok(answer)) => Some((Ok(Frame::data(framed(&answer))), Some(answers))),
            Some(Err(status)) => Some((trailers(Err(status)), None)),
            None => Some((trailers(Ok(())), None)),
        }
    });
    response(StreamBody::new(parts).boxed_unsync())
}

async fn next<A>(
    answers: &mut BoxStream<'static, Result<A, Status>>,
    until: Option<tokio::time::Instant>,
) -> Option<Result<A, Status>> {
    let Some(until) = until else { return answers.next().await };
    let late = || Some(Err(Status::new(Code::DeadlineExceeded, "context deadline exceeded")));
    tokio::time::timeout_at(until, answers.next()).await.unwrap_or_else(|_| late())
}
