//! Everything that one run has on this machine: a directory, and the processes that name it.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::{Context, Error, Result, signals};

/// How long processes get to be gone after SIGKILL.
const GONE_WITHIN: Duration = Duration::from_secs(20);

/// A directory of its own below /var/tmp (or `TMPDIR`): guests' disks are large, so that it should be on a disk. Dropped,
/// it takes all with it; so it does when the run is interrupted.
#[derive(Debug)]
pub struct Scene {
    dir: PathBuf,
    kept: bool,
}

impl Scene {
    /// # Errors
    /// The file system's.
    pub fn new() -> Result<Self> {
        let parent = std::env::var_os("TMPDIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
        // A short name: the path of a socket in it may have 107 bytes.
        let dir = tempfile::Builder::new().prefix("form.").rand_bytes(6).tempdir_in(&parent);
        let dir = dir.context(|| format!("make a directory in {}", parent.display()))?.keep();
        signals::on_interrupt_remove(&dir)?;
        Ok(Self { dir, kept: false })
    }

    /// The scene of an earlier run that was kept. It must have been made by one.
    ///
    /// # Errors
    /// The directory is none of ours.
    pub fn of(dir: &Path) -> Result<Self> {
        let dir = dir.canonicalize().context(|| format!("find {}", dir.display()))?;
        let ours =
            dir.file_name().is_some_and(|name| name.as_bytes().starts_with(b"form.")) && dir.join("store").is_dir();
        if !ours {
            return Err(Error::new(format!("{} is not the directory of a demo", dir.display())));
        }
        Ok(Self { dir, kept: false })
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Leaves everything as it is when the scene is dropped.
    pub fn keep(&mut self) {
        signals::forget(&self.dir);
        self.kept = true;
    }

    /// Nodes and QEMUs that run in it.
    pub fn processes(&self) -> Vec<Pid> {
        processes(&self.dir, |kind| kind == Kind::Form || kind == Kind::Qemu)
    }

    /// Ends every process of it, and leaves its files to whoever looks for the reason.
    ///
    /// # Errors
    /// What could not be ended.
    pub fn keep_files(&mut self) -> Result<()> {
        self.keep();
        end(&self.dir)
    }

    /// Ends every process of it and removes the directory.
    ///
    /// # Errors
    /// What could not be ended or removed.
    pub fn remove(&self) -> Result<()> {
        remove(&self.dir)
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        if let Err(error) = self.remove() {
            eprintln!("left behind: {error:?}");
        }
        signals::forget(&self.dir);
    }
}

pub(crate) fn remove(dir: &Path) -> Result<()> {
    end(dir)?;
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).context(|| format!("remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}

/// Ends every process that names the directory.
fn end(dir: &Path) -> Result<()> {
    let until = Instant::now() + GONE_WITHIN;
    loop {
        let left = processes(dir, |_| true);
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() > until {
            return Err(Error::new(format!("processes {left:?} of {} do not end", dir.display())));
        }
        for pid in left {
            // Gone already is what is wanted.
            let _ = kill_process(pid, Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What a scene starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Form,
    Qemu,
    /// A script of the scene: what holds a room, or stands in for QEMU.
    Script,
}

fn processes(dir: &Path, wanted: impl Fn(Kind) -> bool) -> Vec<Pid> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let ours = |pid: &i32| kind(&std::fs::read(format!("/proc/{pid}/cmdline")).ok()?, dir);
    pids.filter(|pid| ours(pid).is_some_and(&wanted)).filter_map(Pid::from_raw).collect()
}

/// What a command line (words end with NUL) is to the scene: the program is one that a scene runs, and a word names the
/// scene. Somebody who reads a log there is left alone.
fn kind(line: &[u8], dir: &Path) -> Option<Kind> {
    let mut words = line.split(|byte| *byte == 0);
    let program = words.next()?.rsplit(|byte| *byte == b'/').next()?;
    let dir = dir.as_os_str().as_bytes();
    let names_dir = |word: &[u8]| word.windows(dir.len()).any(|part| part == dir);
    match program {
        b"form" => words.any(names_dir).then_some(Kind::Form),
        b"sh" => words.next()?.starts_with(dir).then_some(Kind::Script),
        _ => (program.starts_with(b"qemu-system-") && words.any(names_dir)).then_some(Kind::Qemu),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_scene_starts_is_its_own() {
        let dir = Path::new("/var/tmp/form.abc");
        for (line, expected) in [
            ("/x/form\0node\0run\0--data\0/var/tmp/form.abc/n1\0", Some(Kind::Form)),
            ("/usr/bin/qemu-system-x86_64\0-object\0mem-path=/var/tmp/form.abc/n1/ram\0", Some(Kind::Qemu)),
            ("/bin/sh\0/var/tmp/form.abc/qemu\0-S\0", Some(Kind::Script)),
            ("/bin/sh\0-c\0demo stop /var/tmp/form.abc\0", None),
            ("tail\0-f\0/var/tmp/form.abc/n1.log\0", None),
            ("/x/form\0node\0run\0--data\0/var/tmp/form.xyz/n1\0", None),
            ("", None),
        ] {
            assert_eq!(kind(line.as_bytes(), dir), expected, "{line:?}");
        }
    }

    #[test]
    fn it_takes_its_processes_and_files_with_it() {
        let scene = Scene::new().unwrap();
        let script = scene.dir().join("sleeper");
        std::fs::write(&script, "#!/bin/sh\nread nothing\n").unwrap();
        let mut child =
            std::process::Command::new("/bin/sh").arg(&script).stdin(std::process::Stdio::piped()).spawn().unwrap();
        let until = Instant::now() + GONE_WITHIN;
        let running = || processes(scene.dir(), |kind| kind == Kind::Script).len();
        while running() == 0 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(running(), 1);
        let dir = scene.dir().to_owned();
        drop(scene);
        assert!(!dir.exists());
        assert!(!child.wait().unwrap().success());
    }
}
