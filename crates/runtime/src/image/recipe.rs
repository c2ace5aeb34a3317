//! A layer's stream without its files' content: what it takes to make the same bytes again.
//!
//! A layer is kept unpacked, and two archives of the same files need not be the same bytes. So the stream's
//! headers and padding are written down while it is unpacked; the content is in the files. A recipe
//! that does not fit (a name that comes twice) gives another digest, which whoever asks for the stream checks.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};

const BLOCK: usize = 512;
/// Bytes that are kept before they are written as one piece.
const PIECE: usize = 64 << 10;
const LITERAL: u8 = 0;
const CONTENT: u8 = 1;

/// Passes a tar stream on, and writes its recipe.
pub(super) struct Recorder<R, W> {
    inner: R,
    out: W,
    header: [u8; BLOCK],
    /// Bytes of the current header that have come.
    filled: usize,
    /// Bytes of a file's content that are still to come.
    content: u64,
    /// Bytes of something else that are still to come.
    other: u64,
    literal: Vec<u8>,
}

impl<R, W: Write> Recorder<R, W> {
    pub(super) fn new(inner: R, out: W) -> Self {
        let header = [0; BLOCK];
        Recorder { inner, out, header, filled: 0, content: 0, other: 0, literal: Vec::new() }
    }

    /// The recipe's writer, all written.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.literal.extend_from_slice(&self.header[..self.filled]);
        self.flush()?;
        Ok(self.out)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.literal.is_empty() {
            return Ok(());
        }
        let length = u32::try_from(self.literal.len()).map_err(io::Error::other)?;
        self.out.write_all(&[LITERAL])?;
        self.out.write_all(&length.to_le_bytes())?;
        self.out.write_all(&self.literal)?;
        self.literal.clear();
        Ok(())
    }

    fn follow(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let part = |left: u64| usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
            if self.content > 0 {
                let count = part(self.content);
                self.content -= count as u64;
                bytes = &bytes[count..];
            } else if self.other > 0 {
                let count = part(self.other);
                self.literal.extend_from_slice(&bytes[..count]);
                self.other -= count as u64;
                bytes = &bytes[count..];
            } else {
                let count = (BLOCK - self.filled).min(bytes.len());
                self.header[self.filled..self.filled + count].copy_from_slice(&bytes[..count]);
                self.filled += count;
                bytes = &bytes[count..];
                if self.filled == BLOCK {
                    self.entry()?;
                }
            }
            if self.literal.len() >= PIECE {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// A whole header has come.
    fn entry(&mut self) -> io::Result<()> {
        self.filled = 0;
        self.literal.extend_from_slice(&self.header);
        let header = tar::Header::from_byte_slice(&self.header);
        let size = header.entry_size().unwrap_or(0);
        let kind = header.entry_type();
        let padded = size.div_ceil(BLOCK as u64).saturating_mul(BLOCK as u64);
        if size == 0 || !(kind.is_file() || kind.is_contiguous()) {
            self.other = padded;
            return Ok(());
        }
        (self.content, self.other) = (size, padded - size);
        self.flush()?;
        self.out.write_all(&[CONTENT])?;
        self.out.write_all(&size.to_le_bytes())
    }
}

impl<R: Read, W: Write> Read for Recorder<R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.follow(&buffer[..count])?;
        Ok(count)
    }
}

/// Makes a stream of a recipe; `content` gives each file's bytes, in order.
fn replay(
    mut recipe: impl Read,
    out: &mut dyn Write,
    content: &mut dyn FnMut(u64, &mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let mut tag = [0u8];
    while recipe.read(&mut tag)? == 1 {
        if tag[0] == CONTENT {
            let mut size = [0u8; 8];
            recipe.read_exact(&mut size)?;
            content(u64::from_le_bytes(size), out)?;
            continue;
        }
        let mut length = [0u8; 4];
        recipe.read_exact(&mut length)?;
        let length = u64::from(u32::from_le_bytes(length));
        if io::copy(&mut (&mut recipe).take(length), out)? != length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

/// The names of the files whose content a stream holds, in order.
fn names(recipe: &Path) -> io::Result<Vec<PathBuf>> {
    let recipe = zstd::stream::read::Decoder::new(File::open(recipe)?)?;
    let (reader, writer) = io::pipe()?;
    std::thread::scope(|scope| {
        let writing = scope.spawn(move || {
            let mut writer = io::BufWriter::new(writer);
            let mut zeros =
                |size, out: &mut dyn Write| io::copy(&mut io::repeat(0).take(size), out).map(drop);
            replay(recipe, &mut writer, &mut zeros)?;
            writer.flush()
        });
        let mut found = Vec::new();
        let mut archive = tar::Archive::new(io::BufReader::new(reader));
        for entry in archive.entries()? {
            let entry = entry?;
            let kind = entry.header().entry_type();
            if (kind.is_file() || kind.is_contiguous()) && entry.header().entry_size()? > 0 {
                found.push(entry.path()?.into_owned());
            }
        }
        // What follows the archive's end is nobody's: the writer may find its reader gone.
        drop(archive);
        let _ = writing.join().expect("the writer does not panic");
        Ok(found)
    })
}

/// Writes the stream that a layer came in, from its recipe and its files.
pub(super) fn write_stream(recipe: &Path, files: &Path, out: &mut dyn Write) -> io::Result<()> {
    let names = names(recipe)?;
    let root = rustix::fs::open(files, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
    let mut names = names.into_iter();
    let mut content = |size: u64, out: &mut dyn Write| {
        let name = names.next().ok_or(io::ErrorKind::InvalidData)?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let file = File::from(crate::tree::open_resolved(&root, &name, flags, resolve)?);
        match io::copy(&mut file.take(size), out)? == size {
            true => Ok(()),
            false => Err(io::Error::other(format!("{} has become shorter", name.display()))),
        }
    };
    let recipe = zstd::stream::read::Decoder::new(File::open(recipe)?)?;
    replay(recipe, out, &mut content)
}
