//! Certificate and key of a TLS secret: whether both are there. Texts are those of Go's
//! `tls.X509KeyPair`. Their contents are not compared.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

const BEGIN: &str = "-----BEGIN ";
const DASHES: &str = "-----";

/// Why the pair cannot be loaded.
pub(super) fn fault(certificate: &[u8], key: &[u8]) -> Option<String> {
    let blocks = types(certificate);
    if !blocks.iter().any(|block| block == "CERTIFICATE") {
        return Some(match blocks.as_slice() {
            [] => "tls: failed to find any PEM data in certificate input".into(),
            [one] if one.ends_with("PRIVATE KEY") => "tls: failed to find certificate PEM data in certificate input, but did find a private key; PEM inputs may have been switched".into(),
            all => format!("tls: failed to find \"CERTIFICATE\" PEM block in certificate input after skipping PEM blocks of the following types: {}", super::listed(all)),
        });
    }
    let blocks = types(key);
    let is_key = |block: &String| block == "PRIVATE KEY" || block.ends_with(" PRIVATE KEY");
    if blocks.iter().any(is_key) {
        return None;
    }
    Some(match blocks.as_slice() {
        [] => "tls: failed to find any PEM data in key input".into(),
        [one] if one == "CERTIFICATE" => {
            "tls: found a certificate rather than a key in the PEM for the private key".into()
        }
        all => format!(
            "tls: failed to find PEM block with type ending in \"PRIVATE KEY\" in key input after skipping PEM blocks of the following types: {}",
            super::listed(all)
        ),
    })
}

/// Types of the PEM blocks of a text, malformed ones left out.
fn types(data: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(data);
    let mut found = Vec::new();
    let mut open: Option<(String, String)> = None;
    for line in text.lines().map(str::trim_end) {
        let begun = line.strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(DASHES));
        if let Some(kind) = begun {
            open = Some((kind.to_owned(), String::new()));
        } else if let Some((kind, body)) = &mut open {
            if line == format!("-----END {kind}-----") {
                if STANDARD.decode(body.as_bytes()).is_ok() {
                    found.push(kind.clone());
                }
                open = None;
            } else if !line.contains(": ") {
                body.push_str(line);
            }
        }
    }
    found
}
