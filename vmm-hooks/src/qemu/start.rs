//! How a process comes to be ours: started, or found again.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use super::args::{self, Sockets, Start};
use super::guest::Guest;
use super::process::Process;
use super::qmp::Qmp;
use super::rundir::{CONSOLE, MONITOR, RunDir};
use crate::limits::{COMMAND_TIMEOUT, GONE_GRACE, KILL_TIMEOUT, START_TIMEOUT};
use crate::{Error, HostFacts, Machine, Result};

/// A process with its vCPUs stopped. Unless it is kept, it is killed when this is dropped, by an error or a caller that
/// gave up.
pub(super) struct Started {
    pub(super) guest: Arc<Guest>,
    undo: Undo,
}

impl Started {
    pub(super) fn keep(self) -> Arc<Guest> {
        let Started { guest, mut undo } = self;
        undo.0 = None;
        guest
    }
}

struct Undo(Option<(Arc<Process>, Arc<RunDir>)>);

impl Drop for Undo {
    fn drop(&mut self) {
        if let Some((process, run)) = self.0.take() {
            process.kill();
            // So that whoever sees the error sees no process either. The kernel takes milliseconds.
            process.block_until_gone(KILL_TIMEOUT);
            run.clean(Some(process.pid()));
        }
    }
}

/// Starts QEMU and waits for its monitor.
pub(super) async fn start(binary: &Path, machine: &Machine, host: &HostFacts, start: Start) -> Result<Started> {
    let run = Arc::new(RunDir::create(&machine.dir)?);
    run.clean(None);
    let (process, stream) = match spawn(binary, machine, host, start, &run) {
        Ok(spawned) => spawned,
        Err(error) => {
            run.clean(None);
            return Err(error);
        }
    };
    let undo = Undo(Some((Arc::clone(&process), Arc::clone(&run))));
    tracing::info!(machine = machine.name, pid = process.pid(), ?start, "QEMU started");
    let qmp = Qmp::connect(&machine.name, Arc::clone(&run), stream, START_TIMEOUT).await?;
    let guest = Arc::new(Guest::new(machine, run, process, qmp));
    Ok(Started { guest, undo })
}

fn spawn(
    binary: &Path,
    machine: &Machine,
    host: &HostFacts,
    start: Start,
    run: &RunDir,
) -> Result<(Arc<Process>, std::os::unix::net::UnixStream)> {
    let monitor = OwnedFd::from(run.listen(MONITOR)?);
    let console = OwnedFd::from(run.listen(CONSOLE)?);
    let sockets = Sockets { monitor: monitor.as_raw_fd(), console: console.as_raw_fd() };
    let line = args::command_line(machine, host, start, sockets)?;
    let (pid_file, log) = (run.create_pid_file()?, run.create_log()?);
    // The socket listens already: the connection is made before its server is there, and never has to be tried again.
    let stream = run.connect(MONITOR)?;
    let process = Process::spawn(binary, &line, vec![monitor, console], pid_file, log);
    let process = process.map_err(|source| Error::Binary { binary: binary.into(), source })?;
    Ok((Arc::new(process), stream))
}

/// The machine's process, if there is one in its directory.
fn find(machine: &Machine) -> Result<Option<(Process, RunDir)>> {
    let Some(run) = RunDir::open(&machine.dir)? else {
        return Ok(None);
    };
    let Some(pid) = run.read_pid() else {
        return Ok(None);
    };
    let process = Process::find(pid, &machine.uuid).map_err(Error::io("look at the process of", &machine.dir))?;
    Ok(process.map(|process| (process, run)))
}

/// Two processes on the same files would destroy them.
pub(super) fn refuse_second(machine: &Machine) -> Result<()> {
    match find(machine)? {
        Some((process, _)) => Err(Error::AlreadyRunning { name: machine.name.clone(), pid: process.pid() }),
        None => Ok(()),
    }
}

/// Connects to a process that somebody else started.
pub(super) async fn adopt(machine: &Machine) -> Result<Option<Arc<Guest>>> {
    let Some((process, run)) = find(machine)? else {
        return Ok(None);
    };
    let (process, run) = (Arc::new(process), Arc::new(run));
    let connected = async {
        let qmp = Qmp::connect(&machine.name, Arc::clone(&run), run.connect(MONITOR)?, COMMAND_TIMEOUT).await?;
        let guest = Guest::new(machine, Arc::clone(&run), Arc::clone(&process), qmp);
        let status = guest.status().await?;
        Ok((Arc::new(guest), status))
    };
    let (guest, status) = match connected.await {
        Ok(connected) => connected,
        Err(_) if process.wait_gone(GONE_GRACE).await => {
            run.clean(Some(process.pid()));
            return Ok(None);
        }
        // A timeout here means another client: the monitor serves one at a time.
        Err(error) => return Err(error),
    };
    if status == "inmigrate" {
        tracing::warn!(machine = machine.name, pid = guest.process.pid(), "half restored: ended");
        guest.quit().await?;
        return Ok(None);
    }
    tracing::info!(machine = machine.name, pid = guest.process.pid(), "QEMU adopted");
    Ok(Some(guest))
}
