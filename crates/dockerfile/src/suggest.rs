//! "Did you mean": the nearest of the words that are allowed.

/// The allowed word that `word` probably is; `None` when none is near.
pub(crate) fn nearest<'a>(word: &str, allowed: &[&'a str]) -> Option<&'a str> {
    /// Letters that may differ.
    const NEAR: usize = 2;
    let lower = word.to_lowercase();
    let scored = allowed.iter().map(|a| (distance(&lower, &a.to_lowercase()), *a));
    scored.filter(|(d, a)| *d <= NEAR && *d < a.len()).min().map(|(_, a)| a)
}

/// Letters to insert, remove or replace.
fn distance(a: &str, b: &str) -> usize {
    /// Longer words are no misspelt keywords.
    const LONGEST: usize = 40;
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len() > LONGEST || b.len() > LONGEST {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = corner + usize::from(x != y);
            corner = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_found_and_far_ones_are_not() {
        assert_eq!(nearest("FORM", &["FROM", "RUN"]), Some("FROM"));
        assert_eq!(nearest("coppy", &["ADD", "COPY"]), Some("COPY"));
        assert_eq!(nearest("bananas", &["ADD", "COPY"]), None);
        assert_eq!(nearest(&"x".repeat(10_000), &["ADD"]), None);
    }
}
