//! Kubeconfig files.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::authority::KeyPairPem;

/// How the user of a kubeconfig proves who it is.
#[derive(Debug, Clone)]
pub enum Identity<'a> {
    Certificate(&'a KeyPairPem),
    Token(&'a str),
}

/// One cluster, one user, one context, all named `name`.
pub fn kubeconfig(name: &str, server: &str, ca_pem: &str, identity: &Identity<'_>) -> String {
    let user = match identity {
        Identity::Certificate(pair) => format!(
            "    client-certificate-data: {}\n    client-key-data: {}\n",
            STANDARD.encode(&pair.cert_pem),
            STANDARD.encode(crate::sec1::key_pem(&pair.key_pem))
        ),
        Identity::Token(token) => format!("    token: {token}\n"),
    };
    let ca = STANDARD.encode(ca_pem);
    format!(
        "apiVersion: v1\nkind: Config\nclusters:\n- name: {name}\n  cluster:\n    certificate-authority-data: {ca}\n    server: {server}\ncontexts:\n- name: {name}\n  context:\n    cluster: {name}\n    user: {name}\ncurrent-context: {name}\nusers:\n- name: {name}\n  user:\n{user}"
    )
}
