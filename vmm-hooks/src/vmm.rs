//! The two traits: a monitor, and a guest that it runs.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{Cuts, Health, Keeps, Machine, Result, Written};

/// What two hosts have to agree on before one restores what the other captured. Compare with `==`.
///
/// A device state that meets another version or CPU model may load without an error and then hang the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFacts {
    /// The kind of monitor: `qemu`, `files`.
    pub vmm: String,
    /// Its version, as in `7.2.22`.
    pub version: String,
    /// The versioned machine type that its guests get.
    pub machine_type: String,
    /// `kvm` or `tcg`.
    pub accelerator: String,
    /// The CPU model that its guests see; with KVM this names the host's CPU.
    pub cpu_model: String,
}

/// Whether a guest's vCPUs execute instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VmState {
    /// They do.
    Running,
    /// They don't, and can.
    Paused,
    /// The process is gone.
    Gone,
}

/// What a capture took, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Captured {
    /// The whole pause: from the monitor's STOP event to its RESUME event, by their own timestamps.
    pub pause_ns: u64,
    /// Stopping the vCPUs, draining and flushing the disks, and reading where they were written to.
    pub stop_ns: u64,
    /// Saving the device state.
    pub state_ns: u64,
    /// The caller's own work during the pause.
    pub copy_ns: u64,
}

/// What a caller does while the guest stands still, knowing where it wrote to. It runs on a thread where it may block.
pub type WhilePaused = Box<dyn FnOnce(Written) -> io::Result<()> + Send>;

/// A virtual machine monitor on this host.
#[async_trait]
pub trait Vmm: Send + Sync + 'static {
    /// What this host is. An error says what is missing and how to get it.
    async fn host(&self) -> Result<HostFacts>;

    /// Makes an empty RAM file in place of the one there may be, and starts the guest from its kernel and disks.
    async fn boot(&self, machine: &Machine) -> Result<Arc<dyn Vm>>;

    /// Makes a guest of a RAM file, disks and a device state, all of one capture. It is left paused, with its link down.
    ///
    /// `device_state` is read from its current position; a monitor whose captures have none gets none. The RAM file is the
    /// guest's memory from now on, and written to.
    async fn restore(&self, machine: &Machine, device_state: Option<File>) -> Result<Arc<dyn Vm>>;

    /// Whether [`Vmm::probe`] could be asked this of the machine; an error says what is missing. Nothing is started.
    async fn can_probe(&self, machine: &Machine, health: &Health) -> Result<()>;

    /// Runs a guest on probation and asks it whether it is well; if not, the error is
    /// [`Error::Unhealthy`](crate::Error::Unhealthy).
    ///
    /// It is made of the machine's RAM file, disks and a device state as by [`Vmm::restore`], but writes to none of them:
    /// what it changes is its own, and thrown away. Its network leads nowhere. `machine.dir` is a directory for this alone.
    ///
    /// Only while no other process of the guest runs. Whatever comes of it, and when this future is dropped too, its
    /// process is gone afterwards; [`Vmm::adopt`] finds one whose daemon was lost.
    async fn probe(&self, machine: &Machine, device_state: Option<File>, health: &Health) -> Result<()>;

    /// Ends every process of this monitor that runs on files below `root` and whose uuid is none of `known`: one whose
    /// directory or record is lost. How many there were; 0 where there are no processes.
    async fn end_others(&self, _root: &Path, _known: &HashSet<String>) -> Result<usize> {
        Ok(0)
    }

    /// Bytes of memory that one more guest may take on this host; `None` where nobody can say.
    fn free_memory_bytes(&self) -> Option<u64> {
        None
    }

    /// The process that an earlier daemon left in `machine.dir`, running or paused; `None` if there is none.
    ///
    /// A process that had not finished restoring can't go on: it is ended, and the answer is `None`.
    async fn adopt(&self, machine: &Machine) -> Result<Option<Arc<dyn Vm>>>;
}

/// One guest in its process. Dropping the handle leaves the process as it is.
#[async_trait]
pub trait Vm: Send + Sync + 'static {
    /// The process; 0 if there is none of its own.
    fn pid(&self) -> u32;

    /// What it does now.
    async fn state(&self) -> Result<VmState>;

    /// Stops its vCPUs; fine if they stand already.
    async fn pause(&self) -> Result<()>;

    /// Lets its vCPUs go on; fine if they run already.
    async fn resume(&self) -> Result<()>;

    /// Plugs its network cable in, or out.
    async fn set_link(&self, up: bool) -> Result<()>;

    /// Ends and begins recordings of what is written to disks; the answer is what was written while those that end were
    /// on. Nothing of this fails: what is not known is missing in the answer. Of a guest that runs, a write that has not
    /// ended yet is in the recording that begins.
    ///
    /// A monitor that can't record knows nothing.
    async fn cut(&self, _cuts: &Cuts) -> Written {
        Written::new()
    }

    /// Makes of each disk's recordings one that goes on, and ends all others of ours. One whose chain has a gap is not
    /// kept.
    async fn keep(&self, _keeps: &Keeps) {}

    /// Stops a running guest, makes `cuts`, writes its device state (if it has one) to `state_out` at the current position, runs `while_paused`, and
    /// lets the guest go on.
    ///
    /// During `while_paused` the RAM file and the disk files hold what the guest's memory and disks hold (in the page
    /// cache: written, but not all of it durable), and nobody writes to them.
    ///
    /// The guest is resumed on every path: an error, a panic of `while_paused`, a deadline, and this future's drop too,
    /// though then only once `while_paused` has returned. If it could not be, the error is
    /// [`Error::NotResumed`](crate::Error::NotResumed).
    async fn capture(&self, state_out: Option<File>, cuts: Cuts, while_paused: WhilePaused) -> Result<Captured>;

    /// Writes the device state of a guest that is paused to `state_out` at the current position. RAM file and disks then
    /// hold the rest, as in a capture, for as long as it stays paused: its process may be ended, and the guest be made
    /// again of them by [`Vmm::restore`]. [`Vm::resume`] lets it go on where it is, also after an error.
    async fn save(&self, state_out: File) -> Result<()>;

    /// Ends the process, by force if need be, waits until it is gone, and removes its sockets. Fine if it is gone already.
    async fn quit(&self) -> Result<()>;

    /// The Unix socket of its serial console. One client at a time; what is printed while there is none is lost.
    fn console(&self) -> PathBuf;
}
