//! ADD and COPY: what goes where.

pub(crate) mod glob;
pub(crate) mod owner;
mod packed;
pub(crate) mod root;
pub(crate) mod tree;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use dockerfile::Transfer;
use dockerfile::ignore::{Patterns, clean};
use rustix::fs::{AtFlags, FileType, Gid, Uid};

use crate::error::{Error, IoContext, Result};
use crate::mounted::{self, Upper};
use owner::ModeChange;
use root::Root;
use tree::{Copier, From};

/// Where files come from.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// A directory of this machine; its files become root's.
    Context(PathBuf),
    /// An image's layers, topmost first.
    Layers(Vec<PathBuf>),
}

/// One ADD or COPY, its variables replaced.
pub(crate) struct Job<'a> {
    pub(crate) transfer: &'a Transfer,
    pub(crate) is_add: bool,
    pub(crate) source: Source,
    pub(crate) ignore: &'a Patterns,
    /// The image so far, topmost first.
    pub(crate) layers: Vec<PathBuf>,
    pub(crate) workdir: String,
    /// An empty directory for all that is made on the way.
    pub(crate) scratch: PathBuf,
    /// Files fetched from URLs: the name in the image, and the file.
    pub(crate) fetched: Vec<(String, PathBuf)>,
}

impl Job<'_> {
    pub(crate) fn upper(&self) -> PathBuf {
        self.scratch.join("upper")
    }

    /// Makes the destination, and copies nothing: WORKDIR.
    pub(crate) fn make_directory(&self) -> Result<()> {
        self.run()
    }

    /// Does it; what changed is in `upper` then.
    pub(crate) fn run(&self) -> Result<()> {
        let place = |name: &str| {
            let path = self.scratch.join(name);
            fs::create_dir_all(&path).at("make", &path).map(|()| path)
        };
        let upper = Upper { files: place("upper")?, work: place("work")? };
        let (merged, source, empty) = (place("merged")?, place("source")?, place("empty")?);
        if let Some(top) = self.layers.first() {
            let mode = fs::metadata(top).at("inspect", top)?.permissions();
            fs::set_permissions(&upper.files, mode).at("open", &upper.files)?;
        }
        mounted::in_namespace(|| {
            // A linked layer does not depend on what lies below it.
            let layers: &[PathBuf] = if self.transfer.link { &[] } else { &self.layers };
            mounted::overlay(&merged, layers, Some(&upper), &empty)?;
            let from = match &self.source {
                Source::Context(dir) => dir.clone(),
                Source::Layers(layers) => {
                    mounted::overlay(&source, layers, None, &empty)?;
                    source.clone()
                }
            };
            let names = match self.transfer.link {
                true if !self.layers.is_empty() => {
                    let names = place("names")?;
                    mounted::overlay(&names, &self.layers, None, &empty)?;
                    names
                }
                _ => merged.clone(),
            };
            let to = Root::open(&merged).at("open", &merged)?;
            let names = Root::open(&names).at("open", &names)?;
            let from = Root::open(&from).at("open", &from)?;
            Work::new(self, &names)?.all(&from, &to)
        })
    }
}

struct Work<'a> {
    job: &'a Job<'a>,
    /// For what is made here, and for what comes from the context.
    owner: Option<(u32, u32)>,
    mode: Option<ModeChange>,
    exclude: Patterns,
    /// Cleaned and absolute.
    destination: String,
    is_directory: bool,
}

impl<'a> Work<'a> {
    fn new(job: &'a Job<'a>, names: &Root) -> Result<Work<'a>> {
        let transfer = job.transfer;
        let text = &transfer.destination;
        let absolute = match text.starts_with('/') {
            true => text.clone(),
            false => format!("{}/{text}", job.workdir),
        };
        let many = transfer.sources.len() + transfer.inline.len() + job.fetched.len() > 1;
        let ends = text.ends_with('/') || text.ends_with("/.") || text == ".";
        if many && !ends {
            let keyword = if job.is_add { "ADD" } else { "COPY" };
            return Err(Error::refused(format!(
                "When using {keyword} with more than one source file, the destination must be a directory and end with a /"
            ))
            .with_fix(format!("write {text}/")));
        }
        Ok(Work {
            job,
            owner: owner::owner(names, &transfer.chown)?,
            mode: ModeChange::parse(&transfer.chmod)?,
            exclude: Patterns::new(&transfer.exclude)?,
            destination: clean(&absolute),
            is_directory: ends,
        })
    }

    fn all(&self, from: &Root, to: &Root) -> Result<()> {
        let nothing = Patterns::default();
        let in_context = matches!(self.job.source, Source::Context(_));
        let ignore = if in_context { self.job.ignore } else { &nothing };
        let owner = self.owner.or(in_context.then_some((0, 0)));
        let mut copier = self.copier(owner, ignore, &self.exclude);
        for pattern in &self.job.transfer.sources {
            self.source(pattern, from, to, &mut copier)?;
        }
        for file in &self.job.transfer.inline {
            let path = self.job.scratch.join("inline");
            fs::write(&path, &file.content).at("write", &path)?;
            let mode = fs::Permissions::from_mode(0o644);
            fs::set_permissions(&path, mode).at("open", &path)?;
            self.own_file(&path, &file.name, to)?;
        }
        for (name, path) in &self.job.fetched {
            self.own_file(path, name, to)?;
        }
        let transfer = self.job.transfer;
        if transfer.sources.is_empty() && transfer.inline.is_empty() && self.job.fetched.is_empty()
        {
            self.make(to, &self.destination).at("make", &self.destination)?;
        }
        Ok(())
    }

    fn source(&self, pattern: &str, from: &Root, to: &Root, copier: &mut Copier<'_>) -> Result<()> {
        let (before, after) = match pattern.split_once("/./").filter(|_| self.job.transfer.parents)
        {
            Some((before, after)) => (clean(&format!("/{before}")), after),
            None => (String::new(), pattern),
        };
        let before = before.trim_matches('/');
        let path = clean(&format!("/{before}/{after}"));
        let found = glob::expand(from, &path)?;
        let context = matches!(self.job.source, Source::Context(_));
        let mut any = false;
        for path in &found {
            if context && !path.is_empty() && copier.ignore.excludes_all_below(path) {
                continue;
            }
            let stat = match from.stat(path) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                other => other.at("inspect", path)?,
            };
            let kind = FileType::from_raw_mode(stat.st_mode);
            if context && kind != FileType::Directory && copier.ignore.excludes(path) {
                continue;
            }
            any = true;
            let done = self.one(path, before, kind, from, to, copier);
            done.at("copy", format!("/{path}"))?;
        }
        // Patterns may fit nothing when something else is copied; a plain name must be there.
        let may_fit_nothing = glob::has_wildcards(pattern) && self.job.transfer.sources.len() > 1;
        if !any && !may_fit_nothing {
            let place = if context { "the build context" } else { "the source image" };
            return Err(Error::refused(format!("{pattern:?}: not found in {place}"))
                .with_fix("check the path, and .dockerignore"));
        }
        Ok(())
    }

    fn one(
        &self,
        path: &str,
        before: &str,
        kind: FileType,
        from: &Root,
        to: &Root,
        copier: &mut Copier<'_>,
    ) -> io::Result<()> {
        let name = path.rsplit('/').next().unwrap_or(path);
        if self.job.transfer.parents {
            let below = path.strip_prefix(before).unwrap_or(path).trim_matches('/');
            let parent = below.rsplit_once('/').map_or("", |(parent, _)| parent);
            let target = self.make(to, &format!("{}/{parent}", self.destination))?;
            if below.is_empty() {
                return copier.contents(&from.directory(path)?, &target, path, "", 0);
            }
            return self.resolved(path, kind, from, &target, name.as_ref(), copier, below);
        }
        if kind == FileType::Directory {
            let target = self.make(to, &self.destination)?;
            return copier.contents(&from.directory(path)?, &target, path, "", 0);
        }
        if self.job.is_add && self.unpacks(path, from)? {
            return self.unpack(path, from, to);
        }
        let (parent, name) = self.file_place(to, name);
        let target = self.make(to, &parent)?;
        let inner = path.rsplit('/').next().unwrap_or(path).to_owned();
        self.resolved(path, kind, from, &target, name.as_ref(), copier, &inner)
    }

    /// A source that is a link stands for what it leads to.
    #[allow(clippy::too_many_arguments, reason = "both ends of a copy, and its names in each")]
    fn resolved(
        &self,
        path: &str,
        kind: FileType,
        from: &Root,
        to: &OwnedFd,
        name: &OsStr,
        copier: &mut Copier<'_>,
        inner: &str,
    ) -> io::Result<()> {
        let (parent, last) = path.rsplit_once('/').unwrap_or(("", path));
        let dir = from.directory(parent)?;
        let stat = root::lstat(&dir, last.as_ref())?;
        let place =
            From { dir: &dir, name: last.as_ref(), path: path.to_owned(), inner: inner.to_owned() };
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink || kind == FileType::Directory
        {
            return copier.entry(&place, to, name, 0, false);
        }
        // The file behind the link, under the link's name.
        let copy = self.job.scratch.join("followed");
        fs::create_dir_all(&copy)?;
        let held = rustix::fs::open(
            &copy,
            rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY,
            rustix::fs::Mode::empty(),
        )?;
        let mut file = from.file(path)?;
        let meta = file.metadata()?;
        let target = copy.join("file");
        let _ = fs::remove_file(&target);
        io::copy(&mut file, &mut fs::File::create(&target)?)?;
        fs::set_permissions(&target, meta.permissions())?;
        std::os::unix::fs::chown(
            &target,
            Some(std::os::unix::fs::MetadataExt::uid(&meta)),
            Some(std::os::unix::fs::MetadataExt::gid(&meta)),
        )?;
        fs::File::options().write(true).open(&target)?.set_modified(meta.modified()?)?;
        let place = From {
            dir: &held,
            name: "file".as_ref(),
            path: path.to_owned(),
            inner: inner.to_owned(),
        };
        copier.entry(&place, to, name, 0, false)
    }

    /// The directory and the name that a file gets.
    fn file_place(&self, to: &Root, name: &str) -> (String, String) {
        let there = to
            .stat(&self.destination)
            .is_ok_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::Directory);
        if self.is_directory || there {
            return (self.destination.clone(), name.to_owned());
        }
        let (parent, name) = self.destination.rsplit_once('/').unwrap_or(("", &self.destination));
        (parent.to_owned(), name.to_owned())
    }

    /// A directory of the image; new ones get the owner that was asked for.
    fn make(&self, to: &Root, path: &str) -> io::Result<OwnedFd> {
        let (uid, gid) = self.owner.unwrap_or((0, 0));
        to.ensure(path, &mut |dir, name| {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            Ok(rustix::fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?)
        })
    }

    fn copier<'c>(
        &self,
        owner: Option<(u32, u32)>,
        ignore: &'c Patterns,
        exclude: &'c Patterns,
    ) -> Copier<'c> {
        Copier { owner, mode: self.mode.clone(), ignore, exclude, links: HashMap::new() }
    }

    /// A file of ours: a heredoc, or one that was fetched.
    fn own_file(&self, path: &Path, name: &str, to: &Root) -> Result<()> {
        let nothing = Patterns::default();
        let work = || -> io::Result<()> {
            let dir = path.parent().unwrap_or(Path::new("/"));
            let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
            let held = rustix::fs::open(dir, flags, rustix::fs::Mode::empty())?;
            let mut copier = self.copier(self.owner.or(Some((0, 0))), &nothing, &nothing);
            let (parent, name) = self.file_place(to, name);
            let target = self.make(to, &parent)?;
            let file = path.file_name().unwrap_or_default();
            let place = From { dir: &held, name: file, path: String::new(), inner: String::new() };
            copier.entry(&place, &target, name.as_ref(), 0, false)
        };
        work().at("copy to the image", name)
    }

    /// Whether ADD takes a file apart: an archive from the context, unless it is told not to.
    fn unpacks(&self, path: &str, from: &Root) -> io::Result<bool> {
        if self.job.transfer.unpack == Some(false) {
            return Ok(false);
        }
        let mut start = [0u8; 512];
        let mut file = from.file(path)?;
        let mut filled = 0;
        while filled < start.len() {
            match file.read(&mut start[filled..])? {
                0 => break,
                count => filled += count,
            }
        }
        let start = &start[..filled];
        Ok(packed::is_packed(start) || is_tar(start))
    }

    fn unpack(&self, path: &str, from: &Root, to: &Root) -> io::Result<()> {
        let dir = self.job.scratch.join("unpacked");
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir(&dir)?;
        let done = runtime::image::extract(packed::unpacked(from.file(path)?)?, &dir);
        if let Err(e) = done {
            // Packed, and no archive: it is a file like any other.
            if self.job.transfer.unpack.is_none() && !looks_like_archive(path) {
                return self.plain(path, from, to);
            }
            return Err(io::Error::other(e.chain()));
        }
        let nothing = Patterns::default();
        let mut copier = self.copier(self.owner, &nothing, &self.exclude);
        let target = self.make(to, &self.destination)?;
        let source = Root::open(&dir)?.directory("")?;
        copier.contents(&source, &target, "", "", 0)
    }

    fn plain(&self, path: &str, from: &Root, to: &Root) -> io::Result<()> {
        let nothing = Patterns::default();
        let mut copier = self.copier(self.owner.or(Some((0, 0))), &nothing, &nothing);
        let name = path.rsplit('/').next().unwrap_or(path);
        let (parent, name) = self.file_place(to, name);
        let target = self.make(to, &parent)?;
        self.resolved(path, FileType::RegularFile, from, &target, name.as_ref(), &mut copier, "")
    }
}

fn looks_like_archive(path: &str) -> bool {
    [".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tbz2", ".tar.xz", ".txz"]
        .iter()
        .any(|end| path.ends_with(end))
}

/// A tar header with a right checksum.
fn is_tar(block: &[u8]) -> bool {
    let Some(field) = block.get(148..156).filter(|_| block.len() == 512) else { return false };
    let text = String::from_utf8_lossy(field);
    let text = text.trim_matches(['\0', ' ']);
    let Ok(want) = u32::from_str_radix(text, 8) else { return false };
    let sum = |at: usize, byte: u8| u32::from(if (148..156).contains(&at) { b' ' } else { byte });
    block.iter().enumerate().map(|(at, byte)| sum(at, *byte)).sum::<u32>() == want
}
