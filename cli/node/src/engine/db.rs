//! `node.db`: what this node alone must know again after a crash. One row per instance and one per participant.

use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use form_proto::Record;
use rusqlite::{Connection, OptionalExtension, params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::ballast::Ballast;
use super::instance::LocalInstance;
use super::layout::Layout;
use super::work::WorkContext;
use crate::error::{ApiError, ErrorCode};

/// One connection; every write is durable when the call returns (`synchronous=FULL`). Each row carries a hash of itself:
/// SQLite finds damage only where it breaks the tree, and a record that says something else is worse than none.
#[derive(Clone)]
pub(crate) struct NodeDb {
    connection: Arc<Mutex<Connection>>,
    ballast: Arc<Ballast>,
}

/// A participant as it was left.
pub(crate) struct StoredParticipant {
    pub(crate) instance: String,
    pub(crate) record: Record,
    pub(crate) context: Option<WorkContext>,
}

impl NodeDb {
    pub(crate) fn open(layout: &Layout) -> Result<Self, ApiError> {
        let path = &layout.db();
        // SQLite gives its other files the mode of the first.
        let file = std::fs::OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path);
        file.map_err(|e| ApiError::io("make", path, &e))?;
        let connection = open_file(path).map_err(|e| failed(&format!("open {}", path.display()), e))?;
        let check = connection.query_row("PRAGMA integrity_check(1)", [], |r| r.get::<_, String>(0));
        match check.map_err(|e| failed(&format!("check {}", path.display()), e))?.as_str() {
            "ok" => {}
            found => return Err(damaged("the file", found)),
        }
        let ballast = Ballast::new(&layout.ballast());
        if let Err(error) = ballast.take_on() {
            tracing::warn!(%error, "the disk is full: nothing is kept for node.db");
        }
        Ok(Self { connection: Arc::new(Mutex::new(connection)), ballast: Arc::new(ballast) })
    }

    /// Sees that what is promised from now on can be written down to its end.
    ///
    /// # Errors
    /// There is no space for it.
    pub(crate) fn keep_space(&self) -> Result<(), ApiError> {
        self.ballast.take_on().map_err(|e| {
            ApiError::new(ErrorCode::TargetUnfit, "there is no space for the node's own records")
                .cause(e)
                .remedy("free some space where that node's data directory is, then commit again")
        })
    }

    fn with<T>(&self, doing: &str, f: impl Fn(&Connection) -> rusqlite::Result<T>) -> Result<T, ApiError> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let mut done = f(&connection);
        let is_full = |e: &rusqlite::Error| e.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull);
        if done.as_ref().err().is_some_and(is_full) && self.ballast.drop_it().unwrap_or(false) {
            tracing::warn!(doing, "the disk is full: the space that was kept for this is used");
            done = f(&connection);
        }
        done.map_err(|e| failed(doing, e))
    }

    pub(crate) fn put_instance(&self, instance: &LocalInstance) -> Result<(), ApiError> {
        let body = to_json(instance)?;
        self.with("write an instance's record", |c| {
            let hash = row_hash([instance.instance_id.as_bytes(), body.as_bytes(), b""]);
            let row = params![instance.instance_id, body, hash];
            c.execute("INSERT OR REPLACE INTO instances VALUES (?1, ?2, ?3)", row).map(drop)
        })
    }

    pub(crate) fn instance(&self, id: &str) -> Result<Option<LocalInstance>, ApiError> {
        let row = self.with("read an instance's record", |c| {
            c.query_row("SELECT id, body, hash FROM instances WHERE id = ?1", [id], instance_row).optional()
        })?;
        row.map(instance_of).transpose()
    }

    pub(crate) fn instances(&self) -> Result<Vec<LocalInstance>, ApiError> {
        let rows = self.with("read the instances", |c| {
            c.prepare("SELECT id, body, hash FROM instances ORDER BY id")?
                .query_map([], instance_row)?
                .collect::<Result<Vec<_>, _>>()
        })?;
        rows.into_iter().map(instance_of).collect()
    }

    pub(crate) fn delete_instance(&self, id: &str) -> Result<(), ApiError> {
        self.with("delete an instance's record", |c| {
            c.execute("DELETE FROM participants WHERE instance = ?1", [id])?;
            c.execute("DELETE FROM instances WHERE id = ?1", [id]).map(drop)
        })
    }

    /// The record and what the effects need to go on from it, in one row: neither is ever without the other.
    pub(crate) fn put_participant(
        &self,
        instance: &str,
        record: &Record,
        context: Option<&WorkContext>,
    ) -> Result<(), ApiError> {
        let context = context.map(to_json).transpose()?;
        self.with("write a participant's record", |c| {
            let record = record.encode();
            let hash = row_hash([instance.as_bytes(), &record, context.as_deref().unwrap_or_default().as_bytes()]);
            let row = params![instance, record, context, hash];
            c.execute("INSERT OR REPLACE INTO participants VALUES (?1, ?2, ?3, ?4)", row).map(drop)
        })
    }

    pub(crate) fn participants(&self) -> Result<Vec<StoredParticipant>, ApiError> {
        let rows = self.with("read the participants", |c| {
            c.prepare("SELECT instance, record, context, hash FROM participants")?
                .query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?)))?
                .collect::<Result<Vec<(String, Vec<u8>, Option<String>, Vec<u8>)>, _>>()
        })?;
        rows.into_iter()
            .map(|(instance, record, context, hash)| {
                let text = context.as_deref().unwrap_or_default();
                if row_hash([instance.as_bytes(), &record, text.as_bytes()]) != hash {
                    return Err(damaged(&format!("the record of participant {instance}"), "its hash is another one"));
                }
                let record =
                    Record::decode(&record).map_err(|e| ApiError::internal("read a participant's record", e))?;
                let context = context.as_deref().map(from_json).transpose()?;
                Ok(StoredParticipant { instance, record, context })
            })
            .collect()
    }
}

/// Tables are made in a new file only: where they are missing from an old one, that is damage.
fn open_file(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.execute_batch("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;")?;
    if connection.query_row("PRAGMA user_version", [], |r| r.get::<_, i64>(0))? == 0 {
        connection.execute_batch(
            "BEGIN IMMEDIATE;
             CREATE TABLE instances (id TEXT PRIMARY KEY, body TEXT NOT NULL, hash BLOB NOT NULL) STRICT;
             CREATE TABLE participants
               (instance TEXT PRIMARY KEY, record BLOB NOT NULL, context TEXT, hash BLOB NOT NULL) STRICT;
             PRAGMA user_version = 1;
             COMMIT;",
        )?;
    }
    Ok(connection)
}

/// Id, body, hash.
type InstanceRow = (String, String, Vec<u8>);

fn instance_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<InstanceRow> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
}

fn instance_of((id, body, hash): InstanceRow) -> Result<LocalInstance, ApiError> {
    match row_hash([id.as_bytes(), body.as_bytes(), b""]) == hash {
        true => from_json(&body),
        false => Err(damaged(&format!("the record of instance {id}"), "its hash is another one")),
    }
}

/// BLAKE3 of a row's columns, each with its length.
fn row_hash(columns: [&[u8]; 3]) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new();
    for column in columns {
        hasher.update(&(column.len() as u64).to_le_bytes());
        hasher.update(column);
    }
    hasher.finalize().as_bytes().to_vec()
}

/// What node.db says can't be believed.
fn damaged(what: &str, cause: &str) -> ApiError {
    ApiError::internal(&format!("believe node.db: {what} is damaged"), cause)
        .remedy("its VMs run on, and their disks are whole: docs/operate.md, \"Damage\", says how to go on from them")
}

fn failed(doing: &str, error: rusqlite::Error) -> ApiError {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    match error.sqlite_error_code() {
        Some(DatabaseCorrupt | NotADatabase) => damaged("the file", &error.to_string()),
        _ => ApiError::internal(&format!("{doing} (node.db)"), error),
    }
}

fn to_json(value: &impl Serialize) -> Result<String, ApiError> {
    serde_json::to_string(value).map_err(|e| ApiError::internal("encode a record", e))
}

fn from_json<T: DeserializeOwned>(text: &str) -> Result<T, ApiError> {
    serde_json::from_str(text).map_err(|e| ApiError::internal("read a record of node.db", e))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use form_proto::{AttemptId, CommitId, Epoch, Step, Work};

    use super::*;

    type Read = (Vec<(String, Record, Option<WorkContext>)>, Vec<LocalInstance>);

    fn read(layout: &Layout) -> Result<Read, ApiError> {
        let db = NodeDb::open(layout)?;
        let participants = db.participants()?.into_iter().map(|p| (p.instance, p.record, p.context)).collect();
        Ok((participants, db.instances()?))
    }

    /// What is read is what was written, or an error that names the file: whichever bit of it is flipped.
    #[test]
    fn a_flipped_bit_is_found() {
        let dir = tempfile::tempdir().expect("tempdir");
        let layout = Layout::new(dir.path());
        let db = NodeDb::open(&layout).expect("open");
        for number in 0..3 {
            let work = Work { attempt: AttemptId([number; 16]), epoch: Epoch(7), commit: CommitId([number; 32]) };
            let record = Record { settled: None, work: Some((Step::Active, work)) };
            db.put_participant(&format!("{number:040}"), &record, None).expect("write");
        }
        drop(db);
        let written = read(&layout).expect("read");
        assert_eq!(written.0.len(), 3);
        let whole = std::fs::read(layout.db()).expect("read");
        let (mut found, mut harmless) = (0, 0);
        for (place, byte) in whole.iter().enumerate().step_by(17) {
            std::fs::write(layout.db(), &whole).expect("write");
            let flipped = [byte ^ (1 << (place % 8))];
            let file = std::fs::OpenOptions::new().write(true).open(layout.db()).expect("open");
            file.write_all_at(&flipped, place as u64).expect("flip");
            match read(&layout) {
                Ok(read) => {
                    assert!(read == written, "byte {place}: something else was read");
                    harmless += 1;
                }
                Err(error) => {
                    assert!(error.message.contains("node.db"), "byte {place}: {error:?}");
                    found += 1;
                }
            }
            for beside in ["-wal", "-shm"] {
                let _ = std::fs::remove_file(format!("{}{beside}", layout.db().display()));
            }
        }
        assert!(found > 0 && harmless > 0, "{found} found, {harmless} in what is not used");
    }
}
