//! Limits of a spec. What bounds a machine is the hypervisor hook's to say; these are the text's own.

pub(super) use form_vmm_hooks::{CMDLINE_BYTES_MAX, DISKS_MAX, MEMORY_BYTES_MAX, MEMORY_BYTES_MIN};

/// Longest text, in bytes.
pub const SPEC_BYTES_MAX: usize = 64 << 10;
/// Memory comes in units of this, in bytes.
pub(super) const MEMORY_UNIT_BYTES: u64 = 1 << 20;
/// Longest disk name, in bytes: QEMU's node names end at 31, and some are made from it.
pub(super) const DISK_NAME_BYTES_MAX: usize = 20;
/// Most words of a command, its program's name among them.
pub(super) const COMMAND_WORDS_MAX: usize = 64;
/// Longest of them, in bytes.
pub(super) const WORD_BYTES_MAX: usize = 4096;
/// How long a command may take unless the spec says otherwise, in seconds.
pub(super) const COMMAND_TIMEOUT_S: u32 = 30;
/// And at most.
pub(super) const COMMAND_TIMEOUT_S_MAX: u32 = 3600;
/// How long the answer to a health probe may take unless the spec says otherwise, in seconds. The old VM stands still
/// meanwhile.
pub(super) const HEALTH_TIMEOUT_S: u32 = 30;
/// And at most.
pub(super) const HEALTH_TIMEOUT_S_MAX: u32 = 3600;
/// Longest path, in bytes (`PATH_MAX` less its NUL).
pub(super) const PATH_BYTES_MAX: usize = 4095;
