//! What went wrong with a file, as the user is told: what, where, why, and what to do.

use std::error::Error as _;
use std::io;
use std::path::Path;

use form_delta::{Error, ErrorKind, Object, Spool};
use form_node::{ApiError, ErrorCode};

/// The system's no to what should be done with a file: `done` completes "can't be …".
pub(super) fn io(done: &str, path: &Path, error: &io::Error) -> ApiError {
    let path = path.display();
    let failure = |code| ApiError::new(code, format!("{path} can't be {done}")).cause(error);
    match error.kind() {
        io::ErrorKind::NotFound => {
            let what = if done == "made" { "its directory" } else { "the file" };
            failure(ErrorCode::NotFound).remedy(format!("check the path: {what} does not exist"))
        }
        io::ErrorKind::AlreadyExists => ApiError::new(ErrorCode::BadRequest, format!("{path} exists already"))
            .remedy("remove it, or choose another name"),
        io::ErrorKind::PermissionDenied => {
            failure(ErrorCode::BadRequest).remedy("check who may use the file, and who you are")
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            failure(ErrorCode::TargetUnfit).remedy("choose another place: nothing can be written there")
        }
        io::ErrorKind::WouldBlock => {
            failure(ErrorCode::WrongState).remedy("wait until the other command or node that uses it has ended")
        }
        io::ErrorKind::InvalidFilename | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidInput => {
            failure(ErrorCode::BadRequest).remedy("check the path: it has to be that of a regular file")
        }
        io::ErrorKind::BrokenPipe => {
            failure(ErrorCode::BadRequest).remedy("see that who reads from it stays until the end")
        }
        io::ErrorKind::IsADirectory => failure(ErrorCode::BadRequest).remedy("name a file"),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            failure(ErrorCode::TargetUnfit).remedy("free some space there, or choose another place")
        }
        _ => failure(ErrorCode::Internal),
    }
}

/// What the delta engine says of a file: `done` completes "can't be …".
pub(super) fn of(done: &str, path: &Path, error: &Error) -> ApiError {
    if let Error::Io { operation, object, source } = error {
        let failure = io(done, path, source);
        // The same in fewer words where the message says it already.
        return match failure.code {
            ErrorCode::Internal | ErrorCode::TargetUnfit => {
                failure.cause(format!("cannot {operation} {object}: {source}"))
            }
            _ => failure,
        };
    }
    let mut cause = error.to_string();
    if let Some(source) = error.source() {
        cause = format!("{cause}: {source}");
    }
    let code = match error.kind() {
        _ if matches!(error, Error::Version { .. }) => ErrorCode::Unsupported,
        ErrorKind::Corrupt | ErrorKind::Limit => ErrorCode::BadRequest,
        ErrorKind::Refused => ErrorCode::WrongState,
        ErrorKind::System => ErrorCode::Internal,
    };
    let failure = ApiError::new(code, format!("{} can't be {done}", path.display())).cause(cause);
    match error {
        Error::Version { .. } => {
            failure.remedy("it was made by another version of form: use that one, or make it anew")
        }
        _ => failure,
    }
}

/// The same for a delta file: where in it a damaged frame stands.
pub(super) fn of_delta(done: &str, path: &Path, spool: Option<&Spool>, error: &Error) -> ApiError {
    let mut failure = of(done, path, error);
    let frame = match error {
        Error::Damaged { object: Object::Frame(number), .. }
        | Error::WrongHash { object: Object::Frame(number), .. } => Some(*number),
        _ => None,
    };
    if let (Some(spool), Some(number), Some(cause)) = (spool, frame, &failure.cause)
        && let Ok(range) = spool.file_range(number)
    {
        failure.cause = Some(format!("{cause}; the frame is bytes {} to {} of the file", range.start, range.end));
    }
    match error.kind() {
        ErrorKind::Corrupt => failure.remedy("copy it again from where it was made, or make it anew"),
        _ => failure,
    }
}
