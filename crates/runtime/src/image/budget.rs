//! What a layer may cost before it is known to be what it says: its digest comes last.
//!
//! A few kilobytes decompress to any size, and an archive's own records (long names, extended headers)
//! are read into memory whole by the reader of archives. Limits are far above real images.

use std::io::{self, Read};

/// Bytes of one layer's files: the largest public layers (language models) have some 30 GiB.
pub(super) const MAX_BYTES: u64 = 256 << 30;
/// Entries of one layer: a whole distribution has a few hundred thousand.
pub(super) const MAX_ENTRIES: u64 = 4 << 20;
/// Layers of an image: overlayfs takes no more.
pub(crate) const MAX_LAYERS: usize = 500;
/// Bytes of a record that describes the next entry: attributes have at most 64 KiB each.
const MAX_RECORD: u64 = 1 << 20;
/// The window that a zstd stream may ask for, as a power of two: memory, for each layer that comes in.
/// Level 21 of 22 needs as much.
pub(super) const MAX_WINDOW_LOG: u32 = 26;

const BLOCK: usize = 512;

pub(super) fn exceeded(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the layer has {what}"))
}

/// Passes a tar stream on, and follows its headers: a record too large to be held is an error.
pub(super) struct Records<R> {
    inner: R,
    header: [u8; BLOCK],
    /// Bytes of the current header that have come.
    filled: usize,
    /// Bytes until the next header.
    skip: u64,
}

impl<R> Records<R> {
    pub(super) fn new(inner: R) -> Self {
        Records { inner, header: [0; BLOCK], filled: 0, skip: 0 }
    }

    fn follow(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let count = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
                self.skip -= count as u64;
                bytes = &bytes[count..];
                continue;
            }
            let count = (BLOCK - self.filled).min(bytes.len());
            self.header[self.filled..self.filled + count].copy_from_slice(&bytes[..count]);
            self.filled += count;
            bytes = &bytes[count..];
            if self.filled == BLOCK {
                self.filled = 0;
                self.skip = content(&self.header)?;
            }
        }
        Ok(())
    }
}

/// The padded bytes that follow a header.
fn content(header: &[u8; BLOCK]) -> io::Result<u64> {
    let header = tar::Header::from_byte_slice(header);
    // An archive ends with zeros; anything else that is no header is for the reader to refuse.
    let Ok(size) = header.entry_size() else { return Ok(0) };
    let kind = header.entry_type();
    let record = kind.is_gnu_longname()
        || kind.is_gnu_longlink()
        || kind.is_pax_local_extensions()
        || kind.is_pax_global_extensions();
    if record && size > MAX_RECORD {
        return Err(exceeded("a name or attributes of more than 1 MiB"));
    }
    Ok(size.div_ceil(BLOCK as u64).saturating_mul(BLOCK as u64))
}

impl<R: Read> Read for Records<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.follow(&buffer[..count])?;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::image::unpack::unpack;

    /// Zeros without end behind a header, as a registry could send them in a few compressed bytes.
    fn endless(kind: tar::EntryType, size: u64) -> impl Read {
        let mut header = tar::Header::new_gnu();
        header.set_path("x").unwrap();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_cksum();
        io::Cursor::new(header.as_bytes().to_vec()).chain(io::repeat(b'x'))
    }

    #[test]
    fn records_are_not_read_into_memory_without_end() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        use tar::EntryType as E;
        for kind in [E::GNULongName, E::GNULongLink, E::XHeader, E::XGlobalHeader] {
            let error = unpack(endless(kind, 1 << 40), dir.path()).unwrap_err();
            assert!(error.to_string().contains("more than 1 MiB"), "{error}");
        }
    }

    #[test]
    fn files_end_at_their_limit() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let limits = crate::image::unpack::Limits { bytes: 1 << 20, entries: 4 };
        let run = |stream: Box<dyn Read>| {
            crate::image::unpack::unpack_within(stream, dir.path(), limits).unwrap_err().to_string()
        };
        let text = run(Box::new(endless(tar::EntryType::Regular, 1 << 40)));
        assert!(text.contains("more than"), "{text}");
        let mut many = tar::Builder::new(Vec::new());
        for n in 0..5 {
            let mut header = tar::Header::new_gnu();
            header.set_size(0);
            header.set_mode(0o644);
            header.set_uid(0);
            header.set_gid(0);
            many.append_data(&mut header, format!("f{n}"), io::empty()).unwrap();
        }
        let mut bytes = many.into_inner().unwrap();
        bytes.flush().unwrap();
        let text = run(Box::new(io::Cursor::new(bytes)));
        assert!(text.contains("entries"), "{text}");
    }
}
