//! P-256 keys in SEC1's form (`EC PRIVATE KEY`, RFC 5915), as client-go writes them. Java clients built
//! on fabric8 read no other.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

const SEQUENCE: u8 = 0x30;
const OCTETS: u8 = 0x04;
/// [0]: the curve, which PKCS#8 names outside.
const CURVE: u8 = 0xa0;
/// `prime256v1` (1.2.840.10045.3.1.7).
const P256: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

/// The same key in SEC1's form; other keys than P-256 in PKCS#8 stay as they are.
pub(crate) fn key_pem(pem: &str) -> String {
    let converted = x509_parser::pem::parse_x509_pem(pem.as_bytes()).ok().and_then(|(_, pem)| {
        (pem.label == "PRIVATE KEY").then(|| from_pkcs8(&pem.contents)).flatten()
    });
    converted.map_or_else(|| pem.to_owned(), |der| encode(&der))
}

fn encode(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut out = "-----BEGIN EC PRIVATE KEY-----\n".to_owned();
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        out += line;
        out.push('\n');
        rest = after;
    }
    out + "-----END EC PRIVATE KEY-----\n"
}

/// Tag and content of the first element, and what follows it. Keys are short: lengths of one or two
/// bytes.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(*first), rest),
        0x81 => rest.split_first().map(|(length, rest)| (usize::from(*length), rest))?,
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}

fn wrap(tag: u8, content: &[u8]) -> Option<Vec<u8>> {
    let length = u8::try_from(content.len()).ok()?;
    let mut out = vec![tag];
    out.extend((length > 0x7f).then_some(0x81));
    out.push(length);
    out.extend_from_slice(content);
    Some(out)
}

fn from_pkcs8(der: &[u8]) -> Option<Vec<u8>> {
    let (SEQUENCE, info, _) = element(der)? else { return None };
    let (_, _version, rest) = element(info)?;
    let (SEQUENCE, algorithm, rest) = element(rest)? else { return None };
    if !algorithm.ends_with(&P256) {
        return None;
    }
    let (OCTETS, key, _) = element(rest)? else { return None };
    let (SEQUENCE, fields, _) = element(key)? else { return None };
    let (_, _one, rest) = element(fields)?;
    let (OCTETS, _scalar, public) = element(rest)? else { return None };
    let private = &fields[..fields.len() - public.len()];
    if public.first() == Some(&CURVE) {
        return Some(key.to_vec());
    }
    let content = [private, &wrap(CURVE, &P256)?, public].concat();
    wrap(SEQUENCE, &content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Authority, CertSpec};

    #[test]
    fn a_key_in_sec1_is_the_same_key() {
        let pair = Authority::create("ca").and_then(|ca| ca.issue(&CertSpec::client("u", None)));
        let pkcs8 = pair.expect("issued").key_pem;
        let sec1 = key_pem(&pkcs8);
        assert!(sec1.starts_with("-----BEGIN EC PRIVATE KEY-----\n"), "{sec1}");
        let (_, pem) = x509_parser::pem::parse_x509_pem(sec1.as_bytes()).expect("PEM");
        let der = pem.contents;
        let shape = [&[0x30, 0x77, 2, 1, 1, 4, 32][..], &der[7..39], &[0xa0, 10], &P256].concat();
        assert_eq!(der[..shape.len()], shape);
        assert_eq!(der[shape.len()..][..5], [0xa1, 0x44, 3, 0x42, 0]);
        let (_, original) = x509_parser::pem::parse_x509_pem(pkcs8.as_bytes()).expect("PEM");
        let holds = |part: &[u8]| original.contents.windows(part.len()).any(|w| w == part);
        assert!(
            holds(&der[7..39]) && holds(&der[der.len() - 65..]),
            "scalar and point are the same"
        );
        assert_eq!(key_pem(&sec1), sec1);
        assert_eq!(key_pem("no key"), "no key");
    }
}
