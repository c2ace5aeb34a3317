//! Certificate signing requests: read, and certified by an authority.
//!
//! The certificate is encoded here, since it must carry the request's subject byte for byte: a group
//! that is lost or merged would make another user of the bearer.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rcgen::{KeyPair, SigningKey};
use ring::rand::{SecureRandom, SystemRandom};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::authority::{Authority, PkiError};

/// Certificates start in the past by this much, so that a clock that is behind accepts them.
const BACKDATE: SignedDuration = SignedDuration::from_mins(5);
/// Shorter lives are not shortened by the back-dating.
const SHORT: Duration = Duration::from_secs(8 * 3600);

fn parse(error: impl ToString) -> PkiError {
    PkiError::Parse(error.to_string())
}

/// A request whose signature shows that its sender has the key.
#[derive(Debug, Clone, Default)]
pub struct SigningRequest {
    /// The subject's name, DER.
    pub subject: Vec<u8>,
    /// The key's info, DER.
    pub public_key: Vec<u8>,
    /// The subject's last common name; blank when there is none.
    pub common_name: String,
    pub organizations: Vec<String>,
    pub dns_names: Vec<String>,
    /// Four or sixteen bytes each.
    pub addresses: Vec<Vec<u8>>,
    pub emails: Vec<String>,
    pub uris: Vec<String>,
}

impl SigningRequest {
    pub fn parse(pem: &[u8]) -> Result<SigningRequest, PkiError> {
        let (_, block) = parse_x509_pem(pem).map_err(parse)?;
        if block.label != "CERTIFICATE REQUEST" {
            return Err(parse("PEM block type must be CERTIFICATE REQUEST"));
        }
        let (_, request) = X509CertificationRequest::from_der(&block.contents).map_err(parse)?;
        request.verify_signature().map_err(parse)?;
        let info = &request.certification_request_info;
        let text = |a: &x509_parser::x509::AttributeTypeAndValue<'_>| {
            a.as_str().map(str::to_owned).map_err(parse)
        };
        let subject = &info.subject;
        let mut read = SigningRequest {
            subject: subject.as_raw().to_vec(),
            public_key: info.subject_pki.raw.to_vec(),
            common_name: subject.iter_common_name().last().map_or(Ok(String::new()), text)?,
            organizations: subject.iter_organization().map(text).collect::<Result<_, _>>()?,
            ..SigningRequest::default()
        };
        for extension in request.requested_extensions().into_iter().flatten() {
            if let ParsedExtension::SubjectAlternativeName(names) = extension {
                names.general_names.iter().for_each(|name| read.add(name));
            }
        }
        Ok(read)
    }

    /// Names of other types are not certified, as upstream's signers do not.
    fn add(&mut self, name: &GeneralName<'_>) {
        match name {
            GeneralName::DNSName(name) => self.dns_names.push((*name).to_owned()),
            GeneralName::IPAddress(address) => self.addresses.push(address.to_vec()),
            GeneralName::RFC822Name(name) => self.emails.push((*name).to_owned()),
            GeneralName::URI(name) => self.uris.push((*name).to_owned()),
            _ => {}
        }
    }

    fn alternative_names(&self) -> Option<Vec<u8>> {
        let mut names = Vec::new();
        let mut add = |tag: u8, value: &[u8]| names.extend(tlv(tag, value));
        self.dns_names.iter().for_each(|name| add(0x82, name.as_bytes()));
        self.emails.iter().for_each(|name| add(0x81, name.as_bytes()));
        self.addresses.iter().for_each(|address| add(0x87, address));
        self.uris.iter().for_each(|name| add(0x86, name.as_bytes()));
        (!names.is_empty()).then(|| tlv(0x30, &names))
    }
}

/// When the first certificate in a PEM text ends, in seconds since the epoch.
pub fn expires(pem: &[u8]) -> Option<i64> {
    let (_, block) = parse_x509_pem(pem).ok()?;
    let (_, certificate) = X509Certificate::from_der(&block.contents).ok()?;
    Some(certificate.validity().not_after.timestamp())
}

impl Authority {
    /// A certificate (PEM) for the request, for these usages (in the API's words), that ends after `life`
    /// or with the authority.
    pub fn certify(
        &self,
        request: &SigningRequest,
        usages: &[String],
        life: Duration,
    ) -> Result<String, PkiError> {
        let (_, block) = parse_x509_pem(self.pem().cert_pem.as_bytes()).map_err(parse)?;
        let (_, own) = X509Certificate::from_der(&block.contents).map_err(parse)?;
        let key = KeyPair::from_pem(&self.pem().key_pem).map_err(parse)?;
        let algorithm = signature_algorithm(&key)?;
        let (begins, ends) = validity(&own, life)?;
        let mut body = tlv(0xa0, &tlv(0x02, &[2]));
        body.extend(tlv(0x02, &serial()?));
        body.extend(&algorithm);
        body.extend(own.subject().as_raw());
        body.extend(tlv(0x30, &[time(begins), time(ends)].concat()));
        body.extend(&request.subject);
        body.extend(&request.public_key);
        body.extend(tlv(0xa3, &tlv(0x30, &extensions(request, usages, &own)?)));
        let body = tlv(0x30, &body);
        let signature = key.sign(&body).map_err(parse)?;
        let signature = tlv(0x03, &[&[0][..], &signature].concat());
        let der = tlv(0x30, &[body, algorithm, signature].concat());
        Ok(pem_of(&der))
    }
}

fn validity(own: &X509Certificate<'_>, life: Duration) -> Result<(Timestamp, Timestamp), PkiError> {
    let now = Timestamp::now();
    let last = Timestamp::from_second(own.validity().not_after.timestamp()).map_err(parse)?;
    if now >= last {
        return Err(parse(format!(
            "refusing to sign a certificate that expired in the past: NotAfter={last}"
        )));
    }
    let begins = now.checked_sub(BACKDATE).map_err(parse)?;
    let from = if life < SHORT { now } else { begins };
    let ends = from.checked_add(life).map_err(parse)?;
    Ok((begins, ends.min(last)))
}

/// A positive number nobody guesses.
fn serial() -> Result<[u8; 16], PkiError> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).map_err(parse)?;
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    Ok(bytes)
}

/// The signature algorithm's identifier, DER.
fn signature_algorithm(key: &KeyPair) -> Result<Vec<u8>, PkiError> {
    let ecdsa = |hash: u8| vec![0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, hash];
    let algorithm = key.algorithm();
    if algorithm == &rcgen::PKCS_ECDSA_P256_SHA256 {
        Ok(ecdsa(2))
    } else if algorithm == &rcgen::PKCS_ECDSA_P384_SHA384 {
        Ok(ecdsa(3))
    } else if algorithm == &rcgen::PKCS_ED25519 {
        Ok(vec![0x30, 5, 6, 3, 0x2b, 0x65, 0x70])
    } else if algorithm == &rcgen::PKCS_RSA_SHA256 {
        Ok(vec![0x30, 13, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 0x0b, 5, 0])
    } else {
        Err(parse("the authority's key is of an unknown kind"))
    }
}

fn extensions(
    request: &SigningRequest,
    usages: &[String],
    own: &X509Certificate<'_>,
) -> Result<Vec<u8>, PkiError> {
    let extension = |last: &[u8], critical: bool, value: &[u8]| {
        let mut content = tlv(0x06, last);
        if critical {
            content.extend([1, 1, 0xff]);
        }
        content.extend(tlv(0x04, value));
        tlv(0x30, &content)
    };
    let standard = |number: u8| [0x55, 0x1d, number];
    let (bits, purposes) = self::usages(usages)?;
    let mut all = Vec::new();
    if bits != 0 {
        all.extend(extension(&standard(15), true, &bit_string(bits)));
    }
    if !purposes.is_empty() {
        all.extend(extension(&standard(37), false, &tlv(0x30, &purposes)));
    }
    // Basic constraints: no authority.
    all.extend(extension(&standard(19), true, &tlv(0x30, &[])));
    let key_id = own.extensions().iter().find_map(|e| match e.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0),
        _ => None,
    });
    if let Some(id) = key_id {
        all.extend(extension(&standard(35), false, &tlv(0x30, &tlv(0x80, id))));
    }
    if let Some(names) = request.alternative_names() {
        // Without a subject they are all there is.
        let critical = request.subject == tlv(0x30, &[]);
        all.extend(extension(&standard(17), critical, &names));
    }
    Ok(all)
}

/// Key usage bits (bit 0 is the highest) and extended usages, DER.
fn usages(words: &[String]) -> Result<(u16, Vec<u8>), PkiError> {
    const PKIX: [u8; 7] = [0x2b, 6, 1, 5, 5, 7, 3];
    let (mut bits, mut purposes) = (0, Vec::new());
    for word in words {
        let bit = match word.as_str() {
            "signing" | "digital signature" => Some(0),
            "content commitment" => Some(1),
            "key encipherment" => Some(2),
            "data encipherment" => Some(3),
            "key agreement" => Some(4),
            "cert sign" => Some(5),
            "crl sign" => Some(6),
            "encipher only" => Some(7),
            "decipher only" => Some(8),
            _ => None,
        };
        if let Some(bit) = bit {
            bits |= 0x8000 >> bit;
            continue;
        }
        let purpose = match word.as_str() {
            "server auth" => [&PKIX[..], &[1]].concat(),
            "client auth" => [&PKIX[..], &[2]].concat(),
            "code signing" => [&PKIX[..], &[3]].concat(),
            "email protection" | "s/mime" => [&PKIX[..], &[4]].concat(),
            "ipsec end system" => [&PKIX[..], &[5]].concat(),
            "ipsec tunnel" => [&PKIX[..], &[6]].concat(),
            "ipsec user" => [&PKIX[..], &[7]].concat(),
            "timestamping" => [&PKIX[..], &[8]].concat(),
            "ocsp signing" => [&PKIX[..], &[9]].concat(),
            "any" => vec![0x55, 0x1d, 0x25, 0],
            "microsoft sgc" => vec![0x2b, 6, 1, 4, 1, 0x82, 0x37, 10, 3, 3],
            "netscape sgc" => vec![0x60, 0x86, 0x48, 1, 0x86, 0xf8, 0x42, 4, 1],
            _ => return Err(parse(format!("unrecognized usage: {word:?}"))),
        };
        purposes.extend(tlv(0x06, &purpose));
    }
    Ok((bits, purposes))
}

/// The shortest form, as DER asks for.
fn bit_string(bits: u16) -> Vec<u8> {
    let unused = bits.trailing_zeros() as u8;
    let bytes = bits.to_be_bytes();
    let content = match unused {
        0..8 => vec![unused, bytes[0], bytes[1]],
        _ => vec![unused - 8, bytes[0]],
    };
    tlv(0x03, &content)
}

/// `UTCTime` until 2049, `GeneralizedTime` after.
fn time(at: Timestamp) -> Vec<u8> {
    let utc = at.to_zoned(jiff::tz::TimeZone::UTC);
    match utc.year() {
        ..2050 => tlv(0x17, utc.strftime("%y%m%d%H%M%SZ").to_string().as_bytes()),
        _ => tlv(0x18, utc.strftime("%Y%m%d%H%M%SZ").to_string().as_bytes()),
    }
}

fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match content.len() {
        n @ ..128 => out.push(n as u8),
        n => {
            let bytes = n.to_be_bytes();
            let significant = &bytes[bytes.iter().take_while(|b| **b == 0).count()..];
            out.push(0x80 | significant.len() as u8);
            out.extend(significant);
        }
    }
    out.extend(content);
    out
}

fn pem_of(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines = text.as_bytes().chunks(64).map(String::from_utf8_lossy);
    let body = lines.map(|line| line.into_owned() + "\n").collect::<String>();
    format!("-----BEGIN CERTIFICATE-----\n{body}-----END CERTIFICATE-----\n")
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, SanType};
    use x509_parser::prelude::*;

    use super::*;

    fn request(names: &[&str]) -> (KeyPair, String) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "system:node:a");
        params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
        let dns = |n: &&str| SanType::DnsName((*n).try_into().expect("a name"));
        params.subject_alt_names = names.iter().map(dns).collect();
        let request = params.serialize_request(&key).expect("a request");
        let pem = request.pem().expect("PEM");
        (key, pem)
    }

    #[test]
    fn a_request_is_certified_as_it_stands() {
        let ca = Authority::create("kubernetes-ca").expect("a CA");
        let (_, pem) = request(&["a.example"]);
        let request = SigningRequest::parse(pem.as_bytes()).expect("a request");
        assert_eq!(request.common_name, "system:node:a");
        assert_eq!(
            (&request.organizations[..], &request.dns_names[..]),
            (&["system:nodes".to_owned()][..], &["a.example".to_owned()][..])
        );
        let usages = ["digital signature", "key encipherment", "client auth"].map(str::to_owned);
        let pem = ca.certify(&request, &usages, Duration::from_secs(3600)).expect("a certificate");
        let (_, block) = parse_x509_pem(pem.as_bytes()).expect("PEM");
        let (rest, cert) = X509Certificate::from_der(&block.contents).expect("DER");
        assert!(rest.is_empty());
        let (_, own) = parse_x509_pem(ca.pem().cert_pem.as_bytes()).expect("PEM");
        let own = own.parse_x509().expect("the CA");
        cert.verify_signature(Some(own.public_key())).expect("signed by the CA");
        assert_eq!(cert.subject().as_raw(), &request.subject[..]);
        let life = cert.validity().not_after.timestamp() - cert.validity().not_before.timestamp();
        assert_eq!(life, 3600 + 300);
        assert_eq!(expires(pem.as_bytes()), Some(cert.validity().not_after.timestamp()));
        let usage = cert.key_usage().expect("one").expect("a key usage").value;
        assert!(usage.digital_signature() && usage.key_encipherment() && !usage.key_cert_sign());
        let purposes = cert.extended_key_usage().expect("one").expect("purposes").value;
        assert!(purposes.client_auth && !purposes.server_auth);
        assert!(!cert.basic_constraints().expect("one").expect("constraints").value.ca);
        let names = cert.subject_alternative_name().expect("one").expect("names").value;
        assert_eq!(names.general_names, [GeneralName::DNSName("a.example")]);
    }

    #[test]
    fn a_request_of_somebody_else_is_refused() {
        let (_, pem) = request(&[]);
        let (_, block) = parse_x509_pem(pem.as_bytes()).expect("PEM");
        let mut der = block.contents.clone();
        let at = der.windows(6).position(|w| w == b"node:a").expect("the name") + 5;
        der[at] = b'b';
        let forged = pem_of(&der).replace("CERTIFICATE-----", "CERTIFICATE REQUEST-----");
        assert!(SigningRequest::parse(forged.as_bytes()).is_err());
        assert!(SigningRequest::parse(b"nonsense").is_err());
        let cert = Authority::create("x").expect("a CA").pem().cert_pem.clone();
        let error = SigningRequest::parse(cert.as_bytes()).expect_err("not a request");
        assert!(error.to_string().contains("PEM block type must be CERTIFICATE REQUEST"));
    }

    #[test]
    fn unknown_usages_are_refused() {
        assert!(usages(&["flying".to_owned()]).is_err());
        assert_eq!(bit_string(0x8000), [3, 2, 7, 0x80]);
        assert_eq!(bit_string(0xa000), [3, 2, 5, 0xa0]);
        assert_eq!(bit_string(0x0080), [3, 3, 7, 0, 0x80]);
    }
}
