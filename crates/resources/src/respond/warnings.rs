//! `Warning` headers (RFC 7234 §5.5, code 299), limited as upstream's recorder limits them (apiserver
//! `endpoints/filters/warning.go`): clients and proxies refuse answers with large heads.

use std::collections::HashSet;

use http::{HeaderValue, Response, header};

use super::Body;

/// Characters of all warnings together, after which each is cut to [`ITEM_MAX`].
const TOTAL_MAX: usize = 4 * 1024;
/// Characters of one warning, once they are cut.
const ITEM_MAX: usize = 256;

pub fn add_warnings(response: &mut Response<Body>, warnings: &[String]) {
    for text in limited(warnings) {
        let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{quoted}\"").as_bytes()) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
}

/// The warnings that are sent: each once, and cut when all of them are too long.
fn limited(warnings: &[String]) -> Vec<&str> {
    let mut seen = HashSet::new();
    let each: Vec<&str> = warnings
        .iter()
        .map(String::as_str)
        .filter(|text| !text.is_empty() && seen.insert(*text))
        .collect();
    let total: usize = each.iter().map(|text| text.chars().count()).sum();
    if total <= TOTAL_MAX {
        return each;
    }
    let mut written = 0;
    let cut = each
        .into_iter()
        .map(|text| text.char_indices().nth(ITEM_MAX).map_or(text, |(end, _)| &text[..end]));
    cut.take_while(|text| {
        let goes = written < TOTAL_MAX;
        written += text.chars().count();
        goes
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_are_sent_whole_and_once() {
        let told = ["a".repeat(4000), "b".into(), "b".into(), String::new()];
        assert_eq!(limited(&told), ["a".repeat(4000).as_str(), "b"]);
    }

    #[test]
    fn many_are_cut() {
        let told: Vec<String> =
            (0..20_000).map(|n| format!("{n:05}{}", "é".repeat(1000))).collect();
        let sent = limited(&told);
        assert_eq!(sent.len(), TOTAL_MAX / ITEM_MAX);
        assert!(sent.iter().all(|text| text.chars().count() == ITEM_MAX));
    }
}
