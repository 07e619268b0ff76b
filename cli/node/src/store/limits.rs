//! Every limit of the state store, each checked before it is taken.

use std::time::Duration;

/// Longest key, bytes.
pub const KEY_BYTES_MAX: usize = 512;
/// Longest value, bytes. Under etcd's default request limit (1.5 MiB), so that records fit both backends.
pub const VALUE_BYTES_MAX: usize = 1 << 20;
/// Compares plus operations of one transaction; etcd's default is 128 operations.
pub const TXN_PARTS_MAX: usize = 120;
/// Instances of one cluster: joining writes each sibling's record in one transaction.
pub const MEMBERS_MAX: usize = 48;
/// How often a transaction is prepared again because another writer came first.
pub(super) const TXN_TRIES_MAX: u32 = 64;
/// Commits kept inside an instance's record, newest first; the records under `commits/` hold them all.
/// The list is nested, and JSON readers stop at a depth of about 128.
pub const SNAPSHOTS_IN_RECORD_MAX: usize = 64;
/// Longest instance name, bytes.
pub const NAME_BYTES_MAX: usize = 63;
/// How long a writer waits for another process's transaction.
pub(super) const BUSY_WAIT: Duration = Duration::from_secs(15);
/// How often a watch asks whether the revision has moved.
pub(super) const WATCH_POLL: Duration = Duration::from_millis(50);
/// Shortest and longest life of a lease.
pub(super) const LEASE_MIN: Duration = Duration::from_millis(1);
/// See [`LEASE_MIN`].
pub(super) const LEASE_MAX: Duration = Duration::from_secs(24 * 3600);
