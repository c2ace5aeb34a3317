//! A token as it is sent: three parts, none of them believed yet (RFC 7515, section 7.1).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

/// Longest token that is looked at, in bytes.
const TOKEN_MAX: usize = 64 * 1024;

/// Claims by their names.
pub(super) type Claims = Map<String, Value>;

#[derive(Debug)]
pub(super) struct Token<'a> {
    pub(super) algorithm: String,
    pub(super) key_id: String,
    pub(super) claims: Claims,
    /// What is signed.
    pub(super) message: &'a str,
    pub(super) signature: Vec<u8>,
}

impl<'a> Token<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Token<'a>, String> {
        if text.len() > TOKEN_MAX {
            return Err("token is too long".into());
        }
        let (message, signature) = text.rsplit_once('.').ok_or("malformed token")?;
        let (header, payload) = message.split_once('.').ok_or("malformed token")?;
        let decode = |part: &str| {
            URL_SAFE_NO_PAD.decode(part).map_err(|e| format!("error decoding token: {e}"))
        };
        let object = |part: &str| -> Result<Claims, String> {
            serde_json::from_slice(&decode(part)?)
                .map_err(|e| format!("while unmarshaling token: {e}"))
        };
        let header = object(header)?;
        let text = |key: &str| header.get(key).and_then(Value::as_str).unwrap_or("").to_owned();
        // Extensions that must be understood are not (RFC 7515, section 4.1.11).
        if header.contains_key("crit") {
            return Err("unsupported crit header".into());
        }
        Ok(Token {
            algorithm: text("alg"),
            key_id: text("kid"),
            claims: object(payload)?,
            message,
            signature: decode(signature)?,
        })
    }

    /// Who says to have issued it.
    pub(super) fn issuer(&self) -> &str {
        match self.claims.get("iss").and_then(Value::as_str).unwrap_or("") {
            // What Google signs and what it publishes differ.
            "accounts.google.com" => "https://accounts.google.com",
            other => other,
        }
    }

    /// Whom it is for: one, or several.
    pub(super) fn audiences(&self) -> Vec<&str> {
        match self.claims.get("aud") {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        }
    }

    /// Seconds since the epoch; fractions are cut off.
    pub(super) fn time(&self, claim: &str) -> Option<i64> {
        let value = self.claims.get(claim)?;
        value.as_i64().or_else(|| value.as_f64().map(|seconds| seconds as i64))
    }
}
