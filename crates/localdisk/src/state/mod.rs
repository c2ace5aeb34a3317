//! What is on disk:
//!
//! | path | content |
//! |---|---|
//! | `volumes/<id>/volume.json`, `disk.img` | a volume |
//! | `snapshots/<id>/snapshot.json`, `disk.img` | a snapshot |
//! | `groups/<id>/group.json` | snapshots that were made at one moment |
//! | `frozen/<id>` | the mount point of a file system that a snapshot has frozen |
//! | `making/<random>` | what is not whole yet, or is being deleted; emptied at the start |
//!
//! A directory is filled below `making`, synced, and renamed into place; it is deleted the other way round. So a
//! power loss leaves a volume or none.

mod durable;
mod records;

use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) use durable::{sync_directory, write};
pub(crate) use records::{Allocation, Group, Origin, Snapshot, Volume, id_of, is_id, now};

/// Name of the file that has a volume's bytes.
pub(crate) const DISK: &str = "disk.img";

/// What is kept in a folder of its own.
pub(crate) trait Record: Serialize + DeserializeOwned {
    /// Folder of all of them.
    const FOLDER: &str;
    /// Name of the record's file.
    const FILE: &str;
}

impl Record for Volume {
    const FOLDER: &str = "volumes";
    const FILE: &str = "volume.json";
}

impl Record for Snapshot {
    const FOLDER: &str = "snapshots";
    const FILE: &str = "snapshot.json";
}

impl Record for Group {
    const FOLDER: &str = "groups";
    const FILE: &str = "group.json";
}

#[derive(Debug)]
pub(crate) struct State {
    root: PathBuf,
}

impl State {
    pub(crate) fn open(root: &Path) -> io::Result<State> {
        let state = State { root: root.to_owned() };
        for folder in [Volume::FOLDER, Snapshot::FOLDER, Group::FOLDER, "frozen", "making"] {
            durable::make_directory(&root.join(folder))?;
        }
        for left in std::fs::read_dir(state.making())? {
            durable::remove(&left?.path())?;
        }
        Ok(state)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn making(&self) -> PathBuf {
        self.root.join("making")
    }

    pub(crate) fn frozen(&self) -> PathBuf {
        self.root.join("frozen")
    }

    pub(crate) fn directory<R: Record>(&self, id: &str) -> PathBuf {
        self.root.join(R::FOLDER).join(id)
    }

    pub(crate) fn disk<R: Record>(&self, id: &str) -> PathBuf {
        self.directory::<R>(id).join(DISK)
    }

    /// None when there is no such record. One that cannot be read is an error that names the file.
    pub(crate) fn get<R: Record>(&self, id: &str) -> io::Result<Option<R>> {
        match is_id(id) {
            true => durable::read(&self.directory::<R>(id).join(R::FILE)),
            false => Ok(None),
        }
    }

    /// Ids of all records, in order.
    pub(crate) fn ids<R: Record>(&self) -> io::Result<Vec<String>> {
        let mut ids = Vec::new();
        for entry in std::fs::read_dir(self.root.join(R::FOLDER))? {
            let name = entry?.file_name().into_string();
            ids.extend(name.ok().filter(|name| is_id(name)));
        }
        ids.sort();
        Ok(ids)
    }

    pub(crate) fn all<R: Record>(&self) -> io::Result<Vec<R>> {
        let mut all = Vec::new();
        for id in self.ids::<R>()? {
            // One that is being deleted is gone.
            all.extend(self.get(&id)?);
        }
        Ok(all)
    }

    /// A new directory that is not in place yet.
    pub(crate) fn begin(&self) -> io::Result<Unfinished> {
        let path = self.making().join(uuid::Uuid::new_v4().to_string());
        durable::make_directory(&path)?;
        Ok(Unfinished { path })
    }

    /// Puts a record, and what was made with it, in place.
    pub(crate) fn finish<R: Record>(
        &self,
        made: Unfinished,
        id: &str,
        record: &R,
    ) -> io::Result<()> {
        write(&made.path.join(R::FILE), record)?;
        std::fs::rename(&made.path, self.directory::<R>(id))?;
        sync_directory(&self.root.join(R::FOLDER))
    }

    /// Writes the record of what is in place.
    pub(crate) fn update<R: Record>(&self, id: &str, record: &R) -> io::Result<()> {
        write(&self.directory::<R>(id).join(R::FILE), record)
    }

    /// Deletes; what is not there is deleted already.
    pub(crate) fn delete<R: Record>(&self, id: &str) -> io::Result<()> {
        let doomed = self.making().join(uuid::Uuid::new_v4().to_string());
        match std::fs::rename(self.directory::<R>(id), &doomed) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            renamed => renamed?,
        }
        sync_directory(&self.root.join(R::FOLDER))?;
        durable::remove(&doomed)
    }
}

/// Goes away unless it is finished.
#[derive(Debug)]
pub(crate) struct Unfinished {
    path: PathBuf,
}

impl Unfinished {
    pub(crate) fn disk(&self) -> PathBuf {
        self.path.join(DISK)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Renamed when it was finished: then nothing is there.
        if let Err(error) = durable::remove(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "an unfinished volume was not removed");
        }
    }
}

#[cfg(test)]
mod tests;
