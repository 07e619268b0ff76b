//! The crate's one error.

use std::io;
use std::path::PathBuf;

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, with the operation and its object.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The monitor's binary could not be run.
    #[error("cannot run {}: install the Debian package qemu-system-x86, or name another binary", binary.display())]
    Binary {
        /// As configured.
        binary: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The binary ran, and its answer is none that this crate understands.
    #[error("{} {argument}: {problem}", binary.display())]
    Probe {
        /// As configured.
        binary: PathBuf,
        /// What it was asked.
        argument: &'static str,
        /// What is wrong with the answer.
        problem: String,
    },
    /// KVM was demanded and is not there.
    #[error("no KVM on this host: {problem}; use the accelerator `tcg` or `auto`")]
    NoKvm {
        /// What is missing.
        problem: &'static str,
    },
    /// A file that a machine needs is missing or can't be opened.
    #[error("machine {name}: cannot open its {what} {}", path.display())]
    File {
        /// The machine.
        name: String,
        /// `kernel`, `disk` …
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The machine's description can't be run.
    #[error("machine {name}: {field} {problem}")]
    Machine {
        /// The machine.
        name: String,
        /// The field of [`crate::Machine`].
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The machine's directory belongs to a process that runs.
    #[error("machine {name} runs already: process {pid}")]
    AlreadyRunning {
        /// The machine.
        name: String,
        /// Its process.
        pid: u32,
    },
    /// The guest is not in a state that allows this.
    #[error("{operation} of {name}: its state is `{state}`")]
    WrongState {
        /// What was asked for.
        operation: &'static str,
        /// The machine.
        name: String,
        /// In the monitor's own words.
        state: String,
    },
    /// The monitor refused a command.
    #[error("{name}: {command} was refused: {reason}")]
    Command {
        /// The machine.
        name: String,
        /// The command.
        command: &'static str,
        /// In the monitor's own words.
        reason: String,
    },
    /// The monitor said something that is not of its protocol.
    #[error("{name}: unexpected answer to {command}: {problem}")]
    Protocol {
        /// The machine.
        name: String,
        /// The command.
        command: &'static str,
        /// What was wrong.
        problem: String,
    },
    /// Nothing came in time.
    #[error("{operation} of {name} did not end within {after_ms} ms")]
    Timeout {
        /// What was waited for.
        operation: &'static str,
        /// The machine.
        name: String,
        /// The deadline.
        after_ms: u128,
    },
    /// The process is gone, or was gone before the operation ended.
    #[error("{operation} of {name}: its process is gone{}{log}", if log.is_empty() { "" } else { "; it said: " })]
    Gone {
        /// What was asked for.
        operation: &'static str,
        /// The machine.
        name: String,
        /// The last lines of its log.
        log: String,
    },
    /// The device state could not be saved or loaded.
    #[error("{operation} of {name}'s device state failed: {reason}")]
    DeviceState {
        /// `save` or `load`.
        operation: &'static str,
        /// The machine.
        name: String,
        /// In the monitor's own words.
        reason: String,
    },
    /// No process could be put beside the guest that would resume it without us. Nothing was paused.
    #[error("{name} has no keeper: {problem}")]
    Keeper {
        /// The machine.
        name: String,
        /// What went wrong.
        problem: String,
    },
    /// What was to be done during the pause failed. The guest runs again.
    #[error("capture of {name}: the copy made while it was paused failed")]
    WhilePaused {
        /// The machine.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What was to be done during the pause panicked. The guest runs again.
    #[error("capture of {name}: the copy made while it was paused panicked")]
    Panicked {
        /// The machine.
        name: String,
    },
    /// Somebody else resumed the guest during its capture: what was copied is worth nothing.
    #[error("capture of {name} is void: it was resumed before the capture's end")]
    Voided {
        /// The machine.
        name: String,
    },
    /// A guest on probation does not answer as one that is well does.
    #[error("{name} has not stood its health probe ({probe}): {reason}")]
    Unhealthy {
        /// The machine.
        name: String,
        /// What it was asked.
        probe: String,
        /// What came of it.
        reason: String,
    },
    /// A guest that a capture paused does not run again.
    #[error("{name} is STILL PAUSED after its capture and could not be resumed{}", failed(capture))]
    NotResumed {
        /// The machine.
        name: String,
        /// What had gone wrong in the capture before, if anything.
        capture: Option<Box<Error>>,
        /// Why it could not be resumed.
        #[source]
        source: Box<Error>,
    },
    /// The operating system refused something.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// `create`, `connect to` …
        operation: &'static str,
        /// The object.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

fn failed(capture: &Option<Box<Error>>) -> String {
    capture.as_ref().map(|error| format!(" (the capture had failed: {error})")).unwrap_or_default()
}

/// What a caller can do about an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Something has to be installed or put in place on this host.
    MissingDependency,
    /// The request can't be carried out as it is.
    Refused,
    /// The guest is in another state, or runs already.
    WrongState,
    /// The process is gone.
    Gone,
    /// No answer in time; the process may still be there.
    Timeout,
    /// The guest is paused and should not be: somebody has to look.
    StillPaused,
    /// The guest is not well.
    Unhealthy,
    /// It was tried and did not work.
    Failed,
}

impl Error {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Binary { .. } | Error::Probe { .. } | Error::NoKvm { .. } => ErrorKind::MissingDependency,
            Error::File { .. } => ErrorKind::MissingDependency,
            Error::Machine { .. } => ErrorKind::Refused,
            Error::AlreadyRunning { .. } | Error::WrongState { .. } => ErrorKind::WrongState,
            Error::Gone { .. } => ErrorKind::Gone,
            Error::Timeout { .. } => ErrorKind::Timeout,
            Error::NotResumed { .. } => ErrorKind::StillPaused,
            Error::Unhealthy { .. } => ErrorKind::Unhealthy,
            Error::Command { .. }
            | Error::Protocol { .. }
            | Error::DeviceState { .. }
            | Error::Keeper { .. }
            | Error::WhilePaused { .. }
            | Error::Panicked { .. }
            | Error::Voided { .. }
            | Error::Io { .. } => ErrorKind::Failed,
        }
    }

    pub(crate) fn io(operation: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
        let path = path.into();
        move |source| Error::Io { operation, path, source }
    }
}
