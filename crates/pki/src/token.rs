//! Service account tokens: JWTs bound to an audience, a time and, usually, a pod (KEP-1205).
//!
//! Signed with ES256 (RFC 7518 §3.4). Only tokens of this issuer are verified here; whether the
//! account and the pod they name still exist is the authenticator's question.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _,
    UnparsedPublicKey,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Why a token is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("not a token of this cluster")]
    Foreign,
    #[error("the token's signature does not match")]
    Signature,
    #[error("the token has expired")]
    Expired,
    #[error("the token is not valid yet")]
    TooEarly,
    #[error("the token's subject is not the account of its other claims")]
    Subject,
    #[error("token audiences {found:?} are not among {expected:?}")]
    Audience { found: Vec<String>, expected: Vec<String> },
    #[error("token signing key: {0}")]
    Key(String),
}

/// An object a token is bound to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    pub name: String,
    pub uid: String,
}

/// The `kubernetes.io` claim.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Private {
    pub namespace: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Bound>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Bound>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Bound>,
    pub serviceaccount: Bound,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warnafter: Option<i64>,
}

/// A token's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    pub aud: Vec<String>,
    /// Seconds since the epoch.
    pub exp: i64,
    pub iat: i64,
    pub iss: String,
    pub jti: String,
    #[serde(rename = "kubernetes.io")]
    pub private: Private,
    pub nbf: i64,
    pub sub: String,
}

/// What to issue a token for.
#[derive(Debug, Clone, Default)]
pub struct TokenRequest {
    pub namespace: String,
    pub service_account: String,
    pub service_account_uid: String,
    pub audiences: Vec<String>,
    /// Seconds the token lives.
    pub life: i64,
    /// Name and uid.
    pub pod: Option<(String, String)>,
    pub node: Option<(String, String)>,
    pub secret: Option<(String, String)>,
    /// A random id.
    pub id: String,
}

/// A token without an end, kept in a Secret (`pkg/serviceaccount/legacy.go`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LegacyToken {
    pub namespace: String,
    pub secret: String,
    pub account: String,
    pub account_uid: String,
}

/// Who issues tokens without an end.
const LEGACY: &str = "kubernetes/serviceaccount";

#[derive(Debug, Serialize, Deserialize)]
struct LegacyClaims {
    iss: String,
    #[serde(rename = "kubernetes.io/serviceaccount/namespace")]
    namespace: String,
    #[serde(rename = "kubernetes.io/serviceaccount/secret.name")]
    secret: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.name")]
    account: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.uid")]
    account_uid: String,
    sub: String,
}

/// Signs and verifies.
pub struct TokenIssuer {
    issuer: String,
    audience: String,
    key: EcdsaKeyPair,
    key_id: String,
    random: SystemRandom,
}

impl std::fmt::Debug for TokenIssuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TokenIssuer({})", self.issuer)
    }
}

impl TokenIssuer {
    /// A new signing key, PKCS#8 DER, to keep beside the CAs.
    pub fn generate_key() -> Result<Vec<u8>, TokenError> {
        let document =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
        document.map(|d| d.as_ref().to_vec()).map_err(|e| TokenError::Key(e.to_string()))
    }

    /// `issuer` is the `iss` claim and the default audience, a URL.
    pub fn new(issuer: &str, key_pkcs8: &[u8]) -> Result<TokenIssuer, TokenError> {
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key_pkcs8, &random)
            .map_err(|e| TokenError::Key(e.to_string()))?;
        let digest = ring::digest::digest(&ring::digest::SHA256, key.public_key().as_ref());
        let key_id = URL_SAFE_NO_PAD.encode(digest);
        Ok(TokenIssuer { issuer: issuer.into(), audience: issuer.into(), key, key_id, random })
    }

    /// The audience of the API itself.
    pub fn api_audience(&self) -> &str {
        &self.audience
    }

    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Signs a token as of `now` (seconds since the epoch).
    pub fn issue(&self, request: &TokenRequest, now: i64) -> Result<String, TokenError> {
        let bound = |(name, uid): &(String, String)| Bound { name: name.clone(), uid: uid.clone() };
        let audiences = if request.audiences.is_empty() {
            vec![self.audience.clone()]
        } else {
            request.audiences.clone()
        };
        let claims = Claims {
            aud: audiences,
            exp: now + request.life,
            iat: now,
            iss: self.issuer.clone(),
            jti: request.id.clone(),
            private: Private {
                namespace: request.namespace.clone(),
                node: request.node.as_ref().map(bound),
                pod: request.pod.as_ref().map(bound),
                secret: request.secret.as_ref().map(bound),
                serviceaccount: Bound {
                    name: request.service_account.clone(),
                    uid: request.service_account_uid.clone(),
                },
                warnafter: None,
            },
            nbf: now,
            sub: subject(&request.namespace, &request.service_account),
        };
        self.sign(&claims)
    }

    /// Signs a token without an end.
    pub fn issue_legacy(&self, token: &LegacyToken) -> Result<String, TokenError> {
        self.sign(&LegacyClaims {
            iss: LEGACY.into(),
            namespace: token.namespace.clone(),
            secret: token.secret.clone(),
            account: token.account.clone(),
            account_uid: token.account_uid.clone(),
            sub: subject(&token.namespace, &token.account),
        })
    }

    /// Checks the signature of a token without an end. Whether it still counts, its Secret says.
    pub fn verify_legacy(&self, token: &str) -> Result<LegacyToken, TokenError> {
        let claims: LegacyClaims = unsigned(token)?;
        if claims.iss != LEGACY {
            return Err(TokenError::Foreign);
        }
        self.check_signature(token)?;
        if claims.sub != subject(&claims.namespace, &claims.account) || claims.secret.is_empty() {
            return Err(TokenError::Subject);
        }
        let LegacyClaims { namespace, secret, account, account_uid, .. } = claims;
        Ok(LegacyToken { namespace, secret, account, account_uid })
    }

    fn check_signature(&self, token: &str) -> Result<(), TokenError> {
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Foreign)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| TokenError::Foreign)?;
        let public =
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.key.public_key().as_ref());
        public.verify(signed.as_bytes(), &signature).map_err(|_| TokenError::Signature)
    }

    fn sign(&self, claims: &impl Serialize) -> Result<String, TokenError> {
        let header = json!({"alg": "ES256", "kid": self.key_id});
        let payload = serde_json::to_vec(claims).map_err(|e| TokenError::Key(e.to_string()))?;
        let signed = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header.to_string()),
            URL_SAFE_NO_PAD.encode(payload)
        );
        let signature = self.key.sign(&self.random, signed.as_bytes());
        let signature = signature.map_err(|e| TokenError::Key(e.to_string()))?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// Checks signature, issuer, times, and that one of `audiences` (none: the API's) is meant.
    pub fn verify(
        &self,
        token: &str,
        audiences: &[String],
        now: i64,
    ) -> Result<Claims, TokenError> {
        let claims: Claims = unsigned(token)?;
        if claims.iss != self.issuer {
            return Err(TokenError::Foreign);
        }
        self.check_signature(token)?;
        check_times(&claims, now)?;
        // The subject is for others to read; here the account is who the private claims say.
        if claims.sub != subject(&claims.private.namespace, &claims.private.serviceaccount.name) {
            return Err(TokenError::Subject);
        }
        let api = [self.audience.clone()];
        let expected = if audiences.is_empty() { &api } else { audiences };
        if !claims.aud.iter().any(|a| expected.contains(a)) {
            return Err(TokenError::Audience { found: claims.aud, expected: expected.to_vec() });
        }
        Ok(claims)
    }

    /// The public key as a JSON Web Key Set (RFC 7517).
    pub fn jwks(&self) -> Value {
        // An uncompressed point: 0x04, then 32 bytes each of x and y.
        let point = self.key.public_key().as_ref();
        json!({"keys": [{
            "use": "sig", "kty": "EC", "kid": self.key_id, "crv": "P-256", "alg": "ES256",
            "x": URL_SAFE_NO_PAD.encode(&point[1..33]),
            "y": URL_SAFE_NO_PAD.encode(&point[33..65]),
        }]})
    }
}

/// A token's claims, whoever signed them.
fn unsigned<T: serde::de::DeserializeOwned>(token: &str) -> Result<T, TokenError> {
    let mut parts = token.split('.');
    let payload = parts.nth(1).ok_or(TokenError::Foreign)?;
    let bytes = URL_SAFE_NO_PAD.decode(payload).map_err(|_| TokenError::Foreign)?;
    serde_json::from_slice(&bytes).map_err(|_| TokenError::Foreign)
}

fn subject(namespace: &str, account: &str) -> String {
    format!("system:serviceaccount:{namespace}:{account}")
}

fn check_times(claims: &Claims, now: i64) -> Result<(), TokenError> {
    if now >= claims.exp {
        return Err(TokenError::Expired);
    }
    if now < claims.nbf {
        return Err(TokenError::TooEarly);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_verify_until_they_expire_and_only_for_their_audience() {
        let key = TokenIssuer::generate_key().expect("a key");
        let issuer = TokenIssuer::new("https://kubernetes.default.svc.cluster.local", &key)
            .expect("an issuer");
        let request = TokenRequest {
            namespace: "default".into(),
            service_account: "a".into(),
            service_account_uid: "u".into(),
            life: 600,
            ..TokenRequest::default()
        };
        let token = issuer.issue(&request, 1000).expect("issued");
        assert_eq!(
            issuer.verify(&token, &[], 1001).map(|c| c.sub).as_deref(),
            Ok("system:serviceaccount:default:a")
        );
        assert_eq!(issuer.verify(&token, &[], 1600), Err(TokenError::Expired));
        assert!(matches!(
            issuer.verify(&token, &["vault".into()], 1001),
            Err(TokenError::Audience { .. })
        ));
        let forged = format!("{}A", &token[..token.len() - 1]);
        assert!(issuer.verify(&forged, &[], 1001).is_err() || forged == token);
        // Signed, but of two minds about whose it is.
        let mut claims = issuer.verify(&token, &[], 1001).expect("good");
        claims.sub = "system:serviceaccount:kube-system:a".into();
        let torn = issuer.sign(&claims).expect("signed");
        assert_eq!(issuer.verify(&torn, &[], 1001), Err(TokenError::Subject));
        let legacy = LegacyToken {
            namespace: "default".into(),
            secret: "s".into(),
            account: "a".into(),
            account_uid: "u".into(),
        };
        let endless = issuer.issue_legacy(&legacy).expect("issued");
        assert_eq!(issuer.verify_legacy(&endless), Ok(legacy.clone()));
        assert_eq!(issuer.verify(&endless, &[], 1001), Err(TokenError::Foreign));
        assert_eq!(issuer.verify_legacy(&token), Err(TokenError::Foreign));
        let stranger = TokenIssuer::generate_key().expect("a key");
        let stranger = TokenIssuer::new("https://x", &stranger).expect("an issuer");
        assert_eq!(stranger.verify_legacy(&endless), Err(TokenError::Signature));
        let nameless = issuer.issue_legacy(&LegacyToken { secret: String::new(), ..legacy });
        assert_eq!(issuer.verify_legacy(&nameless.expect("issued")), Err(TokenError::Subject));
        let other = TokenIssuer::new("https://x", &key).expect("an issuer");
        assert_eq!(other.verify(&token, &[], 1001), Err(TokenError::Foreign));
    }
}
