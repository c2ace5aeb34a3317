//! Dockerfiles: their syntax, the meaning of each instruction, and `.dockerignore`.
//!
//! Pure: text in, data out. Nothing here touches a file, a network or a container.
//!
//! * `read`: bytes to [`Node`]s: directives, comments, continued lines, heredocs, arguments.
//! * `typed`: a node to a [`Step`]: flags and arguments checked, one type an instruction.
//! * [`file`]: steps to stages; which stages a target needs.
//! * [`expand`]: variables and quotes, with every `${…}` form.
//! * [`ignore`]: patterns of `.dockerignore` and `--exclude`.
//!
//! The grammar is BuildKit's. Every error names the line and, where there is one, the fix.

mod error;
pub mod expand;
pub mod file;
mod flags;
pub mod ignore;
mod instruction;
mod mount;
mod node;
mod read;
mod suggest;
mod typed;
mod words;

pub use error::{Error, Result};
pub use file::{Base, File, Stage};
pub use instruction::*;
pub use mount::{Mount, MountKind, Sharing, mount};
pub use node::{Arguments, Heredoc, Node};
pub use read::{Nodes, Warning, nodes};
pub use typed::step;
