//! A guest that is only files: a stopped machine's disks, or those of a machine that somebody else runs and that is driven
//! by commands.
//!
//! There is no process of ours. What takes a process's place is a small durable record in the machine's directory: a later
//! daemon adopts by it, and resumes what an earlier one had paused.
//!
//! A machine may come from a stranger's spec, so that a command is not a path: it names a program in a directory that the
//! node's operator fills.

mod guest;
mod keeper;
mod record;

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::command::{Commander, Ended};
use crate::keeper::Keeping;
use crate::{Error, Health, HostFacts, Machine, Probe, Result, Vm, Vmm};
use guest::{Guest, blocking};
pub(crate) use keeper::Kept;
use record::State;

/// Programs that drive a machine, each with its arguments; an empty one is not there.
///
/// They run in the machine's directory, one at a time, with `FORM_INSTANCE` (the machine's name), `FORM_DIR` (its
/// directory) and `FORM_COMMAND` (`pause` …) in their environment; what they print goes into the file `log` there. One
/// that was cut short by the end of the daemon is run again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commands {
    /// Stops all writes to the files, and has what was written in them.
    pub pause: Vec<String>,
    /// The reverse; run whatever became of the pause.
    pub resume: Vec<String>,
    /// Starts the machine on the files in its directory.
    pub start: Vec<String>,
    /// Ends it, running or paused.
    pub stop: Vec<String>,
    /// How long each may take, in seconds.
    pub timeout_s: u32,
}

/// Where [`Files`] finds and leaves things.
#[derive(Clone, Debug)]
pub struct FilesConfig {
    /// The programs that [`Commands`] name.
    pub programs: PathBuf,
    /// Made if missing: a link for each running machine, of its name, to its directory.
    pub links: PathBuf,
    /// What stands by during a capture.
    pub keeping: Keeping,
}

/// The hook for machines that are only files.
///
/// Of a [`Machine`] it uses name, uuid, directory, disks (its memory file, if it has one, is one of them) and commands. A
/// machine without commands is paused by nothing: whoever writes to its files has to leave them alone during a capture.
#[derive(Debug)]
pub struct Files {
    config: Arc<FilesConfig>,
}

impl Files {
    /// Nothing is looked at yet.
    pub fn new(config: FilesConfig) -> Self {
        Files { config: Arc::new(config) }
    }

    /// For a health probe, with the time that it has.
    fn commander(&self, machine: &Machine, health: &Health) -> Result<Commander> {
        let absolute = |path| std::path::absolute(path).map_err(Error::io("find", path));
        let (dir, programs) = (absolute(&machine.dir)?, absolute(&self.config.programs)?);
        Ok(Commander { name: machine.name.clone(), dir, programs, timeout: health.timeout() })
    }

    /// A machine of which everything that it needs is there.
    fn make(&self, machine: &Machine) -> Result<Guest> {
        machine.check_names()?;
        for disk in &machine.disks {
            machine.open("disk", &disk.path)?;
        }
        let guest = Guest::new(machine, Arc::clone(&self.config))?;
        guest.check_programs()?;
        match guest.record.read()? {
            None => Ok(guest),
            Some(state) => {
                let state = state.word().into();
                Err(Error::WrongState { operation: "start", name: machine.name.clone(), state })
            }
        }
    }
}

/// Of files nothing else can be asked.
fn question<'a>(machine: &Machine, health: &'a Health) -> Result<&'a [String]> {
    match &health.probe {
        Probe::Command(words) => Ok(words),
        other => {
            let problem = format!("must not ask for {other}: a machine of files answers to a command alone");
            Err(Error::Machine { name: machine.name.clone(), field: "health", problem })
        }
    }
}

fn refuse_state(machine: &Machine, device_state: Option<&File>) -> Result<()> {
    let reason = || "files have none".to_owned();
    match device_state {
        None => Ok(()),
        Some(_) => Err(Error::DeviceState { operation: "load", name: machine.name.clone(), reason: reason() }),
    }
}

#[async_trait]
impl Vmm for Files {
    async fn host(&self) -> Result<HostFacts> {
        let none = || "none".to_owned();
        // Files fit every host: the version is that of what a record and the commands mean.
        let (machine_type, accelerator, cpu_model) = (none(), none(), none());
        Ok(HostFacts { vmm: "files".into(), version: "1".into(), machine_type, accelerator, cpu_model })
    }

    async fn boot(&self, machine: &Machine) -> Result<Arc<dyn Vm>> {
        let guest = Arc::new(self.make(machine)?);
        let started = Arc::clone(&guest);
        blocking(&guest.name, move || started.boot()).await?;
        Ok(guest)
    }

    async fn restore(&self, machine: &Machine, device_state: Option<File>) -> Result<Arc<dyn Vm>> {
        refuse_state(machine, device_state.as_ref())?;
        let guest = self.make(machine)?;
        guest.record.write(State::Made)?;
        Ok(Arc::new(guest))
    }

    async fn can_probe(&self, machine: &Machine, health: &Health) -> Result<()> {
        let commander = self.commander(machine, health)?;
        commander.check("health probe", question(machine, health)?)
    }

    /// There is nothing to be run: its files are looked at, by the names that they have in [`Machine::dir`], where each is a
    /// link. Whoever has asked sees that they were left alone.
    async fn probe(&self, machine: &Machine, device_state: Option<File>, health: &Health) -> Result<()> {
        refuse_state(machine, device_state.as_ref())?;
        machine.check_names()?;
        let (commander, command) = (self.commander(machine, health)?, question(machine, health)?.to_vec());
        let own = machine.clone();
        let ended = blocking(&machine.name, move || {
            guest::make_dir(&commander.dir)?;
            for disk in &own.disks {
                own.open("disk", &disk.path)?;
                let link = commander.dir.join(disk.path.file_name().unwrap_or_default());
                std::os::unix::fs::symlink(&disk.path, &link).map_err(Error::io("link", &link))?;
            }
            commander.try_run("health", &command)
        });
        let reason = match ended.await? {
            Ended::Well => return Ok(()),
            Ended::Badly(reason) => reason,
            Ended::Late(said) => format!("it did not end within {} s{said}", health.timeout_s),
        };
        Err(Error::Unhealthy { name: machine.name.clone(), probe: health.probe.to_string(), reason })
    }

    async fn adopt(&self, machine: &Machine) -> Result<Option<Arc<dyn Vm>>> {
        machine.check_names()?;
        if !machine.dir.is_dir() {
            return Ok(None);
        }
        let guest = Guest::new(machine, Arc::clone(&self.config))?;
        let free = guest.clone();
        blocking(&guest.name, move || free.wait_for_no_keeper()).await?;
        let Some(state) = guest.record.read()? else { return Ok(None) };
        if state != State::Made {
            guest.link()?;
        }
        tracing::info!(machine = machine.name, ?state, "files adopted");
        Ok(Some(Arc::new(guest)))
    }
}
