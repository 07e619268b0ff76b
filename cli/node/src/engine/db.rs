//! `node.db`: what this node alone must know again after a crash. One row per instance and one per participant.

use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use form_proto::Record;
use rusqlite::{Connection, OptionalExtension, params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::instance::LocalInstance;
use super::work::WorkContext;
use crate::error::ApiError;

/// One connection; every write is durable when the call returns (`synchronous=FULL`).
#[derive(Clone)]
pub(crate) struct NodeDb {
    connection: Arc<Mutex<Connection>>,
}

/// A participant as it was left.
pub(crate) struct StoredParticipant {
    pub(crate) instance: String,
    pub(crate) record: Record,
    pub(crate) context: Option<WorkContext>,
}

impl NodeDb {
    pub(crate) fn open(path: &Path) -> Result<Self, ApiError> {
        // SQLite gives its other files the mode of the first.
        let file = std::fs::OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path);
        file.map_err(|e| ApiError::io("make", path, &e))?;
        let open = || -> rusqlite::Result<Connection> {
            let connection = Connection::open(path)?;
            connection.execute_batch(
                "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;
                 CREATE TABLE IF NOT EXISTS instances (id TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT;
                 CREATE TABLE IF NOT EXISTS participants
                   (instance TEXT PRIMARY KEY, record BLOB NOT NULL, context TEXT) STRICT;",
            )?;
            Ok(connection)
        };
        let connection = open().map_err(|e| ApiError::internal(&format!("open {}", path.display()), e))?;
        Ok(Self { connection: Arc::new(Mutex::new(connection)) })
    }

    fn with<T>(&self, doing: &str, f: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, ApiError> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        f(&connection).map_err(|e| ApiError::internal(doing, e))
    }

    pub(crate) fn put_instance(&self, instance: &LocalInstance) -> Result<(), ApiError> {
        let body = to_json(instance)?;
        self.with("write an instance's record", |c| {
            c.execute("INSERT OR REPLACE INTO instances VALUES (?1, ?2)", params![instance.instance_id, body]).map(drop)
        })
    }

    pub(crate) fn instance(&self, id: &str) -> Result<Option<LocalInstance>, ApiError> {
        let row = self.with("read an instance's record", |c| {
            c.query_row("SELECT body FROM instances WHERE id = ?1", [id], |r| r.get::<_, String>(0)).optional()
        })?;
        row.map(|body| from_json(&body)).transpose()
    }

    pub(crate) fn instances(&self) -> Result<Vec<LocalInstance>, ApiError> {
        let rows = self.with("read the instances", |c| {
            c.prepare("SELECT body FROM instances ORDER BY id")?
                .query_map([], |r| r.get(0))?
                .collect::<Result<Vec<String>, _>>()
        })?;
        rows.iter().map(|body| from_json(body)).collect()
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
            let row = params![instance, record.encode(), context];
            c.execute("INSERT OR REPLACE INTO participants VALUES (?1, ?2, ?3)", row).map(drop)
        })
    }

    pub(crate) fn participants(&self) -> Result<Vec<StoredParticipant>, ApiError> {
        let rows = self.with("read the participants", |c| {
            c.prepare("SELECT instance, record, context FROM participants")?
                .query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))?
                .collect::<Result<Vec<(String, Vec<u8>, Option<String>)>, _>>()
        })?;
        rows.into_iter()
            .map(|(instance, record, context)| {
                let record =
                    Record::decode(&record).map_err(|e| ApiError::internal("read a participant's record", e))?;
                let context = context.as_deref().map(from_json).transpose()?;
                Ok(StoredParticipant { instance, record, context })
            })
            .collect()
    }
}

fn to_json(value: &impl Serialize) -> Result<String, ApiError> {
    serde_json::to_string(value).map_err(|e| ApiError::internal("encode a record", e))
}

fn from_json<T: DeserializeOwned>(text: &str) -> Result<T, ApiError> {
    serde_json::from_str(text).map_err(|e| ApiError::internal("read a record of node.db", e))
}
