//! The embedded backend: one SQLite file that several processes of one machine share.
//!
//! WAL with `synchronous=FULL`: a transaction that was answered survives power loss. Writers take their turn through
//! `BEGIN IMMEDIATE`. All calls run on blocking threads.

mod lease;
mod open;
mod read;
mod watch;
mod write;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use rusqlite::Connection;

use super::error::Error;
use super::kv::{Change, Compare, Entry, Kv, LeaseId, Listing, Op, TxnResult};

/// A [`Kv`] in a file. Cheap to clone; clones share one connection.
#[derive(Clone, Debug)]
pub struct SqliteKv {
    path: PathBuf,
    connection: Arc<Mutex<Connection>>,
}

impl SqliteKv {
    /// Opens the file, or makes it (0600, in a directory of 0700 when that is new too).
    pub async fn open(path: &Path) -> Result<Self, Error> {
        let path = path.to_owned();
        blocking("be opened", move || {
            let connection = open::open(&path)?;
            Ok(Self { path, connection: Arc::new(Mutex::new(connection)) })
        })
        .await
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `work` with the connection on a blocking thread.
    async fn with<T, F>(&self, operation: &'static str, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> Result<T, Error> + Send + 'static,
    {
        let connection = Arc::clone(&self.connection);
        blocking(operation, move || {
            // A panic inside a transaction has rolled it back: the connection itself is whole.
            let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            work(&mut connection)
        })
        .await
    }
}

async fn blocking<T, F>(operation: &'static str, work: F) -> Result<T, Error>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, Error> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        // The thread may have died on either side of the commit.
        Err(error) => Err(Error::Unknown { operation, source: error.into() }),
    }
}

/// An error before anything could have been written.
fn unavailable(operation: &'static str) -> impl Fn(rusqlite::Error) -> Error {
    move |source| Error::Unavailable { operation, source: source.into() }
}

#[async_trait]
impl Kv for SqliteKv {
    async fn get(&self, key: &str) -> Result<Option<Entry>, Error> {
        let key = key.to_owned();
        self.with("read", move |c| read::get(c, &key)).await
    }

    async fn list(&self, prefix: &str) -> Result<Listing, Error> {
        let prefix = prefix.to_owned();
        self.with("list", move |c| read::list(c, &prefix)).await
    }

    async fn txn(&self, compares: Vec<Compare>, ops: Vec<Op>) -> Result<TxnResult, Error> {
        write::check(&compares, &ops)?;
        self.with("a transaction", move |c| write::txn(c, &compares, &ops)).await
    }

    async fn grant(&self, ttl: Duration) -> Result<LeaseId, Error> {
        self.with("grant a lease", move |c| lease::grant(c, ttl)).await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<Duration, Error> {
        self.with("keep a lease alive", move |c| lease::keep_alive(c, lease)).await
    }

    async fn time_left(&self, lease: LeaseId) -> Result<Option<Duration>, Error> {
        self.with("read a lease", move |c| lease::time_left(c, lease)).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), Error> {
        self.with("revoke a lease", move |c| lease::revoke(c, lease)).await
    }

    async fn watch(
        &self,
        prefix: &str,
        after_revision: i64,
    ) -> Result<BoxStream<'static, Result<Change, Error>>, Error> {
        Ok(watch::watch(self.clone(), prefix.to_owned(), after_revision))
    }
}
