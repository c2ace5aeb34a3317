//! A runtime as the CRI's two gRPC services.

mod images;
mod lists;
mod metrics;
mod runtime;
mod sessions;
mod streaming;

use std::sync::Arc;

use ::runtime::{Code as RuntimeCode, Error, ImageService, RuntimeService};
use grpc::Code;
use grpc::server::{Methods, Status};

pub use streaming::Streaming;

/// The longest question, in bytes (the kubelet's limit for answers).
const MESSAGE_MAX: usize = 16 << 20;

/// What runtimes are asked, by path. Streams of containers are opened at `streaming`.
pub fn methods(
    runtime: &Arc<dyn RuntimeService>,
    images: &Arc<dyn ImageService>,
    streaming: &Arc<Streaming>,
) -> Methods {
    let methods = Methods::new(MESSAGE_MAX);
    let methods = runtime::sandboxes(methods, runtime);
    let methods = runtime::containers(methods, runtime);
    let methods = runtime::itself(methods, runtime);
    let methods = lists::statistics(methods, runtime);
    let methods = lists::in_parts(methods, runtime);
    let methods = metrics::add(methods, runtime);
    let methods = sessions::add(methods, runtime, streaming);
    images::add(methods, images)
}

/// The runtime's refusal as gRPC has it.
fn refused(error: Error) -> Status {
    let code = match error.code() {
        RuntimeCode::Unknown => Code::Unknown,
        RuntimeCode::InvalidArgument => Code::InvalidArgument,
        RuntimeCode::DeadlineExceeded => Code::DeadlineExceeded,
        RuntimeCode::NotFound => Code::NotFound,
        RuntimeCode::FailedPrecondition => Code::FailedPrecondition,
        RuntimeCode::Unimplemented => Code::Unimplemented,
        RuntimeCode::Internal => Code::Internal,
        RuntimeCode::Unavailable => Code::Unavailable,
        RuntimeCode::DataLoss => Code::DataLoss,
    };
    Status::new(code, error.chain())
}
