//! A process as the streaming protocols see it.

use futures::future::BoxFuture;

use crate::{Input, Output};

/// Which streams the client wants. With a terminal, `stderr` is ignored: both come as `stdout`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

/// The size of a terminal in character cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    pub width: u16,
    pub height: u16,
}

/// Takes a terminal's new size; `false` when there is nobody to take it.
pub type Resize = Box<dyn Fn(Size) -> BoxFuture<'static, bool> + Send + Sync>;

/// A running process, or an attachment to one.
pub struct Process {
    pub stdin: Option<Output>,
    pub stdout: Option<Input>,
    pub stderr: Option<Input>,
    pub resize: Resize,
    /// The exit code; an error when it cannot be known.
    pub exit: BoxFuture<'static, Result<i32, String>>,
}

/// Starts the process once the client is there.
pub type Starter = Box<dyn FnOnce() -> BoxFuture<'static, Result<Process, String>> + Send>;
