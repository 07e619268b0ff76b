//! One command: run to its end or its deadline, its words in a log.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use crate::keeper::is_readable;
use crate::limits::LOG_TAIL_BYTES;
use crate::{Error, Result};

const LOG: &str = "log";

/// Whose commands, and where.
#[derive(Debug)]
pub(crate) struct Commander {
    pub(crate) name: String,
    pub(crate) dir: PathBuf,
    pub(crate) programs: PathBuf,
    pub(crate) timeout: Duration,
}

/// How a command ended; with what it said, if it said anything.
pub(crate) enum Ended {
    Well,
    Badly(String),
    /// It was killed.
    Late(String),
}

impl Commander {
    /// The program that a command names.
    fn program(&self, what: &'static str, word: &str) -> Result<PathBuf> {
        if !crate::machine::is_name(word) || word.starts_with('.') {
            let problem = format!("`{word}` of {what} is not the name of a program");
            return Err(Error::Machine { name: self.name.clone(), field: "commands", problem });
        }
        Ok(self.programs.join(word))
    }

    /// Refuses a command whose program could not be run.
    pub(crate) fn check(&self, what: &'static str, command: &[String]) -> Result<()> {
        let Some(word) = command.first() else { return Ok(()) };
        let path = self.program(what, word)?;
        let runs = path.metadata().and_then(|meta| match meta.is_file() && meta.permissions().mode() & 0o111 != 0 {
            true => Ok(()),
            false => Err(std::io::Error::other("not a program")),
        });
        runs.map_err(|source| Error::File { name: self.name.clone(), what, path, source })
    }

    /// Where commands and keepers say what they have to say.
    pub(crate) fn log(&self) -> Result<File> {
        let path = self.dir.join(LOG);
        let log = File::options().read(true).append(true).create(true).mode(0o600).open(&path);
        log.map_err(Error::io("open", &path))
    }

    /// Runs it; fine if it is empty. What it leaves running in the background is left alone, unless it was too late.
    pub(crate) fn run(&self, what: &'static str, command: &[String]) -> Result<()> {
        let name = || self.name.clone();
        match self.try_run(what, command)? {
            Ended::Well => Ok(()),
            Ended::Badly(reason) => Err(Error::Command { name: name(), command: what, reason }),
            Ended::Late(_) => Err(Error::Timeout { operation: what, name: name(), after_ms: self.timeout.as_millis() }),
        }
    }

    /// The same, for whoever wants to know what came of it; an error if it could not be run.
    pub(crate) fn try_run(&self, what: &'static str, command: &[String]) -> Result<Ended> {
        let Some((word, arguments)) = command.split_first() else { return Ok(Ended::Well) };
        let path = self.program(what, word)?;
        let (log_path, log) = (self.dir.join(LOG), self.log()?);
        let from = log.metadata().map_err(Error::io("look at", &log_path))?.len();
        let own = |what| log.try_clone().map_err(Error::io(what, &log_path));
        let mut process = Command::new(&path);
        process.args(arguments).current_dir(&self.dir).process_group(0);
        process.env("FORM_INSTANCE", &self.name).env("FORM_DIR", &self.dir).env("FORM_COMMAND", what);
        process.stdin(Stdio::null()).stdout(own("write to")?).stderr(own("write to")?);
        let child = process.spawn();
        let child =
            child.map_err(|source| Error::File { name: self.name.clone(), what, path: path.clone(), source })?;
        match self.wait(&path, child)? {
            Some(status) if status.success() => Ok(Ended::Well),
            Some(status) => Ok(Ended::Badly(format!("{status}{}", tail(log, from)))),
            None => Ok(Ended::Late(tail(log, from))),
        }
    }

    /// `None` if it was too late.
    fn wait(&self, path: &Path, mut child: Child) -> Result<Option<ExitStatus>> {
        let failed = |error: std::io::Error| Error::io("run", path)(error);
        let pid = Pid::from_child(&child);
        let until = Instant::now() + self.timeout;
        let ended = pidfd_open(pid, PidfdFlags::empty()).map_err(std::io::Error::from);
        let ended = ended.and_then(|pidfd| is_readable(&pidfd, until));
        if !matches!(ended, Ok(true)) {
            // The group is its own: whatever it has started goes with it. Gone already is fine.
            let _ = kill_process_group(pid, Signal::KILL);
        }
        let status = child.wait().map_err(failed)?;
        Ok(ended.map_err(failed)?.then_some(status))
    }
}

/// What it said last, on one line.
fn tail(mut log: File, from: u64) -> String {
    let end = log.metadata().map_or(from, |meta| meta.len());
    let mut said = Vec::new();
    let start = from.max(end.saturating_sub(LOG_TAIL_BYTES));
    if log.seek(SeekFrom::Start(start)).and_then(|_| log.take(LOG_TAIL_BYTES).read_to_end(&mut said)).is_err() {
        return String::new();
    }
    let text = String::from_utf8_lossy(&said);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if lines.is_empty() { String::new() } else { format!("; it said: {}", lines.join(" / ")) }
}
