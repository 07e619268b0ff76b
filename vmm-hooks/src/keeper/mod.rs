//! The keeper: a process that stands beside a guest while a capture has it paused, and lets it go on when nobody else does.
//!
//! A daemon that is killed can do nothing more, and one that hangs does nothing more: so whoever undoes its pause is
//! outside of it. The daemon starts a keeper *before* it pauses, and pauses only once the keeper has said that it is ready.
//! What ties them is a pipe whose writing end the daemon alone has: the kernel closes it, however the daemon ends.
//!
//! ```text
//! daemon                                        keeper (the daemon's program in another role)
//!   charge: whose guest, how long   ------->    a session of its own, the lock on the guest's directory, its own monitor
//!                                   <-------    ready
//!   pause, save, copy, go on                    waits
//!   resumed                         ------->    ends
//!   (the pipe closes without it)    ------->    lets the guest go on, tries until it does, ends
//!   (the bound passes)                          lets the guest go on; that voids the capture
//! ```
//!
//! There is one for a capture and none otherwise: a guest that waits for a commit's outcome is never resumed by it.
//! Whoever takes over a guest, or pauses it for longer than a capture, first waits until no keeper is there ([`is_there`]).

mod daemon;
mod role;
mod wire;

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::limits::PAUSE_MAX;

pub(crate) use daemon::Keeper;
pub use role::run;
pub(crate) use role::{Ward, no_such_order, say};
pub(crate) use wire::{Answer, Charge, Kind, Order, is_readable};

/// How a keeper is started: a program that calls [`run`]. The machine's name and directory are put behind the arguments,
/// for whoever looks at the list of processes.
#[derive(Clone, Debug)]
pub struct KeeperCommand {
    /// The program; `/proc/self/exe` is the daemon's own, even if its file was replaced meanwhile.
    pub program: PathBuf,
    /// What it is called in the list of processes.
    pub called: OsString,
    /// Words that choose the role.
    pub arguments: Vec<OsString>,
}

/// What stands by while a guest is paused for a capture.
#[derive(Clone, Debug)]
pub struct Keeping {
    /// How a keeper is started. Without one nothing that can be paused is captured.
    pub command: Option<KeeperCommand>,
    /// Longest pause of a capture.
    pub pause_max: Duration,
}

impl Default for Keeping {
    /// Without a keeper.
    fn default() -> Self {
        Keeping { command: None, pause_max: PAUSE_MAX }
    }
}

/// Whether a keeper stands beside the guest in that directory.
pub(crate) fn is_there(dir: &Path) -> std::io::Result<bool> {
    let dir = match File::open(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        dir => dir?,
    };
    match rustix::fs::flock(&dir, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(false),
        Err(Errno::WOULDBLOCK) => Ok(true),
        Err(errno) => Err(errno.into()),
    }
}
