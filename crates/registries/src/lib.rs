//! Which hosts an image's registry is reached at, and how: containerd's `certs.d/<host>/hosts.toml` and
//! k3s' `registries.yaml`.
//!
//! [`Registries::endpoints`] answers with a list to try in order. Files are read at each call, so that a change
//! counts for the next pull; [`Registries::check`] reads all of them once, so that a node with a mistake in them
//! says so when it starts. Unlike containerd, which goes on without a file that it cannot use, a mistake is an
//! error that names the file and the field: a mirror that is left out in silence sends requests elsewhere.

mod certs;
mod endpoint;
mod error;
mod hosts;
mod mirrors;
mod places;
#[cfg(test)]
mod tests;
mod value;

pub use endpoint::{Can, Endpoint, KeyPair, Login, Rewrite, Tls};
pub use error::Error;
pub use places::Registries;
