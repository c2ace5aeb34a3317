//! Detached JSON Web Signatures (RFC 7515 appendix F) by HMAC-SHA256: how bootstrap tokens sign.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde_json::json;

/// `header..signature` over `content` by the key of this id; the reader has the content.
pub fn detached_signature(content: &str, key_id: &str, key: &str) -> String {
    let header = URL_SAFE_NO_PAD.encode(json!({"alg": "HS256", "kid": key_id}).to_string());
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(content));
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
    let tag = hmac::sign(&key, signed.as_bytes());
    format!("{header}..{}", URL_SAFE_NO_PAD.encode(tag))
}

#[cfg(test)]
mod tests {
    use super::detached_signature;

    /// Upstream's own values (`cluster-bootstrap/token/jws`).
    #[test]
    fn signatures_are_those_of_upstream() {
        let content = "Hello from the other side. I must have called a thousand times.";
        let header = "eyJhbGciOiJIUzI1NiIsImtpZCI6Impvc2h1YSJ9";
        let of = |content, key| detached_signature(content, "joshua", key);
        assert_eq!(
            of(content, "my voice is my passcode"),
            format!("{header}..VShe2taLd-YTrmWuRkcL_8QTNDHYxQIEBsAYYiIj1_8")
        );
        assert_eq!(
            of("", "my voice is my passcode"),
            format!("{header}..7Ui1ALizW4jXphVUB7xUqC9vLYLL9RZeOFfVLoB7Tgk")
        );
        assert_eq!(
            of(content, ""),
            format!("{header}..UfkqvDGiIFxrMnFseDj9LYJOLNrvjW8aHhF71mvvAs8")
        );
    }
}
