//! Go's `encoding/json` errors for text that is not a JSON object.

use api::limits::{DEPTH_MAX, TOO_DEEP};
use serde::de::IgnoredAny;
use serde_json::Value;

/// Is this an object (or null)? The fault in Go's words.
pub(crate) fn object(bytes: &[u8]) -> Result<(), String> {
    match serde_json::from_slice::<Value>(bytes) {
        Ok(Value::Object(_) | Value::Null) => Ok(()),
        Ok(other) => Err(format!(
            "json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
            kind(&other)
        )),
        Err(_) => Err(syntax(bytes)),
    }
}

/// Where this is not JSON, in Go's words.
pub fn syntax_fault(bytes: &[u8]) -> Option<String> {
    let is_json = serde_json::from_slice::<IgnoredAny>(bytes).is_ok();
    (!is_json).then(|| syntax(bytes))
}

/// What Go calls a value that is no text; nothing for texts and null.
pub fn not_text(value: &Value) -> Option<&'static str> {
    (!value.is_string() && !value.is_null()).then(|| kind(value))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Bool(_) => "bool",
        Value::Object(_) => "object",
        _ => "number",
    }
}

/// Where the text stops being JSON.
fn syntax(bytes: &[u8]) -> String {
    let mut at = 0;
    while at < bytes.len() && bytes[at].is_ascii_whitespace() {
        at += 1;
    }
    let mut scan = Scan { bytes, at, depth: 0 };
    match scan.value() {
        Err(fault) => fault,
        Ok(()) => {
            scan.space();
            match bytes.get(scan.at) {
                Some(c) => invalid(*c, "after top-level value"),
                None => "unexpected end of JSON input".into(),
            }
        }
    }
}

fn invalid(c: u8, context: &str) -> String {
    let shown = match c {
        b'\'' => r"'\''".to_owned(),
        b'"' => "'\"'".to_owned(),
        c if (0x20..0x7f).contains(&c) => format!("'{}'", c as char),
        c => format!("'\\x{c:02x}'"),
    };
    format!("invalid character {shown} {context}")
}

struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Lists and maps that are open.
    depth: usize,
}

impl Scan<'_> {
    fn space(&mut self) {
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
    }

    fn peek(&mut self) -> Result<u8, String> {
        self.space();
        self.bytes.get(self.at).copied().ok_or_else(|| "unexpected end of JSON input".to_owned())
    }

    fn value(&mut self) -> Result<(), String> {
        match self.peek()? {
            b'{' => self.nested(Self::members),
            b'[' => self.nested(Self::elements),
            b'"' => self.string(),
            b't' => self.word("true"),
            b'f' => self.word("false"),
            b'n' => self.word("null"),
            c if c == b'-' || c.is_ascii_digit() => {
                let number = |c: &u8| c.is_ascii_digit() || b"+-.eE".contains(c);
                while self.bytes.get(self.at).is_some_and(number) {
                    self.at += 1;
                }
                Ok(())
            }
            c => Err(invalid(c, "looking for beginning of value")),
        }
    }

    fn nested(&mut self, read: fn(&mut Self) -> Result<(), String>) -> Result<(), String> {
        if self.depth >= DEPTH_MAX {
            return Err(TOO_DEEP.into());
        }
        self.depth += 1;
        let done = read(self);
        self.depth -= 1;
        done
    }

    fn word(&mut self, word: &str) -> Result<(), String> {
        for (n, expected) in word.bytes().enumerate() {
            match self.bytes.get(self.at) {
                Some(c) if *c == expected => self.at += 1,
                Some(c) => {
                    let context =
                        format!("in literal {word} (expecting '{}')", word.as_bytes()[n] as char);
                    return Err(invalid(*c, &context));
                }
                None => return Err("unexpected end of JSON input".into()),
            }
        }
        Ok(())
    }

    fn string(&mut self) -> Result<(), String> {
        self.at += 1;
        while let Some(c) = self.bytes.get(self.at) {
            self.at += 1;
            match c {
                b'"' => return Ok(()),
                b'\\' => self.at += 1,
                c if *c < 0x20 => return Err(invalid(*c, "in string literal")),
                _ => {}
            }
        }
        Err("unexpected end of JSON input".into())
    }

    fn members(&mut self) -> Result<(), String> {
        self.at += 1;
        if self.peek()? == b'}' {
            self.at += 1;
            return Ok(());
        }
        loop {
            match self.peek()? {
                b'"' => self.string()?,
                c => return Err(invalid(c, "looking for beginning of object key string")),
            }
            match self.peek()? {
                b':' => self.at += 1,
                c => return Err(invalid(c, "after object key")),
            }
            self.value()?;
            match self.peek()? {
                b',' => self.at += 1,
                b'}' => {
                    self.at += 1;
                    return Ok(());
                }
                c => return Err(invalid(c, "after object key:value pair")),
            }
        }
    }

    fn elements(&mut self) -> Result<(), String> {
        self.at += 1;
        if self.peek()? == b']' {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.value()?;
            match self.peek()? {
                b',' => self.at += 1,
                b']' => {
                    self.at += 1;
                    return Ok(());
                }
                c => return Err(invalid(c, "after array element")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::object;

    #[test]
    fn faults_are_gos() {
        for (text, fault) in [
            ("", "unexpected end of JSON input"),
            ("not json", "invalid character 'o' in literal null (expecting 'u')"),
            ("x", "invalid character 'x' looking for beginning of value"),
            ("{a", "invalid character 'a' looking for beginning of object key string"),
            ("[]", "json: cannot unmarshal array into Go value of type map[string]interface {}"),
        ] {
            assert_eq!(object(text.as_bytes()), Err(fault.to_owned()), "{text}");
        }
        assert_eq!(object(b"{\"a\": [1, null]}"), Ok(()));
    }

    #[test]
    fn deep_text_is_refused() {
        for deep in ["[".repeat(3 << 20), "{\"a\":".repeat(500_000)] {
            assert_eq!(object(deep.as_bytes()), Err("exceeded max depth".to_owned()));
        }
    }
}
