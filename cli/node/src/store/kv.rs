//! What is asked of a backend: etcd's shape, so that etcd fits behind it as it is.
//!
//! Every committed transaction that writes something gets the next revision; an entry remembers the revision that
//! wrote it. A key that hangs on a lease is gone once the lease has expired, before any later read or write.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;

use super::error::Error;

/// The number of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct LeaseId(pub i64);

/// A key and what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Printable ASCII.
    pub key: String,
    /// Opaque.
    pub value: Vec<u8>,
    /// The revision that wrote it.
    pub mod_revision: i64,
    /// The lease it hangs on.
    pub lease: Option<LeaseId>,
}

/// All entries under a prefix, by key, as of one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// In key order.
    pub entries: Vec<Entry>,
    /// A watch from here misses nothing.
    pub revision: i64,
}

/// What must hold of a key for a transaction to be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The key is not there.
    Absent,
    /// The key was last written by this revision.
    ModRevision(i64),
}

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    /// Of which key.
    pub key: String,
    /// What is expected.
    pub expect: Expect,
}

/// One write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Writes a key, and ties it to a lease or to none.
    Put {
        /// Which.
        key: String,
        /// What.
        value: Vec<u8>,
        /// It goes when this lease goes.
        lease: Option<LeaseId>,
    },
    /// Removes a key; removing what is not there is no error.
    Delete {
        /// Which.
        key: String,
    },
}

/// The answer to a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxnResult {
    /// Every condition held and every write was made durable; else nothing was written.
    pub succeeded: bool,
    /// The store's revision after it.
    pub revision: i64,
}

/// One key as a watch saw it. Changes between two looks may be folded into the last of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which.
    pub key: String,
    /// `None`: it is gone.
    pub value: Option<Vec<u8>>,
    /// The revision of this change.
    pub revision: i64,
}

/// A linearizable key-value store with transactions, leases and watches.
#[async_trait]
pub trait Kv: Send + Sync + 'static {
    /// The newest entry of a key.
    async fn get(&self, key: &str) -> Result<Option<Entry>, Error>;
    /// All entries whose keys begin with `prefix`.
    async fn list(&self, prefix: &str) -> Result<Listing, Error>;
    /// Applies all of `ops` if every condition holds, or nothing. [`Error::Unknown`] when it can't be told which.
    /// A key may stand in `ops` once.
    async fn txn(&self, compares: Vec<Compare>, ops: Vec<Op>) -> Result<TxnResult, Error>;
    /// A lease that lives for `ttl` unless kept alive.
    async fn grant(&self, ttl: Duration) -> Result<LeaseId, Error>;
    /// Lets it live for its whole `ttl` again, and says how long that is.
    async fn keep_alive(&self, lease: LeaseId) -> Result<Duration, Error>;
    /// How long it still lives; `None` once it has expired.
    async fn time_left(&self, lease: LeaseId) -> Result<Option<Duration>, Error>;
    /// Ends it now, and its keys with it. Ending what has ended is no error.
    async fn revoke(&self, lease: LeaseId) -> Result<(), Error>;
    /// Changes under `prefix` after a revision, in revision order, for ever. An error ends the stream.
    async fn watch(
        &self,
        prefix: &str,
        after_revision: i64,
    ) -> Result<BoxStream<'static, Result<Change, Error>>, Error>;
}
