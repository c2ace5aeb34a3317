//! Looks through fjall's journals before fjall opens them.
//!
//! At the first entry it cannot decode, fjall takes the rest for a torn last batch and cuts it off
//! without a word. That is right after a crash, and wrong when acknowledged batches follow: then
//! the file is damaged, and opening it would lose them for good. So: after the last readable batch
//! no complete batch may follow. What fjall itself checks (checksums) is left to it.
//!
//! Not complete: a flipped byte in a well-formed entry can still lose writes unnoticed (the ignored
//! test in `tests/it/damage.rs` shows one).

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

/// Ends every complete batch in fjall 3's journal; cannot occur in the JSON of a value.
const TRAILER: &[u8; 4] = b"FJL\x03";
/// Entry tags and the length of what follows them.
const START: (u8, u64) = (1, 12);
const ITEM: (u8, u64) = (2, 20);
const END: (u8, u64) = (3, 12);
const CLEAR: (u8, u64) = (4, 8);

/// Refuses journals with a complete batch behind an unreadable place. A folder that is not there
/// has nothing to check.
pub(crate) fn check(folder: &Path) -> Result<(), String> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(format!("{e}; give this user access to the folder")),
    };
    for entry in entries {
        let path = entry.map_err(|e| e.to_string())?.path();
        if path.extension().is_some_and(|e| e == "jnl") {
            check_file(&path).map_err(|e| format!("journal {}: {e}", path.display()))?;
        }
    }
    Ok(())
}

fn check_file(path: &Path) -> Result<(), String> {
    let file = File::open(path).map_err(|e| e.to_string())?;
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let mut good = 0;
    loop {
        match batch(&mut reader, good) {
            Ok(end) => good = end,
            Err(e) if e.kind() == io::ErrorKind::InvalidData => break,
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => break,
            Err(e) => return Err(e.to_string()),
        }
    }
    let behind = trailer_behind(path, good).map_err(|e| e.to_string())?;
    match behind {
        false => Ok(()),
        true => Err(format!(
            "damaged after byte {good}, with committed writes behind it; nothing was changed; \
             restore the folder from a copy, or move the journal away to give up those writes"
        )),
    }
}

/// Reads one batch from `at`; where it ends.
fn batch(reader: &mut impl BufRead, at: u64) -> io::Result<u64> {
    let mut at = at;
    let mut inside = false;
    loop {
        let mut tag = [0; 1];
        reader.read_exact(&mut tag)?;
        let (known, length) = [START, ITEM, END, CLEAR]
            .into_iter()
            .find(|(known, _)| *known == tag[0])
            .ok_or(io::ErrorKind::InvalidData)?;
        if inside == (known == START.0) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        inside = true;
        let mut body = [0; 20];
        let body = &mut body[..length as usize];
        reader.read_exact(body)?;
        at += 1 + length;
        if known == END.0 {
            let complete = &body[8..] == TRAILER;
            return if complete { Ok(at) } else { Err(io::ErrorKind::InvalidData.into()) };
        }
        if known == ITEM.0 {
            // Uncompressed, so both lengths agree; fjall would stop the process over it.
            if body[12..16] != body[16..20] {
                return Err(io::ErrorKind::InvalidData.into());
            }
            at += skip(reader, payload(body))?;
        }
    }
}

/// Bytes of key and value behind an item's head: type, compression, keyspace (8), key length (2),
/// value length (4), value length on disk (4), little-endian.
fn payload(head: &[u8]) -> u64 {
    let key = u16::from_le_bytes([head[10], head[11]]);
    let value = u32::from_le_bytes([head[16], head[17], head[18], head[19]]);
    u64::from(key) + u64::from(value)
}

fn skip(reader: &mut impl BufRead, count: u64) -> io::Result<u64> {
    let skipped = io::copy(&mut reader.take(count), &mut io::sink())?;
    if skipped < count { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(count) }
}

/// Whether a batch's end lies anywhere after `from`.
fn trailer_behind(path: &Path, from: u64) -> io::Result<bool> {
    let mut reader = BufReader::new(File::open(path)?);
    io::Seek::seek(&mut reader, io::SeekFrom::Start(from))?;
    let mut last = [0u8; 4];
    loop {
        let chunk = reader.fill_buf()?;
        if chunk.is_empty() {
            return Ok(false);
        }
        for byte in chunk {
            last = [last[1], last[2], last[3], *byte];
            if &last == TRAILER {
                return Ok(true);
            }
        }
        let read = chunk.len();
        reader.consume(read);
    }
}
