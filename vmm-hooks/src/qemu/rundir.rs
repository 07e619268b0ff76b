//! The directory of one process: sockets, log, pid file.
//!
//! It is held open and used relative to its descriptor, because it may be renamed while the process runs. For the same
//! reason the process never learns a path in it: QEMU unlinks a listening socket's path when it ends, and by then another
//! process's socket may have that path. So sockets are bound here, under a name that is gone before QEMU gets the
//! descriptor.
//!
//! A socket's address has 107 bytes, which an ordinary data directory with its ids would use up. So sockets are named
//! through the descriptor too: `/proc/self/fd/7/qmp`.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{AtFlags, Mode, OFlags};

use crate::limits::{LOG_TAIL_BYTES, PID_FILE_BYTES_MAX};
use crate::{Error, Result};

/// The monitor's socket.
pub(super) const MONITOR: &str = "qmp";
/// The socket of the monitor that keepers use.
pub(super) const KEEPER: &str = "keeper";
/// What the process was started as.
pub(super) const INTENT: &str = "intent";
/// The serial console's socket.
pub(super) const CONSOLE: &str = "con";
/// The socket of the guest agent's port.
pub(super) const AGENT: &str = "agent";
/// The socket on which recordings of writes are read; it is there for that moment.
pub(super) const NBD: &str = "nbd";
const PID: &str = "pid";
const LOG: &str = "log";

/// Makes the names under which sockets are bound unique in this process.
static BOUND: AtomicU32 = AtomicU32::new(0);

#[derive(Debug)]
pub(super) struct RunDir {
    dir: OwnedFd,
    opened_as: PathBuf,
}

impl RunDir {
    /// Makes the directory if it is missing.
    pub(super) fn create(path: &Path) -> Result<Self> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(Error::io("create", path))?;
        Self::open(path)?.ok_or_else(|| Error::io("open", path)(std::io::ErrorKind::NotFound.into()))
    }

    /// `None` if there is no such directory.
    pub(super) fn open(path: &Path) -> Result<Option<Self>> {
        let opened_as = std::path::absolute(path).map_err(Error::io("find", path))?;
        match rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(dir) => Ok(Some(RunDir { dir, opened_as })),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(errno) => Err(Error::io("open", path)(errno.into())),
        }
    }

    /// Where it is now, wherever it has been renamed to.
    pub(super) fn path(&self) -> PathBuf {
        fs::read_link(self.by_descriptor()).unwrap_or_else(|_| self.opened_as.clone())
    }

    /// Its short name in this process.
    fn by_descriptor(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.dir.as_raw_fd()))
    }

    /// A listening socket, 0600, in place of an old one of that name.
    pub(super) fn listen(&self, name: &str) -> Result<UnixListener> {
        let dir = self.by_descriptor();
        let bound = dir.join(bound_name(name, std::process::id(), BOUND.fetch_add(1, Ordering::Relaxed)));
        let path = dir.join(name);
        let listener = UnixListener::bind(&bound).map_err(Error::io("bind", self.path().join(name)))?;
        fs::set_permissions(&bound, fs::Permissions::from_mode(0o600))
            .and_then(|()| fs::rename(&bound, &path))
            .map_err(|source| {
                let _ = fs::remove_file(&bound);
                Error::io("create", self.path().join(name))(source)
            })?;
        Ok(listener)
    }

    pub(super) fn connect(&self, name: &str) -> Result<UnixStream> {
        let connected = UnixStream::connect(self.by_descriptor().join(name));
        connected.map_err(Error::io("connect to", self.path().join(name)))
    }

    /// An empty log.
    pub(super) fn create_log(&self) -> Result<File> {
        self.create_file(LOG)
    }

    /// The log, to add to.
    pub(super) fn open_log(&self) -> Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::CLOEXEC;
        let log = rustix::fs::openat(&self.dir, LOG, flags, Mode::RUSR | Mode::WUSR);
        log.map(File::from).map_err(|errno| Error::io("open", self.path().join(LOG))(errno.into()))
    }

    /// The log's last lines, on one line; empty if there are none.
    pub(super) fn log_tail(&self) -> String {
        let Ok(log) = rustix::fs::openat(&self.dir, LOG, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) else {
            return String::new();
        };
        let mut log = File::from(log);
        let len_bytes = log.metadata().map(|meta| meta.len()).unwrap_or(0);
        let mut tail = Vec::new();
        let from = SeekFrom::Start(len_bytes.saturating_sub(LOG_TAIL_BYTES));
        if log.seek(from).and_then(|_| log.take(LOG_TAIL_BYTES).read_to_end(&mut tail)).is_err() {
            return String::new();
        }
        let text = String::from_utf8_lossy(&tail);
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        lines.join(" / ")
    }

    /// An empty pid file. The process writes it itself: a daemon that dies at once has not lost it.
    pub(super) fn create_pid_file(&self) -> Result<File> {
        self.create_file(PID)
    }

    pub(super) fn read_pid(&self) -> Option<u32> {
        let file = rustix::fs::openat(&self.dir, PID, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
        let mut text = String::new();
        File::from(file).take(PID_FILE_BYTES_MAX).read_to_string(&mut text).ok()?;
        text.trim().parse().ok()
    }

    /// Removes sockets and pid file, if they are that process's (or nobody's). The log stays.
    pub(super) fn clean(&self, pid: Option<u32>) {
        let owner = self.read_pid();
        if owner.is_some() && pid.is_some() && owner != pid {
            return;
        }
        for name in [MONITOR, KEEPER, CONSOLE, AGENT, NBD, PID, INTENT] {
            self.remove(name);
        }
    }

    /// Removes what is of that name. Missing is fine, and for the rest there is no remedy.
    pub(super) fn remove(&self, name: &str) {
        let _ = rustix::fs::unlinkat(&self.dir, name, AtFlags::empty());
    }

    pub(super) fn open_file(&self, name: &str) -> std::io::Result<File> {
        let file = rustix::fs::openat(&self.dir, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        Ok(File::from(file?))
    }

    pub(super) fn create_file(&self, name: &str) -> Result<File> {
        // A new file, not the old one emptied: somebody may still be writing to that.
        let _ = rustix::fs::unlinkat(&self.dir, name, AtFlags::empty());
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::APPEND | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.dir, name, flags, Mode::RUSR | Mode::WUSR);
        file.map(File::from).map_err(|errno| Error::io("create", self.path().join(name))(errno.into()))
    }
}

fn bound_name(name: &str, process: u32, number: u32) -> String {
    format!(".{name}-{process:x}-{number:x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_longer_than_a_socket_s_address_will_do() {
        let base = tempfile::tempdir().unwrap();
        let run = RunDir::create(&base.path().join("x".repeat(200))).unwrap();
        let listener = run.listen(MONITOR).unwrap();
        assert!(run.connect(MONITOR).is_ok());
        assert!(listener.accept().is_ok());
    }

    #[test]
    fn it_follows_its_directory() {
        let base = tempfile::tempdir().unwrap();
        let run = RunDir::create(&base.path().join("a")).unwrap();
        let _listener = run.listen(MONITOR).unwrap();
        fs::rename(base.path().join("a"), base.path().join("b")).unwrap();
        assert_eq!(run.path(), base.path().join("b").canonicalize().unwrap());
        assert!(run.connect(MONITOR).is_ok());
        run.clean(None);
        assert_eq!(fs::read_dir(base.path().join("b")).unwrap().count(), 0);
    }

    #[test]
    fn another_process_s_files_stay() {
        let base = tempfile::tempdir().unwrap();
        let run = RunDir::create(base.path()).unwrap();
        let _listener = run.listen(CONSOLE).unwrap();
        fs::write(base.path().join("pid"), "7\n").unwrap();
        run.clean(Some(8));
        assert!(base.path().join("con").exists());
        run.clean(Some(7));
        assert!(!base.path().join("con").exists());
    }
}
