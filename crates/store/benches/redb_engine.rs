//! redb behind the store's trait: a copy-on-write B-tree with page checksums.

use std::path::Path;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use store::{Engine, EngineError, Record};

const OBJECTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("objects");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

pub(crate) struct RedbEngine {
    database: Database,
}

impl RedbEngine {
    pub(crate) fn open(folder: &Path) -> RedbEngine {
        std::fs::create_dir_all(folder).expect("a folder");
        let mut builder = Database::builder();
        // The state is in memory above.
        let database = builder.set_cache_size(8 << 20).create(folder.join("redb"));
        RedbEngine { database: database.expect("opens") }
    }
}

impl Engine for RedbEngine {
    fn load(&mut self, visit: &mut dyn FnMut(Record)) -> Result<u64, EngineError> {
        let read = self.database.begin_read().expect("reads");
        let Ok(objects) = read.open_table(OBJECTS) else { return Ok(0) };
        for entry in objects.iter().expect("reads") {
            let (key, value) = entry.expect("reads");
            let (revision, value) = value.value().split_at(8);
            let revision = u64::from_le_bytes(revision.try_into().expect("eight bytes"));
            visit(Record { key: key.value().into(), value: Some(value.to_vec()), revision });
        }
        let meta = read.open_table(META).expect("reads");
        Ok(meta.get("revision").expect("reads").map_or(0, |r| r.value()))
    }

    fn commit(&mut self, batch: &[Record]) -> Result<(), EngineError> {
        let write = self.database.begin_write().expect("begins");
        {
            let mut objects = write.open_table(OBJECTS).expect("opens");
            for record in batch {
                let key = record.key.as_str();
                match &record.value {
                    None => drop(objects.remove(key).expect("removes")),
                    Some(value) => {
                        let mut bytes = record.revision.to_le_bytes().to_vec();
                        bytes.extend_from_slice(value);
                        objects.insert(key, bytes.as_slice()).expect("inserts");
                    }
                }
            }
            let mut meta = write.open_table(META).expect("opens");
            let last = batch.last().map_or(0, |r| r.revision);
            meta.insert("revision", last).expect("inserts");
        }
        write.commit().expect("commits");
        Ok(())
    }
}
