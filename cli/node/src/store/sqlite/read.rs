//! Reads. SQLite in WAL mode gives each statement the newest committed state, so a read is linearizable.

use rusqlite::{Connection, OptionalExtension as _, Row, named_params};

use super::lease::now;
use super::unavailable;
use crate::store::error::Error;
use crate::store::kv::{Entry, LeaseId, Listing};

/// Rows that are there: not deleted, and not hanging on an expired lease.
const ALIVE: &str = "kv.value IS NOT NULL AND (kv.lease IS NULL OR EXISTS (SELECT 1 FROM lease
    WHERE lease.id = kv.lease AND lease.boot_id = :boot AND lease.expires_ms > :now))";

pub(super) fn get(connection: &Connection, key: &str) -> Result<Option<Entry>, Error> {
    let now = now()?;
    let query = || -> rusqlite::Result<Option<Entry>> {
        let sql = format!("SELECT key, value, mod_revision, lease FROM kv WHERE key = :key AND {ALIVE}");
        let mut statement = connection.prepare_cached(&sql)?;
        statement.query_row(named_params! {":key": key, ":boot": now.boot_id, ":now": now.ms}, entry).optional()
    };
    query().map_err(unavailable("read"))
}

pub(super) fn list(connection: &mut Connection, prefix: &str) -> Result<Listing, Error> {
    let now = now()?;
    let mut query = || -> rusqlite::Result<Listing> {
        // Entries and revision from one snapshot.
        let snapshot = connection.transaction()?;
        let revision = revision(&snapshot)?;
        let sql = format!(
            "SELECT key, value, mod_revision, lease FROM kv
             WHERE key >= :from AND key < :to AND {ALIVE} ORDER BY key"
        );
        let entries = snapshot
            .prepare_cached(&sql)?
            .query_map(
                named_params! {":from": prefix, ":to": prefix_end(prefix), ":boot": now.boot_id, ":now": now.ms},
                entry,
            )?
            .collect::<rusqlite::Result<_>>()?;
        Ok(Listing { entries, revision })
    };
    query().map_err(unavailable("list"))
}

pub(super) fn revision(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("SELECT value FROM revision")?.query_row([], |row| row.get(0))
}

/// The least string that is above every key with this prefix: keys are ASCII, U+10FFFF sorts above them all.
pub(super) fn prefix_end(prefix: &str) -> String {
    format!("{prefix}\u{10ffff}")
}

fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    Ok(Entry {
        key: row.get(0)?,
        value: row.get(1)?,
        mod_revision: row.get(2)?,
        lease: row.get::<_, Option<i64>>(3)?.map(LeaseId),
    })
}
