#![expect(unsafe_code, reason = "a child sets up its own session and descriptors between fork and exec")]
//! A process that outlives whoever started it, and is reaped all the same.
//!
//! It is held by its pidfd, so that a signal can't hit a stranger who got the same number. A thread of its own waits for
//! its end, for a child (and then reaps it) as for an adopted process.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, FdFlags};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};
use tokio::sync::watch;

#[derive(Debug)]
pub(super) struct Process {
    pid: Pid,
    pidfd: Arc<OwnedFd>,
    gone: watch::Receiver<bool>,
}

impl Process {
    /// Starts `binary` in a session of its own, its temporary files in `temporary`, with `inherit` open under the same numbers as here, `log` as its output,
    /// and its pid in `pid_file` before it begins.
    pub(super) fn spawn(
        binary: &Path,
        arguments: &[OsString],
        temporary: &Path,
        inherit: Vec<OwnedFd>,
        pid_file: File,
        log: File,
    ) -> io::Result<Self> {
        let mut command = Command::new(binary);
        command.env("TMPDIR", temporary);
        command.args(arguments).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // SAFETY: the closure runs in the child between fork and exec. It makes system calls and touches its own stack and
        // memory allocated before the fork; it allocates nothing and takes no lock.
        unsafe {
            command.pre_exec(move || {
                rustix::process::setsid()?;
                for fd in &inherit {
                    rustix::io::fcntl_setfd(fd, FdFlags::empty())?;
                }
                write_pid(&pid_file)
            });
        }
        let pid = Pid::from_child(&command.spawn()?);
        // Nobody has reaped it yet: the number is still its own.
        Self::watch(pid, rustix::process::pidfd_open(pid, PidfdFlags::empty())?)
    }

    /// The numbers of all that there are.
    pub(super) fn all() -> io::Result<Vec<u32>> {
        let numbers = std::fs::read_dir("/proc")?.flatten();
        Ok(numbers.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
    }

    /// Its words, the program first; none if it is gone or a zombie.
    pub(super) fn arguments(pid: u32) -> Vec<Vec<u8>> {
        let mut line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        // Each word ends with a NUL.
        line.pop();
        if line.is_empty() { Vec::new() } else { line.split(|&byte| byte == 0).map(<[u8]>::to_vec).collect() }
    }

    /// The process of that number, if it runs and was started with `word` among its arguments.
    pub(super) fn find(number: u32, word: &str) -> io::Result<Option<Self>> {
        let Some(pid) = i32::try_from(number).ok().and_then(Pid::from_raw) else {
            return Ok(None);
        };
        // First the descriptor, then the question: what is asked about is what is held.
        let pidfd = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(Errno::SRCH) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        match Self::arguments(number).iter().any(|argument| argument == word.as_bytes()) {
            true => Self::watch(pid, pidfd).map(Some),
            false => Ok(None),
        }
    }

    fn watch(pid: Pid, pidfd: OwnedFd) -> io::Result<Self> {
        let pidfd = Arc::new(pidfd);
        let (sender, gone) = watch::channel(false);
        let held = Arc::clone(&pidfd);
        std::thread::Builder::new().name("vmm-reaper".into()).spawn(move || {
            loop {
                let mut fds = [PollFd::new(&held, PollFlags::IN)];
                match poll(&mut fds, None) {
                    Err(Errno::INTR) => {}
                    _ => break,
                }
            }
            // Fails for a process that is not our child: then somebody else reaps it.
            let _ = rustix::process::waitid(WaitId::PidFd(held.as_fd()), WaitIdOptions::EXITED);
            let _ = sender.send(true);
        })?;
        Ok(Process { pid, pidfd, gone })
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    pub(super) fn is_gone(&self) -> bool {
        *self.gone.borrow()
    }

    /// Whether it was gone within the time.
    pub(super) async fn wait_gone(&self, timeout: Duration) -> bool {
        let mut gone = self.gone.clone();
        tokio::time::timeout(timeout, gone.wait_for(|gone| *gone)).await.is_ok()
    }

    /// The same for a drop, which can't await.
    pub(super) fn block_until_gone(&self, timeout: Duration) {
        let until = Instant::now() + timeout;
        while !self.is_gone() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub(super) fn kill(&self) {
        // Gone already is what is wanted.
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
    }
}

/// Writes the caller's pid in decimal, without allocating.
fn write_pid(file: &File) -> io::Result<()> {
    let mut digits = *b"          \n";
    let mut rest = rustix::process::getpid().as_raw_nonzero().get().unsigned_abs();
    for digit in digits.iter_mut().rev().skip(1) {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    rustix::io::write(file, &digits)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleep(pid_file: File) -> Process {
        let log = tempfile::tempfile().unwrap();
        Process::spawn(Path::new("sleep"), &["1000".into()], &std::env::temp_dir(), Vec::new(), pid_file, log).unwrap()
    }

    #[tokio::test]
    async fn a_killed_child_is_reaped_and_its_pid_was_written() {
        let pid_file = tempfile::NamedTempFile::new().unwrap();
        let process = sleep(pid_file.reopen().unwrap());
        let written = std::fs::read_to_string(pid_file.path()).unwrap();
        assert_eq!(written.trim().parse::<u32>().unwrap(), process.pid());
        assert!(!process.is_gone());
        process.kill();
        assert!(process.wait_gone(Duration::from_secs(30)).await);
        assert!(!Path::new(&format!("/proc/{}", process.pid())).exists());
    }

    #[tokio::test]
    async fn only_a_process_with_that_argument_is_found() {
        let process = sleep(tempfile::tempfile().unwrap());
        assert!(Process::find(process.pid(), "999").unwrap().is_none());
        let found = Process::find(process.pid(), "1000").unwrap().unwrap();
        found.kill();
        assert!(found.wait_gone(Duration::from_secs(30)).await);
        assert!(process.wait_gone(Duration::from_secs(30)).await);
        assert!(Process::find(process.pid(), "1000").unwrap().is_none());
    }
}
