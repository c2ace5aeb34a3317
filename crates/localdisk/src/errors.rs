//! Errors as gRPC's clients get them.

use grpc::Code;
use grpc::server::Status;

/// Says what failed, in an error that the caller may try again.
pub(crate) fn internal(what: impl std::fmt::Display) -> impl FnOnce(std::io::Error) -> Status {
    move |error| {
        let code = match error.kind() {
            std::io::ErrorKind::StorageFull => Code::ResourceExhausted,
            _ => Code::Internal,
        };
        Status::new(code, format!("{what}: {error}"))
    }
}

pub(crate) fn invalid(why: impl Into<String>) -> Status {
    Status::new(Code::InvalidArgument, why)
}

pub(crate) fn not_found(what: &str, id: &str) -> Status {
    Status::new(Code::NotFound, format!("{what} {id:?} not found"))
}

/// Refuses an empty field by its name.
pub(crate) fn required(field: &str, value: &str) -> Result<(), Status> {
    match value.is_empty() {
        true => Err(invalid(format!("{field} is missing in the request"))),
        false => Ok(()),
    }
}
