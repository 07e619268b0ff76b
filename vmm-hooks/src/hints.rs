//! Changed-block hints: what a monitor knows of where its disks were written to.
//!
//! A hint makes a capture faster and decides nothing: a disk that is missing in an answer is compared in full, and so is
//! everything when in doubt. Recordings are named by [`Mark`]s. A mark names the image that a disk was when the recording
//! began, so that a recording can't be taken for one that began at another.
//!
//! Recordings live in the monitor's process and die with it. Nobody keeps a list of them beside the process's own: a
//! recording counts if the process has one of exactly that name, and it has never stopped.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::ops::Range;

/// The name of a moment, and of the recording of what is written from then on. Used once.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(String);

impl Mark {
    /// What all of ours begin with.
    pub(crate) const PREFIX: &str = "form-";

    /// From what tells the moment apart from every other.
    pub fn new(moment: impl Display) -> Self {
        Mark(format!("{}{moment}", Self::PREFIX))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One disk's recording ends and another begins, with no write between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The one that ends, if it is there; what it has recorded is the answer.
    pub since: Option<Mark>,
    /// The one that begins.
    pub next: Mark,
}

/// By disk.
pub type Cuts = BTreeMap<String, Cut>;

/// Where each disk was written to, in bytes, ascending. A disk that is not in it: not known.
pub type Written = BTreeMap<String, Vec<Range<u64>>>;

/// Recordings of one disk that followed each other become one that goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Its name; the first of the chain, or a new one.
    pub kept: Mark,
    /// In the order in which they were begun. Those at the end may be missing: then they were never begun.
    pub chain: Vec<Mark>,
}

/// By disk.
pub type Keeps = BTreeMap<String, Keep>;
