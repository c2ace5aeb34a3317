//! The embedded container runtime and image store behind the CRI's own types.

pub mod cgroup;
pub mod config;
mod core;
pub mod cri;
mod error;
pub mod image;
mod packet;
mod plan;
mod pull;
pub mod service;
pub mod supervisor;
mod wire;

pub use config::Config;
pub use self::core::Embedded;
pub use error::{Code, Error, Result};
pub use service::{
    Duplex, ExecSession, ImageService, LoopbackOnly, NetworkError, RuntimeService, SandboxNet,
    SandboxNetwork, StreamOptions, TerminalSize,
};
