//! Google's conformance cases for CEL (`google/cel-spec`, `tests/simple/testdata`). They run where
//! `TRIREME_CEL_SPEC` names a checkout. `exceptions.txt` lists the cases whose answers differ, with the reasons;
//! a case that is listed and passes is a fault of the list.

mod case;
mod textproto;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use case::Case;

/// A pattern of `file/section/test` (a star at the end stands for anything) and the reason.
struct Exception {
    pattern: String,
    reason: String,
}

impl Exception {
    fn covers(&self, name: &str) -> bool {
        match self.pattern.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == self.pattern,
        }
    }
}

/// Lines `pattern`, below a line `# reason`.
fn exceptions() -> Vec<Exception> {
    let mut all = Vec::new();
    let mut reason = String::new();
    for line in include_str!("exceptions.txt").lines().map(str::trim) {
        match line.strip_prefix('#') {
            Some(text) => reason = text.trim().to_owned(),
            None if line.is_empty() => {}
            None => all.push(Exception { pattern: line.to_owned(), reason: reason.clone() }),
        }
    }
    all
}

fn cases(folder: &Path) -> Vec<Case> {
    let data = folder.join("tests/simple/testdata");
    let files = std::fs::read_dir(&data).expect("TRIREME_CEL_SPEC names a checkout of cel-spec");
    let mut files: Vec<PathBuf> = files.map(|file| file.expect("an entry").path()).collect();
    files.sort();
    let textproto = |file: &PathBuf| file.extension().is_some_and(|end| end == "textproto");
    let mut cases = Vec::new();
    for file in files.iter().filter(|file| textproto(file)) {
        let text = std::fs::read_to_string(file).expect("readable");
        cases.extend(case::read(&textproto::parse(&text)));
    }
    cases
}

#[test]
fn answers_are_those_of_the_specification() {
    let Some(folder) = std::env::var_os("TRIREME_CEL_SPEC") else {
        println!("TRIREME_CEL_SPEC is not set: no cases");
        return;
    };
    let exceptions = exceptions();
    let (mut passed, mut wrong) = (0, Vec::new());
    let mut excepted: BTreeMap<&str, usize> = BTreeMap::new();
    let mut used = vec![false; exceptions.len()];
    let cases = cases(Path::new(&folder));
    for case in &cases {
        let exception = exceptions.iter().position(|exception| exception.covers(&case.name));
        match (case.run(), exception) {
            (Ok(()), _) => passed += 1,
            (Err(_), Some(at)) => {
                used[at] = true;
                *excepted.entry(&exceptions[at].reason).or_default() += 1;
            }
            (Err(why), None) => wrong.push(format!("{}: {} — {why}", case.name, case.expression)),
        }
    }
    println!("{passed} of {} cases pass", cases.len());
    excepted.iter().for_each(|(reason, count)| println!("{count:5} {reason}"));
    wrong.iter().for_each(|case| println!("{case}"));
    let unused = exceptions.iter().zip(&used).filter(|(_, used)| !**used);
    let unused: Vec<&str> = unused.map(|(exception, _)| exception.pattern.as_str()).collect();
    assert!(wrong.is_empty(), "{} cases differ", wrong.len());
    assert!(unused.is_empty(), "exceptions that are none: {unused:?}");
}
