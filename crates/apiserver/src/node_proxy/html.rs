//! Proxied pages: links that begin at the root are led below the proxy's path.
//!
//! Only the values of attributes that hold addresses change; everything else of a page stays as it
//! was sent, byte for byte.

mod scan;

use std::io::Read;

use bytes::Bytes;
use flate2::Compression;
use futures::StreamExt;
use http::{HeaderMap, HeaderValue, Response, header};
use http_body_util::{BodyDataStream, BodyExt};

use resources::respond::{self, Body};

/// A longer page is passed on as it is: rewriting needs the whole in memory.
const PAGE_MAX: usize = 16 << 20;

/// Where links lead.
#[derive(Debug)]
pub(super) struct Links {
    /// The proxy's path, to be put before the page's.
    pub(super) prefix: String,
    /// Names of the place itself: its address, and what the client calls it.
    pub(super) hosts: [String; 2],
}

/// The answer with its links led through the proxy.
pub(super) async fn rewrite(response: Response<Body>, links: &Links) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    if let Some(location) = parts.headers.get(header::LOCATION).and_then(|l| l.to_str().ok()) {
        if let Ok(value) = HeaderValue::from_str(&links.lead(location)) {
            parts.headers.insert(header::LOCATION, value);
        }
        return Response::from_parts(parts, body);
    }
    let body = match Packing::of(&parts.headers) {
        Some(packing) => page(&mut parts.headers, packing, body, links).await,
        None => body,
    };
    Response::from_parts(parts, body)
}

/// How a page is compressed.
#[derive(Debug, Clone, Copy)]
enum Packing {
    Plain,
    Gzip,
    Deflate,
}

impl Packing {
    /// `None` for what is no page, or cannot be read.
    fn of(headers: &HeaderMap) -> Option<Packing> {
        let text = |name| headers.get(name).map_or(Some(""), |v: &HeaderValue| v.to_str().ok());
        let kind = text(header::CONTENT_TYPE)?.split(';').next()?.trim();
        match text(header::CONTENT_ENCODING)? {
            _ if !kind.eq_ignore_ascii_case("text/html") => None,
            "" => Some(Packing::Plain),
            "gzip" => Some(Packing::Gzip),
            "deflate" => Some(Packing::Deflate),
            _ => None,
        }
    }

    fn unpack(self, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        let limit = PAGE_MAX as u64 + 1;
        match self {
            Packing::Plain => return Some(bytes.to_vec()),
            Packing::Gzip => {
                flate2::read::MultiGzDecoder::new(bytes).take(limit).read_to_end(&mut out)
            }
            Packing::Deflate => {
                flate2::read::DeflateDecoder::new(bytes).take(limit).read_to_end(&mut out)
            }
        }
        .ok()?;
        (out.len() <= PAGE_MAX).then_some(out)
    }

    fn pack(self, page: Vec<u8>) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        match self {
            Packing::Plain => return Some(page),
            Packing::Gzip => {
                flate2::read::GzEncoder::new(&page[..], Compression::fast()).read_to_end(&mut out)
            }
            Packing::Deflate => flate2::read::DeflateEncoder::new(&page[..], Compression::fast())
                .read_to_end(&mut out),
        }
        .ok()?;
        Some(out)
    }
}

async fn page(headers: &mut HeaderMap, packing: Packing, mut body: Body, links: &Links) -> Body {
    let mut sent = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        sent.extend_from_slice(&frame.into_data().unwrap_or_default());
        if sent.len() > PAGE_MAX {
            let begun = futures::stream::iter([Ok(Bytes::from(sent))]);
            let all = begun.chain(BodyDataStream::new(body));
            let frames = all.map(|chunk| chunk.map(hyper::body::Frame::data));
            return respond::stream(http_body_util::StreamBody::new(frames));
        }
    }
    let led = packing.unpack(&sent).and_then(|page| packing.pack(links.lead_page(&page)));
    let Some(led) = led else { return respond::full(sent) };
    // An answer to HEAD has the length of a page it does not carry.
    if !sent.is_empty() {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(led.len()));
    }
    respond::full(led)
}

impl Links {
    /// One address as the client must ask for it; other places' and relative ones stay.
    fn lead(&self, url: &str) -> String {
        let unchanged = || url.to_owned();
        let (site, rest) = match url.find("//") {
            Some(at) if is_scheme(&url[..at]) => {
                let host = &url[at + 2..];
                let end = host.find(['/', '?', '#']).unwrap_or(host.len());
                (&url[..at + 2 + end], &host[end..])
            }
            _ => ("", url),
        };
        let host = site.rsplit("//").next().unwrap_or("");
        if !rest.starts_with('/') || !(site.is_empty() || self.hosts.iter().any(|h| h == host)) {
            return unchanged();
        }
        // What the client's own name for the server leads to keeps that name.
        let site = if !host.is_empty() && self.hosts[1] == host { site } else { "" };
        let end = rest.find(['?', '#']).unwrap_or(rest.len());
        let (path, tail) = rest.split_at(end);
        if path.starts_with(&self.prefix) {
            return format!("{site}{rest}");
        }
        format!("{site}{}{}{tail}", self.prefix, clean(path))
    }

    fn lead_page(&self, page: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(page.len() + page.len() / 8);
        let mut kept = 0;
        for value in scan::addresses(page) {
            let Ok(text) = std::str::from_utf8(&page[value.clone()]) else { continue };
            out.extend_from_slice(&page[kept..value.start]);
            out.extend_from_slice(self.lead(text).as_bytes());
            kept = value.end;
        }
        out.extend_from_slice(&page[kept..]);
        out
    }
}

/// Nothing, or a scheme with its colon: what may stand before `//`.
fn is_scheme(text: &str) -> bool {
    let Some(scheme) = text.strip_suffix(':') else { return text.is_empty() };
    !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
}

/// A path without `.`, `..` and doubled slashes.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            other => parts.push(other),
        }
    }
    let end = if path.ends_with('/') && !parts.is_empty() { "/" } else { "" };
    format!("/{}{end}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links() -> Links {
        Links {
            prefix: "/api/v1/namespaces/n/pods/p:80/proxy".into(),
            hosts: ["10.0.0.1:80".into(), "api.example:6443".into()],
        }
    }

    #[test]
    fn addresses_are_led_through_the_proxy() {
        let lead = |url: &str| links().lead(url).replace(&links().prefix, "PROXY");
        assert_eq!(lead("/a/b/?q=/c#d"), "PROXY/a/b/?q=/c#d");
        assert_eq!(lead("/"), "PROXY/");
        assert_eq!(lead("/../x//y"), "PROXY/x/y");
        assert_eq!(lead("http://10.0.0.1:80/a"), "PROXY/a");
        assert_eq!(lead("https://api.example:6443/a"), "https://api.example:6443PROXY/a");
        for other in ["a/b", "", "#x", "?q=/", "http://else.where/a", "//else.where/", "mailto:x"] {
            assert_eq!(lead(other), other);
        }
        let there = format!("{}/a", links().prefix);
        assert_eq!(links().lead(&there), there);
    }

    #[test]
    fn only_addresses_of_a_page_change() {
        let page = "<!-- <a href='/no'> --><p title=\"/no\" >1 < 2</p><A HREF='/yes?a&amp;b'>/no</A>\
            <img alt=x src=/yes/><script>var a = '<a href=\"/no\">';</script><a href = \"/yes\"\n/>";
        let led = links().lead_page(page.as_bytes());
        let led = String::from_utf8(led).expect("text");
        assert_eq!(led, page.replace("/yes", &format!("{}/yes", links().prefix)));
        // What ends too soon is left as it is.
        for broken in ["<a href=\"/x", "<a", "<", "<!-- <a href=\"/x\">", "<a href="] {
            assert_eq!(links().lead_page(broken.as_bytes()), broken.as_bytes());
        }
    }

    #[tokio::test]
    async fn compressed_pages_are_led_too() {
        let page = b"<a href=\"/x\">".to_vec();
        let packed = Packing::Gzip.pack(page).expect("packs");
        let mut response = Response::new(respond::full(packed));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        let response = rewrite(response, &links()).await;
        let length = response.headers()[header::CONTENT_LENGTH].clone();
        let body = response.into_body().collect().await.expect("never fails").to_bytes();
        assert_eq!(length, body.len().to_string().as_str());
        let page = Packing::Gzip.unpack(&body).expect("unpacks");
        assert_eq!(page, format!("<a href=\"{}/x\">", links().prefix).as_bytes());
    }
}
