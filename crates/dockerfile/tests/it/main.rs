//! The whole language: what is read, what is refused, and BuildKit's own cases when its tree is at hand.

#![allow(clippy::unwrap_used)]

mod buildkit;
mod instructions;
mod stages;
mod variables;
