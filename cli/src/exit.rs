//! Exit codes: one per kind of error, stable.

use form_node::{ApiError, ErrorCode};

/// Ended by Ctrl-C (128 + SIGINT, as shells have it).
pub(crate) const INTERRUPTED: u8 = 130;

/// `form node doctor` found a problem.
pub(crate) const UNHEALTHY: u8 = 11;

/// Shown at the end of `form --help`.
pub(crate) const HELP: &str = "\
Exit codes:
    0  done
    1  failed in a way that has no code of its own
    2  wrong usage, a malformed request or key, a damaged file, or something this version can't do
    3  no such instance, attempt, node or file
    4  the signer may not, or the request is stale or was made before
    5  conflict: another commit won or is under way
    6  the instance is in the wrong state, or the image is not the one that was meant
    7  a target is down or can't take the commit, or a disk is full
    8  the commit failed and was undone: nothing changed
    9  the node or its state store can't be reached
   10  something is missing on the host (QEMU, a kernel)
   11  form node doctor found something that has to be mended
   70  a fault of ours
  130  ended by Ctrl-C

Errors say what happened, why, and what to do. With --json they are one JSON object
{code, message, cause, remedy} on stderr, and results are JSON on stdout.";

/// Why a command ends without its result.
pub(crate) enum Stop {
    /// It failed.
    Failed(ApiError),
    /// It has its result, and that is bad news.
    Unhealthy,
    /// The user ended it, and was told what that means.
    Interrupted,
}

impl From<ApiError> for Stop {
    fn from(error: ApiError) -> Self {
        Self::Failed(error)
    }
}

/// The exit code of an error.
pub(crate) fn code(error: ErrorCode) -> u8 {
    match error {
        ErrorCode::BadRequest | ErrorCode::BadKey | ErrorCode::Unsupported => 2,
        ErrorCode::NotFound => 3,
        ErrorCode::NotAllowed | ErrorCode::StaleRequest | ErrorCode::ReplayedRequest => 4,
        ErrorCode::Conflict => 5,
        ErrorCode::WrongState => 6,
        ErrorCode::TargetUnavailable | ErrorCode::TargetUnfit => 7,
        ErrorCode::Aborted => 8,
        ErrorCode::Unavailable => 9,
        ErrorCode::MissingDependency => 10,
        ErrorCode::Internal => 70,
    }
}
