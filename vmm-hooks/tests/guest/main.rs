//! Real QEMU, real guests: the guest of `tests/guest/make.sh`, which is made here if it is not there yet.
//!
//! `life` and `capture_paths` need a process, not a booted system: there the kernel has hardly begun. `above_hole`, `carries`, `hints`, `probation` and `saving` boot one.

#![expect(clippy::unwrap_used, reason = "what a test's own tools can't do is that test's failure")]

mod above_hole;
mod capture_paths;
mod carries;
mod console;
mod fixture;
mod hints;
mod keeping;
mod life;
mod probation;
mod saving;
