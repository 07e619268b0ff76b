//! What can go wrong between a node and its state store.

use std::path::PathBuf;

use crate::error::{ApiError, ErrorCode};

/// A source of an error, whatever the backend.
pub type Source = Box<dyn std::error::Error + Send + Sync>;

/// An error of the state store. None of them says that a transaction was refused: refusals are typed outcomes.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store could not be asked; nothing was written.
    #[error("the state store could not {operation}")]
    Unavailable {
        /// What was asked of it.
        operation: &'static str,
        /// The backend's error.
        source: Source,
    },
    /// A write was sent and no answer came: it may or may not have been applied. Only a read can tell.
    #[error("the state store gave no answer to {operation}: whether it was written is not known")]
    Unknown {
        /// What was asked of it.
        operation: &'static str,
        /// The backend's error.
        source: Source,
    },
    /// Other writers came first every time. Nothing was written.
    #[error("the state store is too busy: {operation} was overtaken {tries} times")]
    Contended {
        /// What was tried.
        operation: &'static str,
        /// How often.
        tries: u32,
    },
    /// A key, value or transaction beyond a limit.
    #[error("{what} is {len}, the limit is {limit}")]
    Limit {
        /// What is too large.
        what: &'static str,
        /// Its size.
        len: u64,
        /// The most there may be.
        limit: u64,
    },
    /// A lease that has expired or was never granted.
    #[error("lease {lease} has expired")]
    LeaseExpired {
        /// Its number.
        lease: i64,
    },
    /// A record that should be there.
    #[error("the state store has no {key}")]
    Missing {
        /// Its key.
        key: String,
    },
    /// A record that does not parse.
    #[error("the record {key} is not readable")]
    Corrupt {
        /// Its key.
        key: String,
        /// Why.
        source: Source,
    },
    /// The store knows less than this node has already seen: it was restored from an older copy.
    #[error("the state store is behind this node: cluster {cluster_id} is at epoch {epoch}, this node has seen {seen}")]
    Behind {
        /// The cluster.
        cluster_id: String,
        /// The store's epoch of it.
        epoch: u64,
        /// The node's.
        seen: u64,
    },
    /// A store URL that is none of ours.
    #[error("{url:?} is not a state store: {reason}")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// SQLite's locks do not hold on a network filesystem.
    #[error("the state store {path} is on a network filesystem ({filesystem}), where its locks do not hold")]
    NetworkFilesystem {
        /// The file.
        path: PathBuf,
        /// Which kind.
        filesystem: &'static str,
    },
    /// The file can't be made or opened.
    #[error("the state store {path} can't be opened")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Source,
    },
}

/// What kind of error it is, for a caller that decides whether to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// Nothing was written; the same call may succeed later.
    Retryable,
    /// The write may have happened: read before deciding anything.
    Unknown,
    /// A record is damaged, or the store as a whole is older than what was seen.
    Corrupt,
    /// Beyond a limit.
    Limit,
    /// It will be refused again.
    Refused,
}

impl Error {
    /// Its kind.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Unavailable { .. } | Self::Contended { .. } => ErrorKind::Retryable,
            Self::Unknown { .. } => ErrorKind::Unknown,
            Self::Corrupt { .. } | Self::Behind { .. } => ErrorKind::Corrupt,
            Self::Limit { .. } => ErrorKind::Limit,
            Self::LeaseExpired { .. }
            | Self::Missing { .. }
            | Self::Url { .. }
            | Self::NetworkFilesystem { .. }
            | Self::Open { .. } => ErrorKind::Refused,
        }
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        let code = match &error {
            Error::Missing { .. } => ErrorCode::NotFound,
            Error::Limit { .. } | Error::Url { .. } => ErrorCode::BadRequest,
            Error::Corrupt { .. } => ErrorCode::Internal,
            _ => ErrorCode::Unavailable,
        };
        let mut api = Self::new(code, error.to_string());
        if let Some(source) = std::error::Error::source(&error) {
            api = api.cause(source);
        }
        match &error {
            Error::Unavailable { .. } | Error::Contended { .. } => api.remedy("try again"),
            Error::Unknown { .. } => api.remedy("ask for the state before trying again"),
            Error::Behind { .. } => api.remedy("bring back the store that this node knew, or enrol the node anew"),
            Error::NetworkFilesystem { .. } => api.remedy("put the file on a local disk"),
            _ => api,
        }
    }
}
