//! Watches, by looking whether the revision has moved: other processes write the same file.

use std::collections::VecDeque;

use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use rusqlite::{Connection, TransactionBehavior, params};

use super::read::{prefix_end, revision};
use super::{SqliteKv, lease, unavailable};
use crate::store::error::Error;
use crate::store::kv::Change;
use crate::store::limits::WATCH_POLL;

struct Watch {
    kv: SqliteKv,
    prefix: String,
    seen: i64,
    ready: VecDeque<Change>,
    failed: bool,
}

pub(super) fn watch(kv: SqliteKv, prefix: String, after: i64) -> BoxStream<'static, Result<Change, Error>> {
    let start = Watch { kv, prefix, seen: after, ready: VecDeque::new(), failed: false };
    stream::unfold(start, |mut watch| async move {
        if watch.failed {
            return None;
        }
        loop {
            if let Some(change) = watch.ready.pop_front() {
                return Some((Ok(change), watch));
            }
            let (prefix, seen) = (watch.prefix.clone(), watch.seen);
            match watch.kv.with("watch", move |c| look(c, &prefix, seen)).await {
                Ok((now, changes)) => {
                    watch.seen = now;
                    watch.ready = changes.into();
                }
                Err(error) => {
                    watch.failed = true;
                    return Some((Err(error), watch));
                }
            }
            if watch.ready.is_empty() {
                tokio::time::sleep(WATCH_POLL).await;
            }
        }
    })
    .boxed()
}

fn look(connection: &mut Connection, prefix: &str, seen: i64) -> Result<(i64, Vec<Change>), Error> {
    let now = lease::now()?;
    let mut work = || -> rusqlite::Result<(i64, Vec<Change>)> {
        // An expired lease is a change too, and nobody may be writing just now.
        if lease::sweep_is_due(connection, &now)? {
            let txn = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            lease::sweep(&txn, &now)?;
            txn.commit()?;
        }
        let snapshot = connection.transaction()?;
        let newest = revision(&snapshot)?;
        if newest == seen {
            return Ok((seen, Vec::new()));
        }
        let changes = snapshot
            .prepare_cached(
                "SELECT key, value, mod_revision FROM kv
                 WHERE mod_revision > ?1 AND key >= ?2 AND key < ?3 ORDER BY mod_revision, key",
            )?
            .query_map(params![seen, prefix, prefix_end(prefix)], |row| {
                Ok(Change { key: row.get(0)?, value: row.get(1)?, revision: row.get(2)? })
            })?
            .collect::<rusqlite::Result<_>>()?;
        Ok((newest, changes))
    };
    work().map_err(unavailable("watch"))
}
