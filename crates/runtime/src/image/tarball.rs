//! A directory in overlayfs' form as a layer's tar stream, the reverse of unpacking.
//!
//! The same tree gives the same bytes: names are sorted, and nothing but the files themselves (and the
//! times, which may be capped) goes in. Whiteouts become `.wh.` files again.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata};
use std::io::{self, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use tar::{Builder, EntryType, Header};

/// Directories nested deeper are no file system that a build makes on purpose.
const DEEPEST: usize = 256;
/// Bytes of one attribute, and of the list of their names: the kernel's numbers.
const ATTRIBUTE_MAX: usize = 64 << 10;

/// Which times files get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Times {
    #[default]
    AsTheyAre,
    /// Later ones become this one, in seconds since 1970.
    Capped(i64),
    /// All are this one.
    Fixed(i64),
}

/// Writes all below `root`; returns whether there was anything.
pub fn write_layer(root: &Path, out: impl Write, times: Times) -> io::Result<bool> {
    let mut builder = Builder::new(out);
    let mut writer = Writer { builder: &mut builder, times, links: HashMap::new(), any: false };
    writer.directory(root, Path::new(""), 0)?;
    let any = writer.any;
    builder.into_inner()?.flush()?;
    Ok(any)
}

struct Writer<'a, W: Write> {
    builder: &'a mut Builder<W>,
    times: Times,
    /// Files with several names, by device and inode: the name that was written first.
    links: HashMap<(u64, u64), PathBuf>,
    any: bool,
}

impl<W: Write> Writer<'_, W> {
    fn directory(&mut self, dir: &Path, name: &Path, depth: usize) -> io::Result<()> {
        if depth > DEEPEST {
            let what = format!("{} is nested deeper than {DEEPEST} directories", name.display());
            return Err(io::Error::other(what));
        }
        let mut names: Vec<OsString> =
            fs::read_dir(dir)?.map(|e| Ok(e?.file_name())).collect::<io::Result<_>>()?;
        names.sort();
        for entry in names {
            self.entry(&dir.join(&entry), &name.join(&entry), depth)?;
        }
        Ok(())
    }

    fn entry(&mut self, path: &Path, name: &Path, depth: usize) -> io::Result<()> {
        let meta = fs::symlink_metadata(path)?;
        let kind = meta.file_type();
        if kind.is_socket() {
            return Ok(());
        }
        self.any = true;
        if name.file_name().is_some_and(|n| n.as_bytes().starts_with(b".wh.")) {
            let what =
                format!("{} begins with .wh.: no image can hold such a name", name.display());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        if kind.is_char_device() && meta.rdev() == 0 {
            return self.whiteout(name);
        }
        let mut header = self.header(&meta);
        if kind.is_dir() {
            self.attributes(path)?;
            header.set_entry_type(EntryType::Directory);
            let mut with_slash = name.as_os_str().as_bytes().to_vec();
            with_slash.push(b'/');
            let with_slash = PathBuf::from(OsString::from_vec(with_slash));
            self.builder.append_data(&mut header, with_slash, io::empty())?;
            if is_opaque(path)? {
                let mut marker = marker();
                self.builder.append_data(&mut marker, name.join(".wh..wh..opq"), io::empty())?;
            }
            return self.directory(path, name, depth + 1);
        }
        if kind.is_symlink() {
            header.set_entry_type(EntryType::Symlink);
            header.set_mode(0o777);
            return self.builder.append_link(&mut header, name, fs::read_link(path)?);
        }
        if meta.nlink() > 1 {
            if let Some(first) = self.links.get(&(meta.dev(), meta.ino())) {
                header.set_entry_type(EntryType::Link);
                return self.builder.append_link(&mut header, name, first);
            }
            self.links.insert((meta.dev(), meta.ino()), name.to_owned());
        }
        self.attributes(path)?;
        if kind.is_file() {
            header.set_entry_type(EntryType::Regular);
            header.set_size(meta.len());
            return self.builder.append_data(&mut header, name, Exact::open(path, meta.len())?);
        }
        header.set_entry_type(match () {
            () if kind.is_fifo() => EntryType::Fifo,
            () if kind.is_block_device() => EntryType::Block,
            () => EntryType::Char,
        });
        header.set_device_major(libc::major(meta.rdev()))?;
        header.set_device_minor(libc::minor(meta.rdev()))?;
        self.builder.append_data(&mut header, name, io::empty())
    }

    fn whiteout(&mut self, name: &Path) -> io::Result<()> {
        let mut hidden = OsString::from(".wh.");
        hidden.push(name.file_name().unwrap_or_default());
        self.builder.append_data(&mut marker(), name.with_file_name(hidden), io::empty())
    }

    fn header(&self, meta: &Metadata) -> Header {
        let mut header = Header::new_gnu();
        let time = match self.times {
            Times::AsTheyAre => meta.mtime(),
            Times::Capped(latest) => meta.mtime().min(latest),
            Times::Fixed(time) => time,
        };
        header.set_mode(meta.mode() & 0o7777);
        header.set_uid(meta.uid().into());
        header.set_gid(meta.gid().into());
        header.set_mtime(u64::try_from(time).unwrap_or(0));
        header.set_size(0);
        header
    }

    /// Extended attributes, as a record before the file's own. Overlayfs' are not the image's.
    fn attributes(&mut self, path: &Path) -> io::Result<()> {
        let mut records = Vec::new();
        for key in attribute_names(path)? {
            let Some(text) = key.to_str().filter(|k| !k.starts_with("trusted.overlay.")) else {
                continue;
            };
            let mut value = vec![0u8; ATTRIBUTE_MAX];
            let length = rustix::fs::lgetxattr(path, text, &mut value)?;
            value.truncate(length);
            records.push((format!("SCHILY.xattr.{text}"), value));
        }
        if records.is_empty() {
            return Ok(());
        }
        self.builder.append_pax_extensions(records.iter().map(|(k, v)| (k.as_str(), v.as_slice())))
    }
}

/// A file that hides others: nothing of it but its name counts.
fn marker() -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(0);
    header
}

fn attribute_names(path: &Path) -> io::Result<Vec<OsString>> {
    let mut buffer = vec![0u8; ATTRIBUTE_MAX];
    let length = match rustix::fs::llistxattr(path, &mut buffer) {
        Err(rustix::io::Errno::NOTSUP) => 0,
        other => other?,
    };
    let names = buffer[..length].split(|b| *b == 0).filter(|n| !n.is_empty());
    let mut names: Vec<OsString> = names.map(|n| OsStr::from_bytes(n).to_owned()).collect();
    names.sort();
    Ok(names)
}

fn is_opaque(dir: &Path) -> io::Result<bool> {
    let mut value = [0u8; 8];
    match rustix::fs::lgetxattr(dir, "trusted.overlay.opaque", &mut value) {
        Ok(length) => Ok(&value[..length] == b"y"),
        Err(rustix::io::Errno::NODATA | rustix::io::Errno::NOTSUP | rustix::io::Errno::RANGE) => {
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

/// A file that has as many bytes as its header says, or is an error.
struct Exact {
    file: File,
    left: u64,
}

impl Exact {
    fn open(path: &Path, length: u64) -> io::Result<Exact> {
        Ok(Exact { file: File::open(path)?, left: length })
    }
}

impl io::Read for Exact {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let count = io::Read::read(&mut self.file, &mut buffer[..most])?;
        if count == 0 {
            return Err(io::Error::other("the file has become shorter"));
        }
        self.left -= count as u64;
        Ok(count)
    }
}
