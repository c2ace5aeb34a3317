//! What an engine makes of one flipped byte somewhere in its files: a refusal, the same content, or
//! (which must not be) other content without a word.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use store::Record;

use crate::Open;

const COMMITS: u64 = 300;
const FLIPS: usize = 300;

/// Names the engine that a child process shall read, and the folder.
const ENGINE: &str = "STORE_BENCH_DAMAGE_ENGINE";
const FOLDER: &str = "STORE_BENCH_DAMAGE_FOLDER";

type Content = BTreeMap<String, (u64, Option<Vec<u8>>)>;

/// Of [`FLIPS`] flips: refused, harmless, wrong in silence.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) refused: usize,
    pub(crate) harmless: usize,
    pub(crate) wrong: usize,
}

fn fill(folder: &Path, with: Open) -> Content {
    let mut content = Content::new();
    let mut engine = with(folder);
    for revision in 1..=COMMITS {
        let key = format!("/registry/pods/default/pod-{:03}", revision % 100);
        let value = Some(format!(r#"{{"n":"{}"}}"#, revision.to_string().repeat(200)).into_bytes());
        let record = Record { key: key.clone(), value: value.clone(), revision };
        engine.commit(&[record]).expect("commits");
        content.insert(key, (revision, value));
    }
    content
}

fn digest(content: &Content) -> String {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    format!("content {:x}", hasher.finish())
}

/// Reads the folder in a process of its own, which some engines end when they meet damage.
fn load(folder: &Path, name: &str) -> Option<String> {
    let mut child = Command::new(std::env::current_exe().expect("own path"));
    child.env(ENGINE, name).env(FOLDER, folder).stderr(Stdio::null());
    let output = child.output().expect("runs");
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

/// The child's part; whether this process is one.
pub(crate) fn is_child(engines: &[(&str, Open)]) -> bool {
    let (Ok(name), Some(folder)) = (std::env::var(ENGINE), std::env::var_os(FOLDER)) else {
        return false;
    };
    let (_, with) = engines.iter().find(|(n, _)| *n == name).expect("one of them");
    let mut content = Content::new();
    let mut engine = with(Path::new(&folder));
    let visit = &mut |r: Record| drop(content.insert(r.key, (r.revision, r.value)));
    if engine.load(visit).is_ok() {
        println!("{}", digest(&content));
    }
    true
}

/// Files below a folder, with the bytes up to their last that is not zero.
fn files(folder: &Path) -> Vec<(PathBuf, u64)> {
    let entries = std::fs::read_dir(folder).expect("readable").map(|e| e.expect("entry").path());
    let one = |path: PathBuf| match path.is_dir() {
        true => files(&path),
        false => {
            let bytes = std::fs::read(&path).expect("readable");
            let used = bytes.iter().rposition(|b| *b != 0).map_or(0, |at| at as u64 + 1);
            vec![(path, used)]
        }
    };
    entries.flat_map(one).collect()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("made");
    for entry in std::fs::read_dir(from).expect("readable").map(|e| e.expect("entry")) {
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).expect("copied")),
        }
    }
}

pub(crate) fn judge(root: &Path, name: &str, with: Open) -> Verdict {
    let (original, damaged) = (root.join("original"), root.join("damaged"));
    for folder in [&original, &damaged] {
        std::fs::remove_dir_all(folder).unwrap_or_default();
    }
    let content = digest(&fill(&original, with));
    let files = files(&original);
    let total: u64 = files.iter().map(|(_, used)| used).sum();
    let mut verdict = Verdict::default();
    for n in 0..FLIPS as u64 {
        let mut at = (total - 1) * n / FLIPS as u64;
        let (path, _) = files
            .iter()
            .find(|(_, used)| match at < *used {
                true => true,
                false => {
                    at -= used;
                    false
                }
            })
            .expect("below the total");
        copy(&original, &damaged);
        let path = damaged.join(path.strip_prefix(&original).expect("below"));
        let file = std::fs::File::options().read(true).write(true).open(path).expect("opens");
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).expect("read");
        file.write_all_at(&[byte[0] ^ 0xff], at).expect("flipped");
        match load(&damaged, name) {
            None => verdict.refused += 1,
            Some(found) if found == content => verdict.harmless += 1,
            Some(_) => verdict.wrong += 1,
        }
        std::fs::remove_dir_all(&damaged).expect("removed");
    }
    verdict
}
