//! BuildKit's recorded cases. Set `BUILDKIT_TREE` to a checkout of moby/buildkit to run them.

use std::path::{Path, PathBuf};

use dockerfile::expand::{Lexer, NoVariables};

fn tree() -> Option<PathBuf> {
    let tree = std::env::var_os("BUILDKIT_TREE").map(PathBuf::from);
    if tree.is_none() {
        eprintln!("skipped: BUILDKIT_TREE is not set");
    }
    tree.map(|t| t.join("frontend/dockerfile"))
}

fn folders(dir: &Path) -> Vec<PathBuf> {
    let mut list: Vec<PathBuf> =
        std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    list.sort();
    list
}

#[test]
fn recorded_trees_are_ours() {
    let Some(tree) = tree() else { return };
    let (mut same, mut other) = (0, Vec::new());
    for folder in folders(&tree.join("parser/testfiles")) {
        let file = std::fs::read(folder.join("Dockerfile")).unwrap();
        let want = std::fs::read_to_string(folder.join("result")).unwrap();
        let nodes = dockerfile::nodes(&file).map(|n| n.nodes).unwrap_or_default();
        let dumps = nodes.iter().map(|n| format!("({})\n", n.dump()));
        // The file's node has no name of its own: the first bracket follows nothing.
        let got: String = dumps.collect();
        if got == want {
            same += 1;
        } else {
            other.push((folder, got, want));
        }
    }
    println!("parser/testfiles: {same} the same, {} not", other.len());
    assert!(other.is_empty(), "{other:#?}");
}

#[test]
fn files_that_are_refused_are_refused() {
    let Some(tree) = tree() else { return };
    let folders = folders(&tree.join("parser/testfiles-negative"));
    for folder in &folders {
        let file = std::fs::read(folder.join("Dockerfile")).unwrap();
        assert!(dockerfile::nodes(&file).is_err(), "{}", folder.display());
    }
    println!("parser/testfiles-negative: {} refused", folders.len());
}

#[test]
fn recorded_lines_are_ours() {
    let Some(tree) = tree() else { return };
    let file = std::fs::read(tree.join("parser/testfile-line/Dockerfile")).unwrap();
    let lines: Vec<_> = dockerfile::nodes(&file).unwrap().nodes.iter().map(|n| n.lines).collect();
    assert_eq!(lines, [(5, 5), (11, 12), (17, 31)]);
}

#[test]
fn variables_are_replaced_as_recorded() {
    let Some(tree) = tree() else { return };
    let text = std::fs::read_to_string(tree.join("shell/envVarTest")).unwrap();
    let environment: Vec<String> =
        ["PWD=/home", "SHELL=bash", "KOREAN=한국어", "NULL="].map(str::to_owned).to_vec();
    let mut count = 0;
    for line in text.lines().filter(|l| !l.starts_with('#') && !l.trim().is_empty()) {
        let parts: Vec<&str> = line.split('|').collect();
        if parts[0] == "W" {
            continue;
        }
        let (source, want) = (parts[1].trim(), parts[2].trim());
        let got = Lexer::new('\\').word(source, &environment);
        match got {
            Ok(text) => assert_eq!(text, want, "{line}"),
            Err(_) => assert_eq!(want, "error", "{line}"),
        }
        count += 1;
    }
    println!("shell/envVarTest: {count} lines");
}

#[test]
fn words_are_split_as_recorded() {
    let Some(tree) = tree() else { return };
    let text = std::fs::read_to_string(tree.join("shell/wordsTest")).unwrap();
    let mut environment: Vec<String> = Vec::new();
    let mut count = 0;
    for line in text.lines().filter(|l| !l.starts_with('#') && !l.is_empty()) {
        if let Some(entry) = line.strip_prefix("ENV ") {
            environment.push(entry.trim_start_matches(' ').to_owned());
            continue;
        }
        let (source, want) = line.split_once('|').unwrap();
        let want: Vec<&str> = want.trim_start_matches(' ').split(',').collect();
        let got = Lexer::new('\\').words(source.trim(), &environment);
        assert_eq!(got.unwrap_or(vec!["error".to_owned()]), want, "{line}");
        count += 1;
    }
    println!("shell/wordsTest: {count} lines");
    assert!(Lexer::new('\\').words("", &NoVariables).unwrap().is_empty());
}
