//! A loss of power under load: the virtual machine is killed, and started again on the same disk. Images, volumes and
//! records that were acknowledged before are whole. `TRIREME_TEST_POWER_CUTS` says how often; each takes a minute.
//!
//! The machine's memory is lost with all that it has not written; the disk itself loses nothing.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::vm;

const CUTS: u32 = 2;
/// A start and its checks; emulation is slow where others use the processors.
const LIMIT: Duration = Duration::from_secs(180);
/// A machine that says nothing in this time has not come up, and is started again.
const SILENCE: Duration = Duration::from_secs(60);

/// Starts the machine; kills it so long after it has said that it is loaded, or waits for its end. Returns what
/// it has said, and whether that is all that was waited for.
fn round(mut machine: Command, cut: Option<Duration>) -> (String, bool) {
    let mut child = machine.stdout(Stdio::piped()).spawn().expect("the machine starts");
    let lines = BufReader::new(child.stdout.take().expect("piped"));
    let (sender, receiver) = mpsc::channel();
    let reading = std::thread::spawn(move || {
        for line in lines.split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    let mut said = String::new();
    let mut end = Instant::now() + LIMIT;
    let mut is_done = false;
    loop {
        let silence = if said.is_empty() { SILENCE } else { LIMIT };
        let left = end.saturating_duration_since(Instant::now()).min(silence);
        match receiver.recv_timeout(left) {
            Ok(line) => {
                if let Some(delay) = cut.filter(|_| line == "LOADED") {
                    (end, is_done) = (Instant::now() + delay, true);
                }
                is_done |= line == "CHECKS ENDED 0";
                said += &format!("{line}\n");
            }
            Err(_) => break,
        }
    }
    // The power is cut; a machine that has ended by itself is no error.
    let _ = child.kill();
    child.wait().expect("it has ended");
    drop(receiver);
    reading.join().expect("the reader does not panic");
    (said, is_done)
}

fn disk(folder: &Path) -> String {
    let path = folder.join("disk").display().to_string();
    for (program, args) in [("truncate", ["-s", "2G"]), ("mkfs.ext4", ["-q", "-F"])] {
        let done = Command::new(program).args(args).arg(&path).status().expect("it runs");
        assert!(done.success(), "{program}");
    }
    path
}

#[test]
fn what_was_acknowledged_outlives_losses_of_power() {
    let kernel = match vm::kernel() {
        Ok(kernel) => kernel,
        Err(why) => return eprintln!("SKIPPED: no virtual machine: {why}"),
    };
    let folder = tempfile::tempdir_in("/var/tmp").expect("a folder");
    let version = vm::version(&kernel);
    let initrd = vm::initrd(&kernel, &version, folder.path(), include_str!("vm/power.sh"));
    let disk = disk(folder.path());
    let cuts = std::env::var("TRIREME_TEST_POWER_CUTS").ok().and_then(|n| n.parse().ok());
    let cuts: u32 = cuts.unwrap_or(CUTS);
    let mut oks = 0;
    for cut in 0..=cuts {
        // Another moment each time, from the first millisecond of the next import to the middle of later ones.
        let delay = (cut < cuts).then(|| Duration::from_millis(u64::from(cut) * 397 % 4000));
        let mut tries = 0;
        let said = loop {
            let mut machine = vm::machine(&kernel, &version, &initrd, delay.is_none());
            let drive = format!("file={disk},format=raw,if=none,id=d,cache=writeback");
            machine.args(["-drive", &drive, "-device", "virtio-blk-pci,drive=d"]);
            let (said, is_done) = round(machine, delay);
            tries += 1;
            if is_done {
                break said;
            }
            // See `STARTS` of the other machine.
            assert!(said.is_empty() && tries < 3, "round {cut} did not come to its end:\n{said}");
        };
        assert!(!said.contains("\nBAD "), "round {cut}:\n{said}");
        oks += said.matches("\nOK ").count();
        println!("round {cut}: {} checks", said.matches("\nOK ").count());
    }
    assert!(oks > 2 * cuts as usize, "{oks} checks in {cuts} rounds");
}
