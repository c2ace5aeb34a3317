//! SPDY/3 header blocks: names and values, deflated with a shared dictionary and state.

use std::io;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::frame::bad;

/// Longest block after inflation.
const BLOCK_MAX: usize = 64 << 10;

pub(super) struct Inflater {
    zlib: Decompress,
}

impl Inflater {
    pub(super) fn new() -> io::Result<Inflater> {
        Ok(Inflater { zlib: Decompress::new(true) })
    }

    pub(super) fn block(&mut self, mut input: &[u8]) -> io::Result<Vec<(String, String)>> {
        let mut out: Vec<u8> = Vec::with_capacity(1024);
        loop {
            let (read, written) = (self.zlib.total_in(), self.zlib.total_out());
            if out.capacity() - out.len() < 512 {
                out.reserve(out.len().max(1024));
            }
            let result = self.zlib.decompress_vec(input, &mut out, FlushDecompress::Sync);
            let used = usize::try_from(self.zlib.total_in() - read).unwrap_or(input.len());
            input = input.get(used..).unwrap_or_default();
            match result {
                Err(e) if e.needs_dictionary().is_some() => {
                    self.zlib.set_dictionary(&dictionary()).map_err(|_| bad("dictionary"))?;
                    continue;
                }
                Err(_) => return Err(bad("headers do not inflate")),
                Ok(Status::StreamEnd) => break,
                Ok(_) => {}
            }
            if out.len() > BLOCK_MAX {
                return Err(bad("headers are too large"));
            }
            let stuck = used == 0 && self.zlib.total_out() == written;
            if (input.is_empty() && out.len() < out.capacity()) || stuck {
                break;
            }
        }
        pairs(&out).ok_or_else(|| bad("headers are malformed"))
    }
}

fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(number(rest)?).ok()?;
    let (text, after) = (rest.get(..length)?, rest.get(length..)?);
    *rest = after;
    Some(text)
}

fn number(rest: &mut &[u8]) -> Option<u32> {
    let value = u32::from_be_bytes(rest.get(..4)?.try_into().ok()?);
    *rest = &rest[4..];
    Some(value)
}

fn pairs(mut rest: &[u8]) -> Option<Vec<(String, String)>> {
    let count = number(&mut rest)?;
    let mut out = Vec::new();
    for _ in 0..count {
        let name = String::from_utf8(take(&mut rest)?.to_vec()).ok()?;
        let values = String::from_utf8(take(&mut rest)?.to_vec()).ok()?;
        // Several values of one name are joined by NUL.
        for value in values.split('\0') {
            out.push((name.clone(), value.to_owned()));
        }
    }
    Some(out)
}

pub(super) struct Deflater {
    zlib: Compress,
}

impl Deflater {
    pub(super) fn new() -> io::Result<Deflater> {
        let mut zlib = Compress::new(Compression::best(), true);
        zlib.set_dictionary(&dictionary()).map_err(|_| bad("dictionary"))?;
        Ok(Deflater { zlib })
    }

    pub(super) fn block(&mut self, headers: &[(&str, &str)]) -> io::Result<Vec<u8>> {
        let size = |n: usize| u32::try_from(n).map(u32::to_be_bytes).map_err(|_| bad("too long"));
        let mut plain = size(headers.len())?.to_vec();
        for (name, value) in headers {
            for text in [name, value] {
                plain.extend(size(text.len())?);
                plain.extend(text.as_bytes());
            }
        }
        let mut out = Vec::with_capacity(plain.len() + 64);
        let mut rest = plain.as_slice();
        loop {
            let before = self.zlib.total_in();
            self.zlib
                .compress_vec(rest, &mut out, FlushCompress::Sync)
                .map_err(|_| bad("headers do not deflate"))?;
            let used = usize::try_from(self.zlib.total_in() - before).unwrap_or(rest.len());
            rest = rest.get(used..).unwrap_or_default();
            if rest.is_empty() && out.len() < out.capacity() {
                return Ok(out);
            }
            out.reserve(256);
        }
    }
}

/// The words of the protocol's dictionary that are length-prefixed, in order.
const WORDS: &[&str] = &[
    "options",
    "head",
    "post",
    "put",
    "delete",
    "trace",
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "connection",
    "content-base",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-md5",
    "content-range",
    "content-type",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "location",
    "max-forwards",
    "pragma",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "retry-after",
    "server",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "method",
    "get",
    "status",
    "200 OK",
    "version",
    "HTTP/1.1",
    "url",
    "public",
    "set-cookie",
    "keep-alive",
    "origin",
];
/// The rest of it.
const TAIL: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

/// SPDY/3's dictionary (draft 3, section 2.6.10.1): the checksum is part of every session.
pub(super) fn dictionary() -> Vec<u8> {
    let mut out = Vec::with_capacity(1423);
    for word in WORDS {
        out.extend(u32::try_from(word.len()).expect("words are short").to_be_bytes());
        out.extend(word.as_bytes());
    }
    out.extend(TAIL.as_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dictionary_is_the_protocols() {
        let (mut a, mut b) = (1u32, 0u32);
        for byte in dictionary() {
            a = (a + u32::from(byte)) % 65521;
            b = (b + a) % 65521;
        }
        assert_eq!(dictionary().len(), 1423);
        // The DICTID every SPDY/3 header stream names.
        assert_eq!((b << 16) | a, 0xe3c6_a7c2);
    }

    #[test]
    fn blocks_share_their_state() {
        let (mut out, mut back) = (Deflater::new().unwrap(), Inflater::new().unwrap());
        for text in ["stdin", "stdout", "error"] {
            let block = out.block(&[("streamtype", text)]).unwrap();
            assert_eq!(back.block(&block).unwrap(), [("streamtype".into(), text.into())]);
        }
    }
}
