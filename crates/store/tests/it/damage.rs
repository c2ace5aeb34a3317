//! Damaged, foreign, locked and unusable folders: a clear error, and nothing lost in silence.

use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use store::{Engine, EngineError, LogEngine, Record};

use crate::harness::alone;

const COUNT: u64 = 200;

fn record(revision: u64) -> Record {
    let value = Some(format!(r#"{{"a":"{}"}}"#, "0123456789".repeat(20)).into_bytes());
    Record { key: format!("/k/{revision}"), value, revision }
}

fn filled(folder: &Path) {
    let mut engine = LogEngine::open(folder).expect("opens");
    for revision in 1..=COUNT {
        engine.commit(&[record(revision)]).expect("commits");
    }
}

/// Keys and last revision.
fn load(folder: &Path) -> Result<(u64, u64), EngineError> {
    let mut count = 0;
    let last = LogEngine::open(folder)?.load(&mut |_| count += 1)?;
    Ok((count, last))
}

fn refusal(folder: &Path) -> String {
    load(folder).expect_err("is refused").to_string()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).expect("readable").map(|e| e.expect("entry").path()).collect()
}

fn journal(folder: &Path) -> PathBuf {
    let is_log = |p: &PathBuf| p.extension().is_some_and(|e| e == "log");
    files(folder).into_iter().find(is_log).expect("a segment")
}

/// Every 97th byte of every file in turn: wherever the damage is, the store is refused or nothing
/// is missing. (Every single byte, on a simulated disk: `log/tests.rs`.)
#[test]
fn a_damaged_journal_is_refused_and_names_the_folder() {
    // In memory: each of the thousand openings flushes several times.
    let folder = tempfile::tempdir_in("/dev/shm").expect("folder");
    filled(folder.path());
    let (mut refused, used) = (0, COUNT * 280);
    for path in files(folder.path()) {
        let whole = std::fs::read(&path).expect("readable");
        for at in (0..used.min(whole.len() as u64)).step_by(97) {
            let file = std::fs::File::options().write(true).open(&path).expect("opens");
            file.write_all_at(&[whole[at as usize] ^ 0xff], at).expect("damaged");
            match load(folder.path()) {
                Ok(found) => assert_eq!(found, (COUNT, COUNT), "{} at {at}", path.display()),
                Err(error) => {
                    let text = error.to_string();
                    assert!(text.contains(&path.display().to_string()), "{text}");
                    assert!(text.contains("restore the store's folder from a backup"), "{text}");
                    refused += 1;
                }
            }
            let file = std::fs::File::options().write(true).open(&path).expect("opens");
            file.write_all_at(&whole[..whole.len().min(used as usize)], 0).expect("mended");
        }
    }
    assert!(refused >= COUNT * 240 / 97, "only {refused} were noticed");
    assert_eq!(load(folder.path()).expect("whole again"), (COUNT, COUNT));
}

#[test]
fn acknowledged_writes_that_were_cut_off_are_missed() {
    let folder = tempfile::tempdir().expect("folder");
    filled(folder.path());
    let file = std::fs::File::options().write(true).open(journal(folder.path())).expect("opens");
    file.set_len(COUNT * 250).expect("cut");
    let text = refusal(folder.path());
    assert!(text.contains("000000000001.log is damaged: unreadable from byte"), "{text}");
}

/// What power loss leaves of a frame that nobody was told about: some of its bytes, or none.
#[test]
fn a_torn_last_frame_is_dropped_whole_and_written_over() {
    let folder = tempfile::tempdir().expect("folder");
    filled(folder.path());
    let path = journal(folder.path());
    let whole = std::fs::read(&path).expect("readable");
    let end = whole.iter().rposition(|b| *b != 0).expect("data") as u64 + 1;
    let file = std::fs::File::options().write(true).open(&path).expect("opens");
    // A frame's beginning, as an earlier one of this segment has it.
    file.write_all_at(&whole[64..164], end).expect("torn");
    assert_eq!(load(folder.path()).expect("opens"), (COUNT, COUNT));
    let mut engine = LogEngine::open(folder.path()).expect("opens");
    engine.commit(&[record(COUNT + 1)]).expect("goes on");
    drop(engine);
    file.set_len(end + 300).expect("cut behind the last frame");
    assert_eq!(load(folder.path()).expect("opens"), (COUNT + 1, COUNT + 1));
    let mut engine = LogEngine::open(folder.path()).expect("opens");
    engine.commit(&[record(COUNT + 2)]).expect("goes on");
    drop(engine);
    assert_eq!(load(folder.path()).expect("opens"), (COUNT + 2, COUNT + 2));
}

#[test]
fn a_folder_in_use_says_so() {
    let folder = tempfile::tempdir().expect("folder");
    let _holder = LogEngine::open(folder.path()).expect("opens");
    let text = refusal(folder.path());
    assert!(text.contains("another process has it open"), "{text}");
}

#[test]
fn a_file_in_the_folders_place_says_so() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("store");
    std::fs::write(&path, "x").expect("written");
    let text = refusal(&path);
    assert!(text.contains(&path.display().to_string()), "{text}");
}

/// fjall's files, as development versions wrote them; nothing in the folder is touched.
#[test]
fn a_folder_of_another_format_is_refused_untouched() {
    let folder = tempfile::tempdir().expect("folder");
    std::fs::write(folder.path().join("0.jnl"), "FJL").expect("written");
    let text = refusal(folder.path());
    assert!(text.contains("it holds 0.jnl, so this is no store of this version"), "{text}");
    assert!(text.contains("move the folder away to start empty"), "{text}");
    assert_eq!(std::fs::read(folder.path().join("0.jnl")).expect("there"), b"FJL");
}

#[test]
fn a_segment_of_another_version_is_refused() {
    let folder = tempfile::tempdir().expect("folder");
    filled(folder.path());
    let file = std::fs::File::options().write(true).open(journal(folder.path())).expect("opens");
    file.write_all_at(b"TRIREME2", 0).expect("written");
    let text = refusal(folder.path());
    assert!(text.contains("it was written by another version"), "{text}");
}

const FOLDER: &str = "STORE_UNREADABLE_FOLDER";

/// Not a test by itself: what the next one runs as another user.
#[test]
fn the_stranger() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    println!("{}", refusal(Path::new(&folder)));
}

#[test]
fn an_unreadable_folder_says_so() {
    let folder = tempfile::tempdir().expect("folder");
    // The test program may lie where a stranger cannot reach it.
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).expect("opened up");
    let program = folder.path().join("program");
    std::fs::copy(std::env::current_exe().expect("own path"), &program).expect("copied");
    let store = folder.path().join("store");
    filled(&store);
    let mut stranger = Command::new(program);
    stranger.args(alone("damage::the_stranger")).env(FOLDER, &store).current_dir("/");
    let output = stranger.uid(65534).gid(65534).stdin(Stdio::null()).output();
    let output = output.expect("runs; changing the user needs root");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}");
    assert!(text.contains("Permission denied"), "{text}");
    assert!(text.contains("give this user read and write access"), "{text}");
    assert_eq!(load(&store).expect("untouched"), (COUNT, COUNT));
}
