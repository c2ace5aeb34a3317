//! Numbers and strings as they are written.

use crate::lexer::Word;

/// The kind and length in bytes of the number that a text starts with.
pub(crate) fn number_length(rest: &str) -> Option<(Word, usize)> {
    let bytes = rest.as_bytes();
    let digits = |from: usize| bytes[from..].iter().take_while(|b| b.is_ascii_digit()).count();
    let hex = |from: usize| bytes[from..].iter().take_while(|b| b.is_ascii_hexdigit()).count();
    let unsigned = |end: usize| match bytes.get(end) {
        Some(b'u' | b'U') => (Word::Uint, end + 1),
        _ => (Word::Int, end),
    };
    if rest.starts_with("0x") && hex(2) > 0 {
        return Some(unsigned(2 + hex(2)));
    }
    let whole = digits(0);
    let has_point = bytes.get(whole) == Some(&b'.');
    let fraction = if has_point { digits(whole + 1) } else { 0 };
    if whole == 0 && fraction == 0 {
        return None;
    }
    let end = if fraction > 0 { whole + 1 + fraction } else { whole };
    let exponent = matches!(bytes.get(end), Some(b'e' | b'E')).then(|| {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        let from = end + 1 + sign;
        if from <= bytes.len() && digits(from) > 0 { from + digits(from) } else { end }
    });
    match exponent.filter(|to| *to > end) {
        Some(to) => Some((Word::Float, to)),
        None if fraction > 0 => Some((Word::Float, end)),
        None => Some(unsigned(end)),
    }
}

/// The kind and length of the string that a text starts with; `Err` if it is begun and not ended, with
/// the length of what is lost. `None` if no string begins here.
pub(crate) fn string_length(rest: &str) -> Option<Result<(Word, usize), usize>> {
    let bytes = rest.as_bytes();
    let is_bytes = matches!(bytes.first(), Some(b'b' | b'B'));
    let mut start = usize::from(is_bytes);
    let raw = matches!(bytes.get(start), Some(b'r' | b'R'));
    start += usize::from(raw);
    let quote = *bytes.get(start).filter(|b| matches!(b, b'"' | b'\''))?;
    let word = if is_bytes { Word::Bytes } else { Word::String };
    let triple = [quote; 3];
    if bytes[start..].starts_with(&triple)
        && let Some(end) = triple_end(rest, start + 3, &triple, raw)
    {
        return Some(Ok((word, end)));
    }
    Some(match single_end(rest, start + 1, quote, raw) {
        Ok(end) => Ok((word, end)),
        Err(end) => Err(end),
    })
}

fn triple_end(rest: &str, from: usize, triple: &[u8], raw: bool) -> Option<usize> {
    let bytes = rest.as_bytes();
    let mut at = from;
    while at < bytes.len() {
        if bytes[at..].starts_with(triple) {
            return Some(at + 3);
        }
        at += if !raw && bytes[at] == b'\\' { escape_length(&rest[at..])? } else { 1 };
        while !rest.is_char_boundary(at) {
            at += 1;
        }
    }
    None
}

fn single_end(rest: &str, from: usize, quote: u8, raw: bool) -> Result<usize, usize> {
    let bytes = rest.as_bytes();
    let mut at = from;
    while at < bytes.len() {
        match bytes[at] {
            b if b == quote => return Ok(at + 1),
            b'\n' | b'\r' => return Err(at),
            b'\\' if !raw => match escape_length(&rest[at..]) {
                Some(length) => at += length,
                None => return Err(at + bad_escape(&rest[at..])),
            },
            _ => at += rest[at..].chars().next().map_or(1, char::len_utf8),
        }
    }
    Err(rest.len())
}

/// How much of a text that starts with a bad escape is lost: up to what made it bad.
fn bad_escape(rest: &str) -> usize {
    let digits =
        |most: usize, is: fn(&u8) -> bool| rest.bytes().skip(2).take(most).take_while(is).count();
    let good = match rest.as_bytes().get(1) {
        Some(b'x' | b'X') => 2 + digits(2, u8::is_ascii_hexdigit),
        Some(b'u') => 2 + digits(4, u8::is_ascii_hexdigit),
        Some(b'U') => 2 + digits(8, u8::is_ascii_hexdigit),
        Some(b'0'..=b'3') => 2 + digits(2, |b| matches!(b, b'0'..=b'7')),
        _ => 1,
    };
    good + rest.get(good..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8)
}

/// The length of the escape that a text starts with.
fn escape_length(rest: &str) -> Option<usize> {
    let bytes = rest.as_bytes();
    let hex = |count: usize| {
        let digits = bytes.get(2..2 + count)?;
        digits.iter().all(u8::is_ascii_hexdigit).then_some(2 + count)
    };
    match bytes.get(1)? {
        b'a' | b'b' | b'f' | b'n' | b'r' | b't' | b'v' | b'"' | b'\'' | b'\\' | b'?' | b'`' => {
            Some(2)
        }
        b'x' | b'X' => hex(2),
        b'u' => hex(4),
        b'U' => hex(8),
        b'0'..=b'3' => {
            let digits = bytes.get(2..4)?;
            digits.iter().all(|b| matches!(b, b'0'..=b'7')).then_some(4)
        }
        _ => None,
    }
}

/// The text between the quotes, escapes resolved. The error is upstream's.
pub(crate) fn unquote(token: &str) -> Result<String, &'static str> {
    let bytes = unquote_as(token, false)?;
    String::from_utf8(bytes).map_err(|_| "invalid unicode code point")
}

/// The bytes between the quotes; here `\x` and octal escapes are bytes.
pub(crate) fn unquote_bytes(token: &str) -> Result<Vec<u8>, &'static str> {
    unquote_as(&token[1..], true)
}

fn unquote_as(token: &str, as_bytes: bool) -> Result<Vec<u8>, &'static str> {
    let plain = token.strip_prefix(['r', 'R']);
    let raw = plain.is_some();
    let token = plain.unwrap_or(token);
    let width = match token.len() >= 6 && (token.starts_with("'''") || token.starts_with("\"\"\""))
    {
        true => 3,
        false => 1,
    };
    let inside = &token[width..token.len() - width];
    if raw {
        return Ok(inside.as_bytes().to_vec());
    }
    let mut out = Vec::with_capacity(inside.len());
    let mut rest = inside;
    while let Some(at) = rest.find('\\') {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        rest = &rest[at..];
        let length = escape_length(rest).ok_or("unable to unescape string")?;
        unescape(&rest[1..length], as_bytes, &mut out)?;
        rest = &rest[length..];
    }
    out.extend_from_slice(rest.as_bytes());
    Ok(out)
}

/// One escape without its backslash.
fn unescape(escape: &str, as_bytes: bool, out: &mut Vec<u8>) -> Result<(), &'static str> {
    let (number, is_byte) = match (escape.as_bytes()[0], &escape[1..]) {
        (b'a', _) => (7, true),
        (b'b', _) => (8, true),
        (b'f', _) => (12, true),
        (b'n', _) => (10, true),
        (b'r', _) => (13, true),
        (b't', _) => (9, true),
        (b'v', _) => (11, true),
        (b'u' | b'U', _) if as_bytes => return Err("unable to unescape string"),
        (b'x' | b'X' | b'u' | b'U', hex) => {
            (u32::from_str_radix(hex, 16).unwrap_or(u32::MAX), as_bytes)
        }
        (b'0'..=b'3', _) => (u32::from_str_radix(escape, 8).unwrap_or(u32::MAX), as_bytes),
        (other, _) => (u32::from(other), true),
    };
    if is_byte && let Ok(byte) = u8::try_from(number) {
        out.push(byte);
        return Ok(());
    }
    let character = char::from_u32(number).ok_or("invalid unicode code point")?;
    out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    Ok(())
}
