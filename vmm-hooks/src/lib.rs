//! Capture and restore of real guests: one trait for any virtual machine monitor; behind it QEMU, and machines that are
//! only files.
//!
//! A [`Vmm`] starts processes, a [`Vm`] is one of them. This crate knows no cluster, commit or network: a caller gives
//! it files and gets a guest, or gives it a running guest and gets its device state while RAM and disks stand still.
//!
//! What holds here, on every path:
//!
//! * A guest that a capture paused is resumed, by its [`keeper`] if its daemon is gone; or the error is [`Error::NotResumed`].
//! * Every process starts paused and runs only once everything that can fail has been done.
//! * A process outlives whoever started it and is found again by [`Vmm::adopt`]; a handle's drop ends nothing.
//! * A hint (where a disk was written to) is exact or missing; whoever uses one checks it all the same.
//! * A start that fails leaves no process, no zombie and no socket; its log file stays.

mod command;
mod error;
pub mod fake;
mod files;
mod health;
mod hints;
pub mod keeper;
mod limits;
mod machine;
mod qemu;
mod vmm;

pub use error::{Error, ErrorKind, Result};
pub use files::{Commands, Files, FilesConfig};
pub use health::{Health, Probe};
pub use hints::{Cut, Cuts, Keep, Keeps, Mark, Written};
pub use limits::{CMDLINE_BYTES_MAX, DISKS_MAX, MEMORY_BYTES_MAX, MEMORY_BYTES_MIN, NAME_BYTES_MAX};
pub use machine::{Machine, MachineDisk};
pub use qemu::{Accel, Qemu, QemuConfig};
pub use vmm::{Captured, HostFacts, Vm, VmState, Vmm, WhilePaused};
