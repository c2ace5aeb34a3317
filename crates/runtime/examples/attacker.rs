//! The program that attacks from within a container, for the integration tests.
//!
//! `attacker watch KNOWN-BAD…`: looks at every process that appears, tries to take what it has, and
//! writes a line for everything it got that is not its own; ends when `/tmp/stop` appears.
//! `attacker facts`: tells what a container is made of, one fact a line.
//! `attacker escape N…`: forks, starts sessions, and sleeps, in a few ways that outlive a parent.

// The harness reads standard output.
#![allow(clippy::print_stdout)]

#[path = "attacker/facts.rs"]
mod facts;
#[path = "attacker/watch.rs"]
mod watch;

fn main() {
    let mut args = std::env::args().skip(1);
    match args.next().as_deref() {
        Some("watch") => watch::run(&args.collect::<Vec<_>>()),
        Some("facts") => facts::run(),
        Some("escape") => escape(),
        other => {
            eprintln!("unknown mode {other:?}");
            std::process::exit(2);
        }
    }
}

/// A child in a session of its own whose parent ends, and one that ignores signals; then hangs.
fn escape() {
    for ignore in [false, true] {
        // SAFETY: this process has one thread.
        if unsafe { libc::fork() } == 0 {
            // SAFETY: as above; plain numbers.
            unsafe {
                libc::setsid();
                if libc::fork() != 0 {
                    libc::_exit(0);
                }
                if ignore {
                    for signal in [libc::SIGTERM, libc::SIGHUP, libc::SIGINT] {
                        libc::signal(signal, libc::SIG_IGN);
                    }
                }
            }
            break;
        }
    }
    loop {
        std::thread::sleep(std::time::Duration::from_secs(1000));
    }
}
