use std::{fmt, io};

use crate::Hash;

/// What went wrong with images and their deltas.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused an operation.
    #[error("cannot {operation} {object}")]
    Io {
        /// A verb: "read", "punch a hole in".
        operation: &'static str,
        /// What it was done to.
        object: Object,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// Bytes do not have the form they must have.
    #[error("{object} is damaged at byte {offset_bytes}: {reason}")]
    Damaged {
        /// Where the bytes belong.
        object: Object,
        /// Distance of the damage from the object's first byte.
        offset_bytes: u64,
        /// What was expected.
        reason: &'static str,
    },
    /// A recipe asks for what cannot be.
    #[error("frame {frame} is damaged in what makes byte {position} of the new image: {reason}")]
    Recipe {
        /// The frame's number.
        frame: u32,
        /// Where in the new image the recipe's bytes begin.
        position: u64,
        /// What was expected.
        reason: &'static str,
    },
    /// Bytes have the right form, but are not the ones that were named.
    #[error("{object} is damaged at byte {offset_bytes}: BLAKE3 is {found}, not {expected}")]
    WrongHash {
        /// Where the bytes belong.
        object: Object,
        /// Where the hashed range begins.
        offset_bytes: u64,
        /// The hash that was promised.
        expected: Hash,
        /// The hash of what is there.
        found: Hash,
    },
    /// More than this crate takes.
    #[error("{object}: {what} is {value}, and the limit is {limit}")]
    Limit {
        /// Where the number stands.
        object: Object,
        /// What it counts.
        what: &'static str,
        /// The number.
        value: u64,
        /// The largest accepted.
        limit: u64,
    },
    /// A format version that this build does not read.
    #[error("{object} has format version {found}; this build reads version {supported}")]
    Version {
        /// What was read.
        object: Object,
        /// Version found.
        found: u16,
        /// Version known.
        supported: u16,
    },
    /// Two things that do not belong together.
    #[error("{object} does not fit: {reason}")]
    Mismatch {
        /// The one that does not fit.
        object: Object,
        /// Why, with the two values.
        reason: String,
    },
    /// The caller did not want it any more.
    #[error("it was called off")]
    Cancelled,
}

/// What an error is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Object {
    /// An encoded manifest.
    Manifest,
    /// An encoded frame index.
    FrameIndex,
    /// An encoded block index.
    BlockIndex,
    /// The frame of that number.
    Frame(u32),
    /// The file in which frames wait.
    Spool,
    /// A file that holds a whole delta.
    DeltaFile,
    /// What is kept of an image beside it.
    ImageIndex,
    /// A frozen image.
    Image,
    /// The image that a delta is made against.
    Base,
    /// The file that is being built.
    Output,
    /// A file that is written by a running guest.
    Live,
    /// Our copy of a live file.
    Shadow,
    /// A file that is kept near the base, to become an output without a copy.
    Standby,
    /// The record of what a standby is.
    StandbyRecord,
    /// The submission queue of io_uring.
    Ring,
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Object::Manifest => f.write_str("manifest"),
            Object::FrameIndex => f.write_str("frame index"),
            Object::BlockIndex => f.write_str("block index"),
            Object::Frame(number) => write!(f, "frame {number}"),
            Object::Spool => f.write_str("frames"),
            Object::DeltaFile => f.write_str("delta file"),
            Object::ImageIndex => f.write_str("image index"),
            Object::Image => f.write_str("image"),
            Object::Base => f.write_str("base image"),
            Object::Output => f.write_str("new image"),
            Object::Live => f.write_str("live image"),
            Object::Shadow => f.write_str("copy"),
            Object::Standby => f.write_str("standby image"),
            Object::StandbyRecord => f.write_str("standby record"),
            Object::Ring => f.write_str("io_uring"),
        }
    }
}

/// What a caller can do about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The system refused (space, permission, device) or the caller stopped it: the same call may succeed later.
    System,
    /// Bytes are not what they should be: fetch them again, or fall back to something whole.
    Corrupt,
    /// The inputs do not belong together, or are of another version.
    Refused,
    /// A limit was passed.
    Limit,
}

impl Error {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Io { .. } | Error::Cancelled => ErrorKind::System,
            Error::Damaged { .. } | Error::Recipe { .. } | Error::WrongHash { .. } => ErrorKind::Corrupt,
            Error::Version { .. } | Error::Mismatch { .. } => ErrorKind::Refused,
            Error::Limit { .. } => ErrorKind::Limit,
        }
    }

    /// For `map_err`: names the operation and its object.
    pub(crate) fn io<E: Into<io::Error>>(operation: &'static str, object: Object) -> impl FnOnce(E) -> Error {
        move |source| Error::Io { operation, object, source: source.into() }
    }

    pub(crate) fn damaged(object: Object, offset_bytes: u64, reason: &'static str) -> Error {
        Error::Damaged { object, offset_bytes, reason }
    }
}

/// This crate's result.
pub type Result<T> = std::result::Result<T, Error>;
