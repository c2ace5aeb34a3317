//! What a Secret is filled with.

use std::sync::Arc;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use pki::TokenIssuer;
use serde_json::json;

use super::{Filling, Key};

fn filling() -> Filling {
    let key = TokenIssuer::generate_key().unwrap();
    let issuer = TokenIssuer::new("https://kubernetes.default.svc", &key).unwrap();
    Filling { issuer: Arc::new(issuer), ca: b"PEM".to_vec() }
}

fn secret() -> Secret {
    let metadata = json!({"name": "s", "namespace": "n",
        "annotations": {"kubernetes.io/service-account.name": "a"}});
    serde_json::from_value(json!({"metadata": metadata, "type": super::TYPE})).unwrap()
}

fn account() -> ServiceAccount {
    serde_json::from_value(json!({"metadata": {"name": "a", "namespace": "n", "uid": "u"}}))
        .unwrap()
}

#[test]
fn a_secret_is_filled_once_and_follows_the_authority() {
    let filling = filling();
    let filled = filling.complete(&secret(), &account()).unwrap().expect("empty before");
    let get = |key: &str| filled.data.as_ref().unwrap()[key].0.clone();
    assert_eq!((get("ca.crt"), get("namespace")), (b"PEM".to_vec(), b"n".to_vec()));
    let token = String::from_utf8(get("token")).unwrap();
    let claims = filling.issuer.verify_legacy(&token).unwrap();
    assert_eq!(
        (claims.account.as_str(), claims.account_uid.as_str(), claims.secret.as_str()),
        ("a", "u", "s")
    );
    assert_eq!(super::annotation(&filled, super::ACCOUNT_UID), "u");
    assert_eq!(filling.complete(&filled, &account()), Ok(None));

    let mut old = filled.clone();
    old.data.as_mut().unwrap().insert("ca.crt".into(), ByteString(b"other".to_vec()));
    let renewed = filling.complete(&old, &account()).unwrap().expect("another authority");
    assert_eq!(renewed.data, filled.data, "the token stays");
}

#[test]
fn a_secret_without_an_account_is_nobodys() {
    let mut secret = secret();
    assert!(Key::of(&secret).is_some());
    secret.metadata.annotations = None;
    assert_eq!(Key::of(&secret), None);
}
