//! Certificate authorities and what they issue.

use std::net::IpAddr;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Life of a cluster's own CA: ten years, as kubeadm's.
const AUTHORITY_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Certificates start in the past by this much, so that a clock that is behind accepts them.
const BACKDATE: Duration = Duration::from_secs(300);

/// A certificate could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("{operation}")]
    Certificate {
        operation: &'static str,
        #[source]
        source: rcgen::Error,
    },
    #[error("read certificate: {0}")]
    Parse(String),
}

fn failed(operation: &'static str) -> impl Fn(rcgen::Error) -> PkiError {
    move |source| PkiError::Certificate { operation, source }
}

/// A certificate (chain) and its private key, both PEM.
#[derive(Debug, Clone)]
pub struct KeyPairPem {
    pub cert_pem: String,
    pub key_pem: String,
}

/// What a certificate may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    Client,
    Server,
    /// Aggregator, kubelet serving and the like.
    Both,
}

/// What to certify.
#[derive(Debug, Clone)]
pub struct CertSpec {
    /// The user name of a client.
    pub common_name: String,
    /// The group of a client (one: rcgen's names hold one value an attribute).
    pub organization: Option<String>,
    pub dns_names: Vec<String>,
    pub addresses: Vec<IpAddr>,
    pub usage: Usage,
    pub life: Duration,
}

impl CertSpec {
    /// A client certificate that lives for a year.
    pub fn client(common_name: &str, organization: Option<&str>) -> CertSpec {
        CertSpec {
            common_name: common_name.into(),
            organization: organization.map(str::to_owned),
            dns_names: Vec::new(),
            addresses: Vec::new(),
            usage: Usage::Client,
            life: Duration::from_secs(365 * 24 * 3600),
        }
    }

    /// A server certificate that lives for a year.
    pub fn server(common_name: &str, dns_names: &[&str], addresses: &[IpAddr]) -> CertSpec {
        CertSpec {
            dns_names: dns_names.iter().map(|n| (*n).into()).collect(),
            addresses: addresses.to_vec(),
            usage: Usage::Server,
            ..CertSpec::client(common_name, None)
        }
    }
}

/// A certificate authority that can sign.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: KeyPairPem,
}

impl Authority {
    /// A new, self-signed one.
    pub fn create(common_name: &str) -> Result<Authority, PkiError> {
        let key = KeyPair::generate().map_err(failed("generate a CA key"))?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::CrlSign,
        ];
        set_validity(&mut params, AUTHORITY_LIFE);
        let cert = params.self_signed(&key).map_err(failed("sign a CA certificate"))?;
        let pem = KeyPairPem { cert_pem: cert.pem(), key_pem: key.serialize_pem() };
        Ok(Authority { issuer: Issuer::new(params, key), pem })
    }

    /// One that was stored.
    pub fn load(pem: KeyPairPem) -> Result<Authority, PkiError> {
        let key = KeyPair::from_pem(&pem.key_pem).map_err(failed("read a CA key"))?;
        let issuer = Issuer::from_ca_cert_pem(&pem.cert_pem, key)
            .map_err(failed("read a CA certificate"))?;
        Ok(Authority { issuer, pem })
    }

    /// Its certificate and key.
    pub fn pem(&self) -> &KeyPairPem {
        &self.pem
    }

    /// Makes a key and certifies it.
    pub fn issue(&self, spec: &CertSpec) -> Result<KeyPairPem, PkiError> {
        let key = KeyPair::generate().map_err(failed("generate a key"))?;
        let params = params_of(spec)?;
        let cert = params.signed_by(&key, &self.issuer).map_err(failed("sign a certificate"))?;
        Ok(KeyPairPem { cert_pem: cert.pem(), key_pem: key.serialize_pem() })
    }
}

fn params_of(spec: &CertSpec) -> Result<CertificateParams, PkiError> {
    let mut params =
        CertificateParams::new(spec.dns_names.clone()).map_err(failed("read a host name"))?;
    params.distinguished_name.push(DnType::CommonName, spec.common_name.as_str());
    if let Some(organization) = &spec.organization {
        params.distinguished_name.push(DnType::OrganizationName, organization.as_str());
    }
    params.subject_alt_names.extend(spec.addresses.iter().map(|a| SanType::IpAddress(*a)));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages = match spec.usage {
        Usage::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
        Usage::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
        Usage::Both => {
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth]
        }
    };
    set_validity(&mut params, spec.life);
    Ok(params)
}

fn set_validity(params: &mut CertificateParams, life: Duration) {
    let now = std::time::SystemTime::now();
    params.not_before = (now - BACKDATE).into();
    params.not_after = (now + life).into();
}

/// Who a certificate is for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subject {
    /// A client's user name; blank when there is none. Of several, the last.
    pub common_name: String,
    /// A client's groups.
    pub organizations: Vec<String>,
    /// A client's user id: one at most in a certificate that is in order.
    pub uids: Vec<String>,
    /// When the certificate ends, in seconds since the epoch.
    pub expires: i64,
}

/// The attribute that holds a user id (`AllowParsingUserUIDFromCertAuth`).
const UID: &str = "1.3.6.1.4.1.57683.2";

/// The subject of a DER certificate. A name that is not text is an error: nobody may be taken for
/// another because part of a name was passed over.
pub fn subject_of(der: &[u8]) -> Result<Subject, PkiError> {
    let (_, cert) = X509Certificate::from_der(der).map_err(|e| PkiError::Parse(e.to_string()))?;
    let subject = cert.subject();
    let text = |a: &x509_parser::x509::AttributeTypeAndValue<'_>| {
        a.as_str().map(str::to_owned).map_err(|e| PkiError::Parse(e.to_string()))
    };
    let uids = subject.iter_attributes().filter(|a| a.attr_type().to_id_string() == UID);
    Ok(Subject {
        common_name: subject.iter_common_name().last().map_or(Ok(String::new()), text)?,
        organizations: subject.iter_organization().map(text).collect::<Result<_, _>>()?,
        uids: uids.map(text).collect::<Result<_, _>>()?,
        expires: cert.validity().not_after.timestamp(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_certificate_carries_user_and_groups() {
        let ca = Authority::create("kubernetes-ca").expect("a CA");
        let ca = Authority::load(ca.pem().clone()).expect("the same CA");
        let spec = CertSpec::client("system:node:n1", Some("system:nodes"));
        let issued = ca.issue(&spec).expect("issued");
        let (_, pem) = x509_parser::pem::parse_x509_pem(issued.cert_pem.as_bytes()).expect("PEM");
        let subject = subject_of(&pem.contents).expect("a subject");
        assert_eq!(subject.common_name, "system:node:n1");
        assert_eq!(subject.organizations, ["system:nodes"]);
        assert!(subject.uids.is_empty());
    }
}
