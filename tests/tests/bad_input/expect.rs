//! What every refusal must be.

use form_node::ErrorCode;
use form_tests::Refusal;

/// The refusal has this code and the exit code that belongs to it, says these words, and says what to do.
#[track_caller]
pub(crate) fn refused(refusal: &Refusal, code: ErrorCode, words: &[&str]) {
    assert_eq!(refusal.error.code, code, "{refusal:?}");
    assert_eq!(refusal.exit_code, exit_code(code), "{refusal:?}");
    let said = format!("{} {}", refusal.error.message, refusal.error.cause.as_deref().unwrap_or_default());
    for word in words {
        assert!(said.contains(word), "it does not say {word:?}: {refusal:?}");
    }
    assert!(
        refusal.error.remedy.as_ref().is_some_and(|remedy| !remedy.is_empty()),
        "it does not say what to do: {refusal:?}"
    );
}

/// Stable: scripts rely on them.
fn exit_code(code: ErrorCode) -> i32 {
    match code {
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
