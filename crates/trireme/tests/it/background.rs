//! A command that runs on while the test does other things.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};

use crate::harness::PATIENCE;

/// Killed when dropped.
pub(crate) struct Background {
    child: Child,
    lines: Receiver<String>,
}

impl Background {
    pub(crate) fn start(mut command: Command) -> Background {
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().expect("it runs");
        let out = BufReader::new(child.stdout.take().expect("piped"));
        let (send, lines) = channel();
        // Read to its end, wanted or not: a command whose pipe closes would be another command.
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                send.send(line).unwrap_or_default();
            }
        });
        Background { child, lines }
    }

    /// The next line; none when the command has ended.
    pub(crate) fn line(&mut self) -> Option<String> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("the command says nothing more"),
        }
    }

    /// Reads until a line is as wanted.
    pub(crate) fn until(&mut self, wanted: impl Fn(&str) -> bool) {
        let mut seen = Vec::new();
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            if wanted(&line) {
                return;
            }
            seen.push(line);
        }
        panic!("the command never said it; it said: {seen:#?}");
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.child.kill().unwrap_or_default();
        self.child.wait().expect("a killed process ends");
    }
}
