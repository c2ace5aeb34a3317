//! Requests on their way to an extension server.

use std::sync::Arc;

use api::Status;
use http::{HeaderValue, Response, StatusCode, header};
use tokio_util::sync::CancellationToken;

use super::connection::set_user;
use super::{Aggregator, Present};
use crate::exchange::Exchange;
use crate::node_proxy;
use resources::respond::{self, Body};

impl Aggregator {
    /// The answer of an extension server, streamed; 503 where it is not available.
    pub(crate) async fn forward(
        self: &Arc<Aggregator>,
        to: &Present,
        exchange: Exchange,
        closing: &CancellationToken,
    ) -> Result<Response<Body>, Status> {
        if !to.is_available {
            return Ok(plain(StatusCode::SERVICE_UNAVAILABLE, "service unavailable\n"));
        }
        let Exchange { user, mut request, .. } = exchange;
        let connector = &to.extension.connector;
        node_proxy::headers::of_request(request.headers_mut());
        set_user(request.headers_mut(), &user);
        traces::inject(request.headers_mut());
        let target = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
        *request.uri_mut() = target.parse().map_err(|_| Status::bad_request("invalid URL"))?;
        *request.version_mut() = http::Version::HTTP_11;
        if let Ok(host) = HeaderValue::from_str(&format!("{}:{}", connector.host(), connector.port))
        {
            request.headers_mut().insert(header::HOST, host);
        }
        let io = match connector.open(&*self.services).await {
            Ok(io) => io,
            Err(why) => {
                tracing::warn!(
                    extension = &*to.extension.name,
                    why,
                    "extension server unreachable"
                );
                let text = format!("error trying to reach service: {why}\n");
                return Ok(plain(StatusCode::SERVICE_UNAVAILABLE, &text));
            }
        };
        let failed =
            |why: String| Status::unavailable(format!("error trying to reach service: {why}"));
        node_proxy::forward(closing, request, io, failed).await
    }
}

/// An error in Go's plain form (`http.Error`), which is what upstream's aggregator answers.
fn plain(code: StatusCode, text: &str) -> Response<Body> {
    let mut response = Response::new(respond::full(text.to_owned()));
    *response.status_mut() = code;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    let nosniff = HeaderValue::from_static("nosniff");
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    response
}
