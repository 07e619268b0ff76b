//! Images are mapped. Where a file was cut short since, or its disk gives nothing, reading raises SIGBUS (mmap(2)): the thread that meets it halts, and the
//! command ends with words and cleans up, instead of being killed.
//!
//! `tokio::signal` can't be asked: it calls the handler that was there before, and the standard library's ends the process.
#![expect(unsafe_code, reason = "a handler that does not return is set by sigaction(2) alone")]

use std::io;
use std::mem::zeroed;
use std::os::fd::IntoRawFd;
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};

use form_node::{ApiError, ErrorCode};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::{self, Receiver};

/// The pipe's end that a halted thread writes to. It is never closed.
static BELL: AtomicI32 = AtomicI32::new(-1);

/// Hears of a thread that halted. Images are read on threads for work that blocks, so those that wait for this go on.
pub(crate) struct LostImage(Receiver);

impl LostImage {
    /// From now on SIGBUS halts its thread. Once in a process.
    pub(crate) fn listen() -> Result<Self, ApiError> {
        Self::begin().map_err(|error| ApiError::new(ErrorCode::Internal, "signals can't be listened for").cause(error))
    }

    fn begin() -> io::Result<Self> {
        let (bell, heard) = pipe::pipe()?;
        BELL.store(bell.into_nonblocking_fd()?.into_raw_fd(), Ordering::Release);
        // SAFETY: all zeros is a sigaction without flags and with an empty mask; the handler keeps to signal-safety(7).
        let set = unsafe {
            let mut action: libc::sigaction = zeroed();
            action.sa_flags = libc::SA_SIGINFO;
            action.sa_sigaction = halt as *const () as usize;
            libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut())
        };
        if set == 0 { Ok(Self(heard)) } else { Err(io::Error::last_os_error()) }
    }

    /// Ends when an image could not be read.
    pub(crate) async fn heard(&mut self) {
        // The other end is open for as long as the process lives.
        let _ = self.0.read_u8().await;
    }
}

extern "C" fn halt(signal: libc::c_int, info: *const libc::siginfo_t, _: *const libc::c_void) {
    // SAFETY: the kernel hands a siginfo to a handler that asked for one; the calls are those that signal-safety(7) lists.
    unsafe {
        // Somebody sent it: nothing was read, and it means what it always does.
        if (*info).si_code <= 0 {
            libc::signal(signal, libc::SIG_DFL);
            libc::raise(signal);
            return;
        }
        if libc::write(BELL.load(Ordering::Acquire), [0_u8].as_ptr().cast(), 1) != 1 {
            // Nobody listens any more.
            libc::signal(signal, libc::SIG_DFL);
            return;
        }
        loop {
            libc::pause();
        }
    }
}
