//! SQLite behind the store's trait: write-ahead log, flushed at every commit.

use std::path::Path;

use rusqlite::{Connection, params};
use store::{Engine, EngineError, Record};

pub(crate) struct SqliteEngine {
    connection: Connection,
}

impl SqliteEngine {
    pub(crate) fn open(folder: &Path) -> SqliteEngine {
        std::fs::create_dir_all(folder).expect("a folder");
        let connection = Connection::open(folder.join("sqlite")).expect("opens");
        connection
            .execute_batch(
                "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;
                 CREATE TABLE IF NOT EXISTS objects
                   (key TEXT PRIMARY KEY, revision INTEGER, value BLOB) WITHOUT ROWID;
                 CREATE TABLE IF NOT EXISTS meta (id INTEGER PRIMARY KEY, revision INTEGER);",
            )
            .expect("sets up");
        SqliteEngine { connection }
    }
}

impl Engine for SqliteEngine {
    fn load(&mut self, visit: &mut dyn FnMut(Record)) -> Result<u64, EngineError> {
        let mut all =
            self.connection.prepare("SELECT key, revision, value FROM objects").expect("SQL");
        let mut rows = all.query([]).expect("reads");
        while let Some(row) = rows.next().expect("reads") {
            let key = row.get(0).expect("a key");
            let (revision, value) = (row.get(1).expect("a revision"), row.get(2).expect("a value"));
            visit(Record { key, value: Some(value), revision });
        }
        let last = self.connection.query_row("SELECT revision FROM meta", [], |row| row.get(0));
        Ok(last.unwrap_or(0))
    }

    fn commit(&mut self, batch: &[Record]) -> Result<(), EngineError> {
        let write = self.connection.transaction().expect("begins");
        {
            let mut put = write
                .prepare_cached("INSERT OR REPLACE INTO objects VALUES (?1, ?2, ?3)")
                .expect("SQL");
            let mut delete =
                write.prepare_cached("DELETE FROM objects WHERE key = ?1").expect("SQL");
            for record in batch {
                match &record.value {
                    Some(value) => put.execute(params![record.key, record.revision, value]),
                    None => delete.execute([&record.key]),
                }
                .expect("writes");
            }
            let last = batch.last().map_or(0, |r| r.revision);
            write.execute("INSERT OR REPLACE INTO meta VALUES (1, ?1)", [last]).expect("writes");
        }
        write.commit().expect("commits");
        Ok(())
    }
}
