//! What a client reads of a call.

use std::pin::Pin;

use http::Response;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use prost::Message;

use crate::CallError;
use crate::frame::{Frames, percent_decoded};

/// Messages of one call, as they arrive.
pub struct Answers<A> {
    /// Names the peer in errors.
    peer: &'static str,
    body: Pin<Box<Incoming>>,
    frames: Frames,
    /// gRPC's verdict, from the head when there is no body.
    status: Option<(u32, String)>,
    kind: std::marker::PhantomData<fn() -> A>,
}

impl<A: Message + Default> Answers<A> {
    pub(crate) fn of(
        response: Response<Incoming>,
        peer: &'static str,
        message_max: usize,
    ) -> Result<Answers<A>, CallError> {
        if response.status() != http::StatusCode::OK {
            let code = response.status();
            return Err(CallError::Unreachable(format!(
                "{peer} cannot be reached: the peer is not {peer}: it answers HTTP {code}"
            )));
        }
        let status = verdict(response.headers());
        let (body, frames) = (Box::pin(response.into_body()), Frames::new(message_max));
        Ok(Answers { peer, body, frames, status, kind: std::marker::PhantomData })
    }

    fn lost(&self, error: impl std::fmt::Display) -> CallError {
        CallError::Lost(format!("the connection to {} was lost: {error}", self.peer))
    }

    /// The next message; absent at the end of a call that went well.
    pub async fn next(&mut self) -> Result<Option<A>, CallError> {
        loop {
            if let Some(message) = self.frames.next().map_err(|error| self.lost(error))? {
                return Ok(Some(message));
            }
            match self.body.frame().await {
                None => return self.end(),
                Some(Err(error)) => return Err(self.lost(error)),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.frames.push(&data),
                    Err(frame) => {
                        self.status = frame.trailers_ref().and_then(verdict).or(self.status.take());
                    }
                },
            }
        }
    }

    fn end(&mut self) -> Result<Option<A>, CallError> {
        match self.status.take() {
            Some((0, _)) => Ok(None),
            Some((code, message)) => Err(CallError::Refused { code, message }),
            None => Err(self.lost("the answer broke off")),
        }
    }
}

fn verdict(headers: &http::HeaderMap) -> Option<(u32, String)> {
    let text = |name| headers.get(name).and_then(|v| v.to_str().ok());
    let code = text("grpc-status")?.parse().ok()?;
    Some((code, percent_decoded(text("grpc-message").unwrap_or(""))))
}
