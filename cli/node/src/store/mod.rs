//! What the cluster shares, and the only commit point.
//!
//! [`Kv`] is what a backend must do, [`Store`] the typed records above it. An attempt is decided by one transaction
//! on its one record: `commit` or `abort`, never both. An error of the store is never an outcome: after
//! [`ErrorKind::Unknown`] the outcome is read, and read again, until the store answers.

mod accounts;
mod clusters;
mod error;
mod instances;
mod keys;
mod kv;
mod limits;
mod nodes;
mod records;
mod sqlite;
mod transactions;
mod txn;
mod typed;

pub use accounts::{GrantBody, PutGrant};
pub use clusters::Join;
pub use error::{Error, ErrorKind, Source};
pub use instances::{CreateInstance, DeleteInstance, check_name, normal_id};
pub use kv::{Change, Compare, Entry, Expect, Kv, LeaseId, Listing, Op, TxnResult};
pub use limits::{KEY_BYTES_MAX, MEMBERS_MAX, NAME_BYTES_MAX, SNAPSHOTS_IN_RECORD_MAX, TXN_PARTS_MAX, VALUE_BYTES_MAX};
pub use records::{
    AttemptRecord, AttemptState, ClusterMember, ClusterRecord, CommitRecord, GrantRecord, InstallationRecord,
    InstanceAnnotations, InstanceCluster, InstanceMetadata, InstanceRecord, InstanceStatus, LockRecord, NodeRecord,
    Other, ParticipantRecord, RequestRecord, Snapshots,
};
pub use sqlite::SqliteKv;
pub use transactions::{Abort, Begin, BeginRequest, Commit, Confirm, Outcome, Refusal};
pub use typed::Store;
