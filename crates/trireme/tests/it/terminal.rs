//! A terminal of the test's own, for commands that want one.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Command, ExitStatus, Stdio};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

/// Runs a command on a terminal of this many rows and columns, types `input`, and waits for its
/// end; what was shown, and how it ended.
pub(crate) fn run(command: &mut Command, size: (u16, u16), input: &str) -> (String, ExitStatus) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&master).expect("granted");
    unlockpt(&master).expect("unlocked");
    let name = ptsname(&master, Vec::new()).expect("a name").into_string().expect("UTF-8");
    let open = || File::options().read(true).write(true).open(&name).expect("the terminal opens");
    let slave = open();
    let size = Winsize { ws_row: size.0, ws_col: size.1, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&slave, size).expect("a size");
    let end = || Stdio::from(OwnedFd::from(open()));
    let mut child = command.stdin(end()).stdout(end()).stderr(end()).spawn().expect("it runs");
    // The command holds the handed-over ends until it is dropped, and reading ends with the last.
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    drop(slave);
    let mut master = File::from(master);
    master.write_all(input.as_bytes()).expect("typed");
    let mut shown = Vec::new();
    let mut piece = [0; 4096];
    // A terminal that nobody has open any more gives EIO.
    while let Ok(count @ 1..) = master.read(&mut piece) {
        shown.extend_from_slice(&piece[..count]);
    }
    (String::from_utf8_lossy(&shown).into_owned(), child.wait().expect("it ends"))
}
