//! The one error a user of a node meets: a stable code, what happened, why, and what to do.

use serde::{Deserialize, Serialize};

/// Stable names; the command line maps each to an exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The request is not well formed, or asks for two things at once.
    BadRequest,
    /// A key, mnemonic or signature is malformed.
    BadKey,
    /// No such instance, attempt or node.
    NotFound,
    /// The signer has no right to do this.
    NotAllowed,
    /// The request is older, or newer, than a node accepts.
    StaleRequest,
    /// The very same request was made before.
    ReplayedRequest,
    /// Another commit won, or is still under way.
    Conflict,
    /// The instance is not in a state in which this can be done.
    WrongState,
    /// A target can't be reached.
    TargetUnavailable,
    /// A target can't take the commit: space, VMM version, CPU.
    TargetUnfit,
    /// The attempt failed and was undone.
    Aborted,
    /// The node or its state store can't be reached.
    Unavailable,
    /// Something the host should have is not installed.
    MissingDependency,
    /// Asked for what this version can't do.
    Unsupported,
    /// A fault of ours.
    Internal,
}

/// What a request gets instead of its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// Stable, for machines.
    pub code: ErrorCode,
    /// What happened, naming the object.
    pub message: String,
    /// Why, where it is known and is not the message again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl ApiError {
    /// An error with its message alone.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), cause: None, remedy: None }
    }

    /// Adds why.
    #[must_use]
    pub fn cause(mut self, cause: impl std::fmt::Display) -> Self {
        self.cause = Some(cause.to_string());
        self
    }

    /// Adds what to do.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

impl ApiError {
    /// A fault of ours, or of the machine below us, with what was being done.
    pub(crate) fn internal(doing: &str, cause: impl std::fmt::Display) -> Self {
        Self::new(ErrorCode::Internal, format!("could not {doing}")).cause(cause)
    }

    /// The file system said no.
    pub(crate) fn io(doing: &str, path: &std::path::Path, cause: &std::io::Error) -> Self {
        let error = Self::new(ErrorCode::Internal, format!("could not {doing} {}", path.display())).cause(cause);
        match cause.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Self {
                code: ErrorCode::TargetUnfit,
                ..error.remedy("free some space where the node's data directory is, then commit again")
            },
            std::io::ErrorKind::ReadOnlyFilesystem => Self {
                code: ErrorCode::TargetUnfit,
                ..error.remedy(
                    "the node's file system became read-only: see the kernel's log, mend it, start the node again",
                )
            },
            std::io::ErrorKind::PermissionDenied => error.remedy("run the node as root, or give it the directory"),
            _ => error,
        }
    }
}
