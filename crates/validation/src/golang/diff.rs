//! Unified diffs that agree with Go's difflib (a port of Python's): the longest common run of lines
//! first, then what lies before and after it; lines that occur often begin no run.

use std::collections::HashMap;

/// Lines around a change.
const CONTEXT: usize = 3;
/// From so many lines on, those that make up over one in a hundred begin no run.
const MANY: usize = 200;

/// A run of equal lines: where in the first text, where in the second, how long.
type Run = (usize, usize, usize);
/// A range of each text; equal ones are marked.
type Piece = (bool, usize, usize, usize, usize);

pub(super) fn unified(old: &str, new: &str) -> String {
    let a: Vec<&str> = old.split('\n').collect();
    let b: Vec<&str> = new.split('\n').collect();
    let mut out = String::new();
    for group in groups(pieces(&runs(&a, &b))) {
        let (Some(first), Some(last)) = (group.first(), group.last()) else { continue };
        let (from, to) = (range(first.1, last.2), range(first.3, last.4));
        out.push_str(&format!("@@ -{from} +{to} @@\n"));
        for (equal, a1, a2, b1, b2) in group {
            if equal {
                a[a1..a2].iter().for_each(|line| out.push_str(&format!(" {line}\n")));
                continue;
            }
            a[a1..a2].iter().for_each(|line| out.push_str(&format!("-{line}\n")));
            b[b1..b2].iter().for_each(|line| out.push_str(&format!("+{line}\n")));
        }
    }
    out
}

fn range(start: usize, end: usize) -> String {
    match end - start {
        1 => (start + 1).to_string(),
        0 => format!("{start},0"),
        length => format!("{},{length}", start + 1),
    }
}

/// All runs, in order, ended by an empty one.
fn runs(a: &[&str], b: &[&str]) -> Vec<Run> {
    let mut places: HashMap<&str, Vec<usize>> = HashMap::new();
    for (at, line) in b.iter().enumerate() {
        places.entry(line).or_default().push(at);
    }
    if b.len() >= MANY {
        let most = b.len() / 100 + 1;
        places.retain(|_, at| at.len() <= most);
    }
    let mut found: Vec<Run> = Vec::new();
    let mut open = vec![(0, a.len(), 0, b.len())];
    while let Some((a1, a2, b1, b2)) = open.pop() {
        let (i, j, size) = longest(a, b, &places, (a1, a2, b1, b2));
        if size > 0 {
            found.push((i, j, size));
            open.push((a1, i, b1, j));
            open.push((i + size, a2, j + size, b2));
        }
    }
    found.sort_unstable();
    found.push((a.len(), b.len(), 0));
    found
}

fn longest(
    a: &[&str],
    b: &[&str],
    places: &HashMap<&str, Vec<usize>>,
    (a1, a2, b1, b2): (usize, usize, usize, usize),
) -> Run {
    let (mut i, mut j, mut size) = (a1, b1, 0);
    let mut lengths: HashMap<usize, usize> = HashMap::new();
    for (at, line) in a.iter().enumerate().take(a2).skip(a1) {
        let mut next = HashMap::new();
        let here = places.get(line).map_or(&[][..], Vec::as_slice);
        for &place in here.iter().filter(|place| (b1..b2).contains(*place)) {
            let before = place.checked_sub(1).and_then(|p| lengths.get(&p)).copied().unwrap_or(0);
            let length = before + 1;
            next.insert(place, length);
            if length > size {
                (i, j, size) = (at + 1 - length, place + 1 - length, length);
            }
        }
        lengths = next;
    }
    while i > a1 && j > b1 && a[i - 1] == b[j - 1] {
        (i, j, size) = (i - 1, j - 1, size + 1);
    }
    while i + size < a2 && j + size < b2 && a[i + size] == b[j + size] {
        size += 1;
    }
    (i, j, size)
}

/// The texts as ranges that are equal or differ.
fn pieces(runs: &[Run]) -> Vec<Piece> {
    let (mut i, mut j) = (0, 0);
    let mut out = Vec::new();
    for &(a, b, size) in runs {
        if i < a || j < b {
            out.push((false, i, a, j, b));
        }
        if size > 0 {
            out.push((true, a, a + size, b, b + size));
        }
        (i, j) = (a + size, b + size);
    }
    out
}

/// Changes with the lines around them; far ones apart.
fn groups(mut pieces: Vec<Piece>) -> Vec<Vec<Piece>> {
    if let Some(first) = pieces.first_mut().filter(|p| p.0) {
        first.1 = first.1.max(first.2.saturating_sub(CONTEXT));
        first.3 = first.3.max(first.4.saturating_sub(CONTEXT));
    }
    if let Some(last) = pieces.last_mut().filter(|p| p.0) {
        last.2 = last.2.min(last.1 + CONTEXT);
        last.4 = last.4.min(last.3 + CONTEXT);
    }
    let mut all = Vec::new();
    let mut group: Vec<Piece> = Vec::new();
    for (equal, a1, a2, b1, b2) in pieces {
        let (mut a1, mut b1) = (a1, b1);
        if equal && a2 - a1 > 2 * CONTEXT {
            group.push((true, a1, a1 + CONTEXT, b1, b1 + CONTEXT));
            all.push(std::mem::take(&mut group));
            (a1, b1) = (a2 - CONTEXT, b2 - CONTEXT);
        }
        group.push((equal, a1, a2, b1, b2));
    }
    if group.iter().any(|piece| !piece.0) {
        all.push(group);
    }
    all.retain(|group| group.iter().any(|piece| !piece.0));
    all
}
