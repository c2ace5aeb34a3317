//! Certificate authorities, issuing, service account tokens, kubeconfigs.
//!
//! Keys are ECDSA P-256: quick to make at first start, accepted by every client. This crate does
//! no I/O and knows no HTTP; who stores the results is the caller's affair.

mod authority;
mod jws;
mod kubeconfig;
mod request;
mod sec1;
mod token;

pub use authority::{Authority, CertSpec, KeyPairPem, PkiError, Subject, Usage, subject_of};
pub use jws::detached_signature;
pub use kubeconfig::{Identity, kubeconfig};
pub use request::{SigningRequest, expires};
pub use token::{Bound, Claims, LegacyToken, TokenError, TokenIssuer, TokenRequest};

/// SHA-256, for names derived from content.
pub fn sha256(data: &[u8]) -> [u8; 32] {
    let digest = ring::digest::digest(&ring::digest::SHA256, data);
    digest.as_ref().try_into().expect("SHA-256 is 32 bytes")
}
