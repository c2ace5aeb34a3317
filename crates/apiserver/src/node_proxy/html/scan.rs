//! Where a page's tags hold addresses: as much of HTML's syntax as that takes.

use std::ops::Range;

/// Attributes that hold addresses, by element.
fn holds_address(element: &[u8], attribute: &[u8]) -> bool {
    let allowed: &[&str] = match element.to_ascii_lowercase().as_slice() {
        b"a" | b"area" | b"base" | b"link" => &["href"],
        b"applet" => &["codebase"],
        b"audio" | b"embed" | b"script" | b"source" => &["src"],
        b"blockquote" | b"del" | b"ins" | b"q" => &["cite"],
        b"body" => &["background"],
        b"button" => &["formaction"],
        b"command" => &["icon"],
        b"form" => &["action"],
        b"frame" | b"iframe" => &["longdesc", "src"],
        b"head" => &["profile"],
        b"html" => &["manifest"],
        b"img" => &["longdesc", "src", "usemap"],
        b"input" => &["src", "usemap", "formaction"],
        b"object" => &["classid", "codebase", "data", "usemap"],
        b"video" => &["poster", "src"],
        _ => &[],
    };
    allowed.iter().any(|name| attribute.eq_ignore_ascii_case(name.as_bytes()))
}

/// Elements whose content is text, whatever it looks like.
const RAW: [&[u8]; 4] = [b"script", b"style", b"textarea", b"title"];

/// The places of all values that are addresses, in their order.
pub(super) fn addresses(page: &[u8]) -> Vec<Range<usize>> {
    let mut scan = Scan { page, at: 0 };
    let mut found = Vec::new();
    while scan.next_open() {
        if page[scan.at..].starts_with(b"!--") {
            scan.skip_past(b"-->");
        } else if scan.peek().is_ascii_alphabetic() {
            scan.tag(&mut found);
        }
    }
    found
}

/// A walk over a page.
struct Scan<'a> {
    page: &'a [u8],
    at: usize,
}

impl Scan<'_> {
    /// The byte here; 0 behind the end.
    fn peek(&self) -> u8 {
        self.page.get(self.at).copied().unwrap_or(0)
    }

    /// Behind the next `<`.
    fn next_open(&mut self) -> bool {
        self.until(|b| b == b'<');
        let found = self.at < self.page.len();
        self.at += usize::from(found);
        found
    }

    fn until(&mut self, ends: impl Fn(u8) -> bool) -> Range<usize> {
        let start = self.at;
        let rest = &self.page[start..];
        self.at = rest.iter().position(|b| ends(*b)).map_or(self.page.len(), |n| start + n);
        start..self.at
    }

    /// Behind the next `text`, or at the end.
    fn skip_past(&mut self, text: &[u8]) {
        let rest = &self.page[self.at..];
        let found = rest.windows(text.len()).position(|w| w.eq_ignore_ascii_case(text));
        self.at = found.map_or(self.page.len(), |n| self.at + n + text.len());
    }

    /// A start tag, from its name; a tag that never ends holds nothing.
    fn tag(&mut self, found: &mut Vec<Range<usize>>) {
        let name = self.until(|b| b.is_ascii_whitespace() || matches!(b, b'/' | b'>'));
        let before = found.len();
        loop {
            self.until(|b| !b.is_ascii_whitespace() && b != b'/');
            match self.peek() {
                _ if self.at == self.page.len() => return found.truncate(before),
                b'>' => break,
                _ => self.attribute(&name, found),
            }
        }
        self.at += 1;
        let element = &self.page[name];
        if RAW.iter().any(|raw| element.eq_ignore_ascii_case(raw)) {
            self.skip_past(&[b"</", element].concat());
        }
    }

    fn attribute(&mut self, element: &Range<usize>, found: &mut Vec<Range<usize>>) {
        let start = self.at;
        // A name may begin with `=`.
        self.at += 1;
        self.until(|b| b.is_ascii_whitespace() || matches!(b, b'/' | b'>' | b'='));
        let name = start..self.at;
        let behind = self.at;
        self.until(|b| !b.is_ascii_whitespace());
        if self.peek() != b'=' {
            self.at = behind;
            return;
        }
        self.at += 1;
        self.until(|b| !b.is_ascii_whitespace());
        let value = self.value();
        if holds_address(&self.page[element.clone()], &self.page[name]) {
            found.push(value);
        }
    }

    fn value(&mut self) -> Range<usize> {
        let quote = self.peek();
        if !matches!(quote, b'"' | b'\'') {
            return self.until(|b| b.is_ascii_whitespace() || b == b'>');
        }
        self.at += 1;
        let value = self.until(|b| b == quote);
        self.at = (self.at + 1).min(self.page.len());
        value
    }
}
