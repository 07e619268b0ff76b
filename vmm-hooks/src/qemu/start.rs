//! How a process comes to be ours: started, or found again.

use std::collections::HashSet;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use super::args::{self, Sockets, Start};
use super::guest::Guest;
use super::images::Images;
use super::intent::Intent;
use super::process::Process;
use super::qmp::Qmp;
use super::rundir::{AGENT, CONSOLE, KEEPER, MONITOR, RunDir};
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

    /// Ends it where it stands; an error if it does not go.
    pub(super) async fn kill(self) -> Result<()> {
        let process = &self.guest.process;
        process.kill();
        match process.wait_gone(KILL_TIMEOUT).await {
            true => Ok(()),
            false => Err(self.guest.late("end", KILL_TIMEOUT)),
        }
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
pub(super) async fn start(
    binary: &Path,
    machine: &Machine,
    host: &HostFacts,
    start: Start,
    images: Images,
) -> Result<Started> {
    let run = Arc::new(RunDir::create(&machine.dir)?);
    run.clean(None);
    let (process, stream) = match spawn(binary, machine, host, start, images, &run) {
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
    images: Images,
    run: &RunDir,
) -> Result<(Arc<Process>, std::os::unix::net::UnixStream)> {
    let monitor = OwnedFd::from(run.listen(MONITOR)?);
    let keeper = OwnedFd::from(run.listen(KEEPER)?);
    let console = OwnedFd::from(run.listen(CONSOLE)?);
    let agent = machine.agent.then(|| run.listen(AGENT)).transpose()?.map(OwnedFd::from);
    let sockets = Sockets {
        monitor: monitor.as_raw_fd(),
        keeper: keeper.as_raw_fd(),
        console: console.as_raw_fd(),
        agent: agent.as_ref().map(AsRawFd::as_raw_fd),
    };
    let line = args::command_line(machine, host, start, sockets, &images.numbers())?;
    Intent::new(machine, &line).write(run)?;
    let (pid_file, log) = (run.create_pid_file()?, run.create_log()?);
    // The socket listens already: the connection is made before its server is there, and never has to be tried again.
    let stream = run.connect(MONITOR)?;
    let sockets = [monitor, keeper, console].into_iter().chain(agent);
    let inherit = sockets.chain(images.into_descriptors()).collect();
    let process = Process::spawn(binary, &line, &run.path(), inherit, pid_file, log);
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

/// Ends every QEMU on files below `root` whose uuid is none of `known`; how many there were.
pub(super) async fn end_others(root: &Path, known: &HashSet<String>) -> Result<usize> {
    let root = std::path::absolute(root).map_err(Error::io("find", root))?;
    let mut ended = 0;
    for pid in Process::all().map_err(Error::io("look at the processes of", &root))? {
        let Some(uuid) = args::uuid_of(&Process::arguments(pid), &root).filter(|uuid| !known.contains(uuid)) else {
            continue;
        };
        let found = Process::find(pid, &uuid).map_err(Error::io("look at a process of", &root))?;
        let Some(process) = found else { continue };
        tracing::warn!(pid, uuid, "a QEMU on files of ours that nothing else tells of: ended");
        process.kill();
        match process.wait_gone(KILL_TIMEOUT).await {
            true => ended += 1,
            false => {
                let after_ms = KILL_TIMEOUT.as_millis();
                return Err(Error::Timeout { operation: "end", name: uuid, after_ms });
            }
        }
    }
    Ok(ended)
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
        // What it is now, it may not stay.
        guest.wait_for_no_keeper("adopt").await?;
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
    Intent::read(&guest.run, machine)?.check(&guest).await?;
    tracing::info!(machine = machine.name, pid = guest.process.pid(), "QEMU adopted");
    Ok(Some(guest))
}
