//! The yardstick: the same bytes appended to a plain file, one fdatasync a group. No checksums, no
//! compaction, and it can only be read back because nothing ever fails here.

use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::Path;

use store::{Engine, EngineError, Record};

pub(crate) struct RawEngine {
    file: File,
}

impl RawEngine {
    pub(crate) fn open(folder: &Path) -> RawEngine {
        std::fs::create_dir_all(folder).expect("a folder");
        let mut options = File::options();
        let file = options.create(true).read(true).append(true).open(folder.join("raw"));
        RawEngine { file: file.expect("a file") }
    }
}

fn number(reader: &mut impl Read) -> Option<u64> {
    let mut bytes = [0; 8];
    reader.read_exact(&mut bytes).ok().map(|()| u64::from_le_bytes(bytes))
}

fn bytes(reader: &mut impl Read) -> Option<Vec<u8>> {
    let mut bytes = vec![0; number(reader)? as usize];
    reader.read_exact(&mut bytes).ok().map(|()| bytes)
}

impl Engine for RawEngine {
    fn load(&mut self, visit: &mut dyn FnMut(Record)) -> Result<u64, EngineError> {
        let mut reader = BufReader::with_capacity(1 << 20, &self.file);
        let (mut live, mut last) = (std::collections::HashMap::new(), 0);
        while let Some(revision) = number(&mut reader) {
            let key = String::from_utf8(bytes(&mut reader).expect("whole")).expect("UTF-8");
            let value = bytes(&mut reader).expect("whole");
            live.insert(key.clone(), Record { key, value: Some(value), revision });
            last = revision;
        }
        live.into_values().for_each(visit);
        Ok(last)
    }

    fn commit(&mut self, batch: &[Record]) -> Result<(), EngineError> {
        let mut out = Vec::new();
        for record in batch {
            let value = record.value.as_deref().unwrap_or_default();
            out.extend_from_slice(&record.revision.to_le_bytes());
            out.extend_from_slice(&(record.key.len() as u64).to_le_bytes());
            out.extend_from_slice(record.key.as_bytes());
            out.extend_from_slice(&(value.len() as u64).to_le_bytes());
            out.extend_from_slice(value);
        }
        self.file.write_all(&out).expect("written");
        self.file.sync_data().expect("flushed");
        Ok(())
    }
}
