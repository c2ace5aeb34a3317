//! Client certificates, which TLS has verified: the common name is the user, organisations are
//! groups.
//!
//! Rule: `CommonNameUserConversion`. A certificate without a common name is nobody's.

use ring::digest;

use super::Opinion;
use crate::user::User;

pub(super) fn user(der: &[u8]) -> Opinion {
    let subject = pki::subject_of(der).map_err(|e| e.to_string())?;
    // TLS looked when the connection began; connections may outlive certificates.
    if subject.expires <= jiff::Timestamp::now().as_second() {
        return Err("the certificate has expired".into());
    }
    if subject.common_name.is_empty() {
        return Ok(None);
    }
    let uid = match subject.uids.as_slice() {
        [] => String::new(),
        [uid] if uid.is_empty() => return Err("UID cannot be an empty string".into()),
        [uid] => uid.clone(),
        many => return Err(format!("expected 1 UID, but found multiple: {many:?}")),
    };
    let print = digest::digest(&digest::SHA256, der);
    let print: String = print.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let id =
        ("authentication.kubernetes.io/credential-id".to_owned(), format!("X509SHA256={print}"));
    Ok(Some(User {
        name: subject.common_name,
        uid,
        groups: subject.organizations,
        extra: [(id.0, vec![id.1])].into(),
    }))
}
