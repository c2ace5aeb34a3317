//! The embedded container runtime and image store behind the CRI's own types.

pub mod config;
pub mod cri;
mod error;
pub mod service;

pub use config::Config;
pub use error::{Code, Error, Result};
pub use service::{
    Duplex, ExecSession, ImageService, LoopbackOnly, NetworkError, RuntimeService, SandboxNet,
    SandboxNetwork, StreamOptions, TerminalSize,
};
