//! Leases: expiry on the clock that no one sets and that suspend does not stop, tied to one boot of the machine.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};

use super::unavailable;
use crate::store::error::Error;
use crate::store::kv::LeaseId;
use crate::store::limits::{LEASE_MAX, LEASE_MIN};

/// This moment, comparable with another only under the same boot id.
pub(super) struct Now {
    pub(super) boot_id: String,
    pub(super) ms: i64,
}

pub(super) fn now() -> Result<Now, Error> {
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_err(|source| Error::Unavailable { operation: "read this machine's boot id", source: source.into() })?;
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Ok(Now { boot_id: boot_id.trim().to_owned(), ms: time.tv_sec * 1000 + time.tv_nsec / 1_000_000 })
}

pub(super) fn grant(connection: &Connection, ttl: Duration) -> Result<LeaseId, Error> {
    let ttl_ms = i64::try_from(ttl.clamp(LEASE_MIN, LEASE_MAX).as_millis()).unwrap_or(i64::MAX);
    let now = now()?;
    connection
        .execute(
            "INSERT INTO lease(boot_id, ttl_ms, expires_ms) VALUES (?1, ?2, ?3)",
            params![now.boot_id, ttl_ms, now.ms.saturating_add(ttl_ms)],
        )
        .map_err(unavailable("grant a lease"))?;
    Ok(LeaseId(connection.last_insert_rowid()))
}

pub(super) fn keep_alive(connection: &Connection, lease: LeaseId) -> Result<Duration, Error> {
    let now = now()?;
    let ttl_ms: Option<i64> = connection
        .query_row(
            "UPDATE lease SET expires_ms = ttl_ms + ?3 WHERE id = ?1 AND boot_id = ?2 AND expires_ms > ?3 RETURNING ttl_ms",
            params![lease.0, now.boot_id, now.ms],
            |row| row.get(0),
        )
        .optional()
        .map_err(unavailable("keep a lease alive"))?;
    ttl_ms.map(from_ms).ok_or(Error::LeaseExpired { lease: lease.0 })
}

pub(super) fn time_left(connection: &Connection, lease: LeaseId) -> Result<Option<Duration>, Error> {
    let now = now()?;
    let left: Option<i64> = connection
        .query_row(
            "SELECT expires_ms - ?3 FROM lease WHERE id = ?1 AND boot_id = ?2 AND expires_ms > ?3",
            params![lease.0, now.boot_id, now.ms],
            |row| row.get(0),
        )
        .optional()
        .map_err(unavailable("read a lease"))?;
    Ok(left.map(from_ms))
}

pub(super) fn revoke(connection: &mut Connection, lease: LeaseId) -> Result<(), Error> {
    let mut work = || -> rusqlite::Result<()> {
        let txn = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        end(&txn, lease.0)?;
        txn.commit()
    };
    // Whether or not it was applied, revoking again is the right next step: not a decision, so not `Unknown`.
    work().map_err(unavailable("revoke a lease"))
}

/// Ends every lease that has expired. Inside a write transaction.
pub(super) fn sweep(connection: &Connection, now: &Now) -> rusqlite::Result<()> {
    let expired: Vec<i64> = connection
        .prepare_cached("SELECT id FROM lease WHERE boot_id <> ?1 OR expires_ms <= ?2")?
        .query_map(params![now.boot_id, now.ms], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    expired.into_iter().try_for_each(|lease| end(connection, lease))
}

/// True if a sweep would remove something.
pub(super) fn sweep_is_due(connection: &Connection, now: &Now) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM lease WHERE boot_id <> ?1 OR expires_ms <= ?2)")?
        .query_row(params![now.boot_id, now.ms], |row| row.get(0))
}

fn end(connection: &Connection, lease: i64) -> rusqlite::Result<()> {
    let held: bool = connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM kv WHERE lease = ?1)")?
        .query_row([lease], |row| row.get(0))?;
    if held {
        let revision = super::write::next_revision(connection)?;
        connection.execute(
            "UPDATE kv SET value = NULL, lease = NULL, mod_revision = ?2 WHERE lease = ?1",
            [lease, revision],
        )?;
    }
    connection.execute("DELETE FROM lease WHERE id = ?1", [lease])?;
    Ok(())
}

fn from_ms(ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}
