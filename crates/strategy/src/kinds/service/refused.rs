//! What a Service cannot have, in upstream's words (`service/storage/alloc.go`).

use api::Status;
use serde_json::{Value, json};

use crate::allocate::AllocationError;
use crate::meta;

pub(super) fn internal(message: String) -> Status {
    Status::failure(500, "InternalError", format!("Internal error occurred: {message}"))
}

fn invalid(name: &str, field: &str, value: Value, detail: &str) -> Status {
    Status::invalid("", "Service", name, vec![meta::invalid(field, &value, detail)])
}

/// An address that was asked for, or (empty) any.
pub(super) fn refused_address(name: &str, ip: &str, error: &AllocationError) -> Status {
    match (ip, error) {
        ("", AllocationError::Full) => {
            internal(format!("failed to allocate a serviceIP for Service {name:?}: {error}"))
        }
        ("", _) => invalid(
            name,
            "spec.clusterIPs",
            Value::Null,
            &format!("failed to allocate IP: {error}"),
        ),
        _ => {
            let detail = format!("failed to allocate IP {ip}: {error}");
            invalid(name, "spec.clusterIPs", json!([ip]), &detail)
        }
    }
}

pub(super) fn refused_port(
    name: &str,
    which: Option<(usize, u16)>,
    error: &AllocationError,
) -> Status {
    match which {
        Some((at, number)) => {
            let field = format!("spec.ports[{at}].nodePort");
            invalid(name, &field, number.into(), &error.to_string())
        }
        None => internal(format!("failed to allocate a nodePort: {error}")),
    }
}
