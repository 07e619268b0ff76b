//! Transactions.

use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};

use super::{lease, read, unavailable};
use crate::store::error::Error;
use crate::store::kv::{Compare, Expect, LeaseId, Op, TxnResult};
use crate::store::limits::{KEY_BYTES_MAX, TXN_PARTS_MAX, VALUE_BYTES_MAX};

/// Checks a transaction against the limits before anything is done.
pub(super) fn check(compares: &[Compare], ops: &[Op]) -> Result<(), Error> {
    let within = |what, len: usize, limit: usize| {
        if len > limit { Err(Error::Limit { what, len: len as u64, limit: limit as u64 }) } else { Ok(()) }
    };
    within("the number of parts of a transaction", compares.len() + ops.len(), TXN_PARTS_MAX)?;
    for compare in compares {
        within("a key's length", compare.key.len(), KEY_BYTES_MAX)?;
    }
    for op in ops {
        match op {
            Op::Put { key, value, .. } => {
                within("a key's length", key.len(), KEY_BYTES_MAX)?;
                within("a record's length", value.len(), VALUE_BYTES_MAX)?;
            }
            Op::Delete { key } => within("a key's length", key.len(), KEY_BYTES_MAX)?,
        }
    }
    Ok(())
}

pub(super) fn txn(connection: &mut Connection, compares: &[Compare], ops: &[Op]) -> Result<TxnResult, Error> {
    const OPERATION: &str = "a transaction";
    let before = unavailable("begin a transaction");
    let now = lease::now()?;
    let txn = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(&before)?;
    lease::sweep(&txn, &now).map_err(&before)?;
    let mut succeeded = true;
    for compare in compares {
        succeeded &= holds(&txn, compare).map_err(&before)?;
    }
    if succeeded && !ops.is_empty() {
        let revision = next_revision(&txn).map_err(&before)?;
        for op in ops {
            apply(&txn, op, revision)?;
        }
    }
    let revision = read::revision(&txn).map_err(&before)?;
    // From here on an error may come after the bytes reached the disk.
    txn.commit().map_err(|source| Error::Unknown { operation: OPERATION, source: source.into() })?;
    Ok(TxnResult { succeeded, revision })
}

/// Counts the store's revision up. Inside a write transaction.
pub(super) fn next_revision(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("UPDATE revision SET value = value + 1 RETURNING value")?.query_row([], |row| row.get(0))
}

// Expired leases were swept: what has a value is there.
fn holds(connection: &Connection, compare: &Compare) -> rusqlite::Result<bool> {
    let found: Option<i64> = connection
        .prepare_cached("SELECT mod_revision FROM kv WHERE key = ?1 AND value IS NOT NULL")?
        .query_row([&compare.key], |row| row.get(0))
        .optional()?;
    Ok(match compare.expect {
        Expect::Absent => found.is_none(),
        Expect::ModRevision(revision) => found == Some(revision),
    })
}

fn apply(connection: &Connection, op: &Op, revision: i64) -> Result<(), Error> {
    let failed = unavailable("write");
    match op {
        Op::Put { key, value, lease } => {
            if let Some(LeaseId(lease)) = lease {
                // The sweep removed every expired one: a lease that is there is alive.
                let alive: bool = connection
                    .query_row("SELECT EXISTS (SELECT 1 FROM lease WHERE id = ?1)", [lease], |row| row.get(0))
                    .map_err(&failed)?;
                if !alive {
                    return Err(Error::LeaseExpired { lease: *lease });
                }
            }
            connection
                .prepare_cached(
                    "INSERT INTO kv(key, value, mod_revision, lease) VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT(key) DO UPDATE SET value = ?2, mod_revision = ?3, lease = ?4",
                )
                .and_then(|mut s| s.execute(params![key, value, revision, lease.map(|l| l.0)]))
                .map_err(&failed)?;
        }
        Op::Delete { key } => {
            connection
                .prepare_cached(
                    "UPDATE kv SET value = NULL, lease = NULL, mod_revision = ?2 WHERE key = ?1 AND value IS NOT NULL",
                )
                .and_then(|mut s| s.execute(params![key, revision]))
                .map_err(&failed)?;
        }
    }
    Ok(())
}
