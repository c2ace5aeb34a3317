//! The CRI v1 messages (`runtime.v1`), as prost structs written out, so that the build needs no protoc.
//!
//! One name space as in the protocol; the files only group it. Nothing here has behaviour except
//! `AuthConfig`'s `Debug`, which must not print secrets.

mod container;
mod image;
mod runtime;
mod sandbox;
mod shared;
mod stats;

pub use container::*;
pub use image::*;
pub use runtime::*;
pub use sandbox::*;
pub use shared::*;
pub use stats::*;

impl std::fmt::Debug for AuthConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let secret = |s: &str| if s.is_empty() { "none" } else { "redacted" };
        f.debug_struct("AuthConfig")
            .field("username", &self.username)
            .field("password", &secret(&self.password))
            .field("auth", &secret(&self.auth))
            .field("server_address", &self.server_address)
            .field("identity_token", &secret(&self.identity_token))
            .field("registry_token", &secret(&self.registry_token))
            .finish()
    }
}
