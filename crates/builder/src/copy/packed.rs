//! What an archive may be packed with, told by its first bytes. gzip and zstd are the image store's own business;
//! the two that no layer is packed with are unpacked here.

use std::io::{self, BufRead as _, BufReader, Read};

/// KiB that unpacking xz may take: `xz -9` needs 65 MiB.
const XZ_MEMORY: u32 = 128 << 10;

const BZIP2: &[u8] = b"BZh";
const XZ: &[u8] = b"\xfd7zXZ\0";
const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

pub(super) fn is_packed(start: &[u8]) -> bool {
    [BZIP2, XZ, GZIP, ZSTD].iter().any(|magic| start.starts_with(magic))
}

/// The stream without bzip2 or xz around it; others are left as they are.
pub(super) fn unpacked<'a>(stream: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut buffered = BufReader::new(stream);
    let start = buffered.fill_buf()?;
    if start.starts_with(BZIP2) {
        return Ok(Box::new(bzip2::bufread::MultiBzDecoder::new(buffered)));
    }
    if start.starts_with(XZ) {
        return Ok(Box::new(lzma_rust2::XzReader::new_mem_limit(buffered, true, XZ_MEMORY)));
    }
    Ok(Box::new(buffered))
}
