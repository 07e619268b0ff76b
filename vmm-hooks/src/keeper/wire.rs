//! What goes over a keeper's pipes: one JSON value a line. Both ends are of one program, so there is one version.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::limits::KEEPER_LINE_BYTES_MAX;

/// What a keeper is there for.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Charge {
    /// The machine's name.
    pub(crate) name: String,
    /// Its directory, where its sockets or its record are.
    pub(crate) dir: PathBuf,
    /// How long the guest may be paused.
    pub(crate) bound_ms: u64,
    pub(crate) kind: Kind,
}

/// How the guest is let go.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// Over the second monitor of a QEMU.
    Qemu,
    /// By commands, which the keeper runs for the daemon too: nothing can be between two of them.
    Files { uuid: String, programs: PathBuf, pause: Vec<String>, resume: Vec<String>, timeout_s: u32 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Run the pause command.
    Pause,
    /// Run the resume command.
    Resume,
    /// The guest runs: there is nothing more to do.
    Resumed,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// To the charge.
    Ready,
    Done,
    /// The bound had passed, and the guest was let go.
    Voided,
    Failed(Failure),
}

/// An error of the keeper's, as its daemon tells it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Failure {
    /// The command did not end in time.
    Timeout { after_ms: u64 },
    /// It failed, in its own words.
    Command { reason: String },
    /// Something else went wrong.
    Other { reason: String },
}

impl Failure {
    pub(crate) fn of(error: Error) -> Self {
        match error {
            Error::Timeout { after_ms, .. } => {
                Failure::Timeout { after_ms: u64::try_from(after_ms).unwrap_or(u64::MAX) }
            }
            Error::Command { reason, .. } => Failure::Command { reason },
            error => Failure::Other {
                reason: match std::error::Error::source(&error) {
                    Some(source) => format!("{error}: {source}"),
                    None => error.to_string(),
                },
            },
        }
    }

    pub(crate) fn told(self, name: &str, operation: &'static str) -> Error {
        let name = name.to_owned();
        match self {
            Failure::Timeout { after_ms } => Error::Timeout { operation, name, after_ms: after_ms.into() },
            Failure::Command { reason } | Failure::Other { reason } => {
                Error::Command { name, command: operation, reason }
            }
        }
    }
}

pub(crate) fn line(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    Ok(line)
}

/// The reading end of a pipe.
#[derive(Debug)]
pub(crate) struct Lines {
    pipe: File,
    buffer: Vec<u8>,
}

impl AsFd for Lines {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

/// What came next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next<T> {
    Line(T),
    /// Nothing in time.
    Late,
    /// The other end is closed.
    End,
}

impl Lines {
    pub(crate) fn new(pipe: File) -> Self {
        Lines { pipe, buffer: Vec::new() }
    }

    /// Blocks until a line is there, or the other end is gone, or it is `until`.
    pub(crate) fn next<T: DeserializeOwned>(&mut self, until: Instant) -> io::Result<Next<T>> {
        loop {
            if let Some(end) = self.buffer.iter().position(|&byte| byte == b'\n') {
                let rest = self.buffer.split_off(end + 1);
                let line = std::mem::replace(&mut self.buffer, rest);
                return Ok(Next::Line(serde_json::from_slice(&line)?));
            }
            if self.buffer.len() > KEEPER_LINE_BYTES_MAX {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a line without end"));
            }
            if !is_readable(&self.pipe, until)? {
                return Ok(Next::Late);
            }
            let mut piece = [0; 4096];
            match self.pipe.read(&mut piece) {
                Ok(0) => return Ok(Next::End),
                Ok(taken) => self.buffer.extend(piece.iter().take(taken)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Whether something can be read (or will never come) before `until`.
pub(crate) fn is_readable(fd: &impl AsFd, until: Instant) -> io::Result<bool> {
    loop {
        let left: Duration = until.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).ok();
        match poll(&mut [PollFd::new(fd, PollFlags::IN)], left.as_ref()) {
            Err(Errno::INTR) => {}
            ready => return Ok(ready? > 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn lines_time_and_the_end_are_told_apart() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let (mut lines, mut writer) = (Lines::new(reader.into()), File::from(writer));
        let now = || Instant::now() + Duration::from_millis(20);
        assert_eq!(lines.next::<Order>(now()).unwrap(), Next::Late);
        let both = [line(&Order::Pause).unwrap(), line(&Order::Resumed).unwrap()].concat();
        writer.write_all(&both).unwrap();
        assert_eq!(lines.next(now()).unwrap(), Next::Line(Order::Pause));
        assert_eq!(lines.next(now()).unwrap(), Next::Line(Order::Resumed));
        writer.write_all(b"\"Sleep\"\n").unwrap();
        assert!(lines.next::<Order>(now()).is_err());
        // Half a line is no order: who wrote it is gone.
        writer.write_all(b"\"Resum").unwrap();
        drop(writer);
        assert_eq!(lines.next::<Order>(now()).unwrap(), Next::End);
    }
}
