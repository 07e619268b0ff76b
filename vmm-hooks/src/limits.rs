//! Every limit and every deadline of this crate.

use std::time::Duration;

/// Least guest memory, in bytes.
pub const MEMORY_BYTES_MIN: u64 = 32 << 20;
/// Most guest memory, in bytes. Together with the PCI hole it fits into the 40 bits of physical address that TCG's CPU has, and
/// those of any server's CPU. From 2816 MiB on a q35 machine has part of its RAM above the hole: an offset in the RAM file is
/// not a guest physical address then, and nothing here takes it for one.
pub const MEMORY_BYTES_MAX: u64 = 64 << 30;
/// Most disks of a machine; each takes a PCI slot of its own.
pub const DISKS_MAX: usize = 16;
/// Longest name of a machine or a disk, in bytes.
pub const NAME_BYTES_MAX: usize = 64;
/// Longest kernel command line, in bytes (x86 `COMMAND_LINE_SIZE` less its NUL).
pub const CMDLINE_BYTES_MAX: usize = 2047;

/// Longest line that is read from a monitor.
pub(crate) const QMP_LINE_BYTES_MAX: usize = 1 << 20;
/// Events kept for a subscriber that lags behind.
pub(crate) const QMP_EVENTS_KEPT: usize = 1024;
/// Longest record of a machine of files that is read.
pub(crate) const RECORD_BYTES_MAX: u64 = 256;
/// Longest reply that is read from an NBD server: 1 MiB is the most that QEMU sends for one question.
pub(crate) const NBD_REPLY_BYTES_MAX: u32 = 4 << 20;
/// Most ranges of writes that are read for a disk; one that is written to in more places is compared in full.
pub(crate) const WRITTEN_RANGES_MAX: usize = 1 << 20;
/// What of a log's end goes into an error.
pub(crate) const LOG_TAIL_BYTES: u64 = 2048;
/// Longest record of what a process was started as that is read.
pub(crate) const INTENT_BYTES_MAX: u64 = 1 << 20;
/// Longest line that is read from a guest's agent.
pub(crate) const AGENT_LINE_BYTES_MAX: u64 = 64 << 10;
/// Longest pid file that is read.
pub(crate) const PID_FILE_BYTES_MAX: u64 = 16;

/// Running the binary for its version or its list of machines.
pub(crate) const PROBE_TIMEOUT: Duration = Duration::from_secs(20);
/// From the start of a process to its monitor's greeting.
pub(crate) const START_TIMEOUT: Duration = Duration::from_secs(30);
/// A monitor command that has nothing to wait for.
pub(crate) const COMMAND_TIMEOUT: Duration = Duration::from_secs(15);
/// Each step of reading where a disk was written to. Some of them are taken during a pause.
pub(crate) const HINT_TIMEOUT: Duration = Duration::from_secs(2);
/// `stop` drains and flushes the disks.
pub(crate) const STOP_TIMEOUT: Duration = Duration::from_secs(120);
/// Saving or loading a device state of some hundred KiB.
pub(crate) const MIGRATE_TIMEOUT: Duration = Duration::from_secs(60);
/// From the end of a capture to a guest that runs.
pub(crate) const RESUME_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest pause of a capture: a guest that stands still for longer is let go by its keeper.
pub(crate) const PAUSE_MAX: Duration = Duration::from_secs(60);
/// From the start of a keeper until it is ready. Nothing is paused yet.
pub(crate) const KEEPER_START_TIMEOUT: Duration = Duration::from_secs(20);
/// From the word that a guest runs to the end of its keeper.
pub(crate) const KEEPER_END_TIMEOUT: Duration = Duration::from_secs(10);
/// How long whoever takes over or pauses a guest waits for a keeper to end.
pub(crate) const KEEPER_WAIT_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest line between a daemon and a keeper: paths and commands are in it.
pub(crate) const KEEPER_LINE_BYTES_MAX: usize = 1 << 20;
/// Between two tries of a keeper to let a guest go on.
pub(crate) const RELEASE_INTERVAL: Duration = Duration::from_millis(10);
/// For how long a guest has to be seen running before its keeper leaves it alone.
pub(crate) const RELEASE_GRACE: Duration = Duration::from_secs(1);
/// Between two runs of a resume command that fails.
pub(crate) const RELEASE_RETRY: Duration = Duration::from_secs(1);
/// How many there are.
pub(crate) const RELEASE_TRIES: u32 = 300;
/// How often a migration or a status is asked for. The guest stands still meanwhile.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_millis(1);
/// From `quit` to SIGKILL: closing flushes the disks.
pub(crate) const QUIT_TIMEOUT: Duration = Duration::from_secs(10);
/// From SIGKILL to giving up.
pub(crate) const KILL_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a process that does not answer may take to turn out to be ending.
pub(crate) const GONE_GRACE: Duration = Duration::from_secs(1);
/// A guest paused longer than this is worth a line in the log, and again after as long.
pub(crate) const PAUSE_WARNING: Duration = Duration::from_secs(5);
/// Between two looks at what has become of a connection to a guest on probation.
pub(crate) const PROBE_INTERVAL: Duration = Duration::from_millis(20);
/// How long a guest's agent may take before it is asked anew: it may have been restored in the middle of something.
pub(crate) const AGENT_SYNC_INTERVAL: Duration = Duration::from_secs(1);
