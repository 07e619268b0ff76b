//! A monitor without guests, for tests that reach what the real one can't: failures at a chosen step, on a chosen machine.
//!
//! A process is an entry in the [`FakeVmm`], so that another daemon in the same test can adopt it. RAM and disks are the
//! machine's own files; nothing writes to them but the test (and [`FakeVm`](Vm)'s boot, which makes the RAM file). The
//! device state says what it was captured from, and a restore checks that against the machine.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use async_trait::async_trait;

use crate::{Captured, Cuts, Error, Health, HostFacts, Keeps, Machine, Result, Vm, VmState, Vmm, WhilePaused, Written};

/// Where a failure can be put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// [`Vmm::boot`].
    Boot,
    /// [`Vmm::restore`].
    Restore,
    /// [`Vmm::probe`]: the guest is not well.
    Probe,
    /// [`Vmm::adopt`].
    Adopt,
    /// [`Vm::pause`].
    Pause,
    /// [`Vm::resume`].
    Resume,
    /// [`Vm::set_link`].
    SetLink,
    /// [`Vm::capture`], before the guest is stopped.
    CaptureStop,
    /// [`Vm::capture`], while the device state is written.
    CaptureState,
    /// [`Vm::capture`], when the guest should go on: it stays paused.
    CaptureResume,
    /// [`Vm::save`].
    Save,
    /// [`Vm::quit`].
    Quit,
}

/// The monitor. Clones are one and the same.
#[derive(Clone, Debug)]
pub struct FakeVmm {
    host: Arc<Mutex<HostFacts>>,
    world: Arc<Mutex<World>>,
}

#[derive(Debug, Default)]
struct World {
    processes: Vec<Process>,
    failures: Vec<(String, Step)>,
    written: HashMap<String, Written>,
    cuts: Vec<(String, Cuts)>,
    keeps: Vec<(String, Keeps)>,
    calls: Vec<(String, Step)>,
    twins: Vec<String>,
    silent: Vec<String>,
    free_memory_bytes: Option<u64>,
}

impl World {
    /// After each step that may let one run: looks for machines of which more than one does.
    fn note_twins(&mut self) {
        let running: Vec<&str> =
            self.processes.iter().filter(|p| p.state == VmState::Running).map(|p| p.machine.name.as_str()).collect();
        let twice =
            running.iter().enumerate().filter(|(at, name)| running.iter().take(*at).any(|other| other == *name));
        let twice: Vec<String> = twice.map(|(_, name)| (*name).to_owned()).collect();
        self.twins.extend(twice);
    }
}

#[derive(Debug)]
struct Process {
    machine: Machine,
    state: VmState,
    link_up: bool,
}

impl Default for FakeVmm {
    fn default() -> Self {
        Self::new("1")
    }
}

impl FakeVmm {
    /// A monitor of that version.
    pub fn new(version: &str) -> Self {
        let host = HostFacts {
            vmm: "fake".into(),
            version: version.into(),
            machine_type: "fake-1".into(),
            accelerator: "none".into(),
            cpu_model: "none".into(),
        };
        FakeVmm { host: Arc::new(Mutex::new(host)), world: Arc::default() }
    }

    /// The host gets another version; the processes that are there go on.
    pub fn upgrade(&self, version: &str) {
        self.host.lock().unwrap_or_else(PoisonError::into_inner).version = version.into();
    }

    /// Makes the next such step on the machine of that name fail, once.
    pub fn fail(&self, machine: &str, step: Step) {
        self.world().failures.push((machine.into(), step));
    }

    /// The next time that it is on probation, the machine of that name does not answer.
    pub fn say_nothing(&self, machine: &str) {
        self.world().silent.push(machine.into());
    }

    /// The host has that much memory left from now on; nobody can say at first.
    pub fn has_free_memory(&self, bytes: u64) {
        self.world().free_memory_bytes = Some(bytes);
    }

    /// What the machine of that name says from now on of where its disks were written to; true or not.
    pub fn say_written(&self, machine: &str, written: Written) {
        self.world().written.insert(machine.into(), written);
    }

    /// Every cut so far, in order, by machine.
    pub fn cuts(&self) -> Vec<(String, Cuts)> {
        self.world().cuts.clone()
    }

    /// What was to be kept of recordings so far, in order, by machine.
    pub fn keeps(&self) -> Vec<(String, Keeps)> {
        self.world().keeps.clone()
    }

    /// Machines of which at some moment two processes ran: there must be none.
    pub fn twins(&self) -> Vec<String> {
        self.world().twins.clone()
    }

    /// Every step so far, in order, by machine.
    pub fn calls(&self) -> Vec<(String, Step)> {
        self.world().calls.clone()
    }

    /// The processes that are there, by their machine's name: their state, and whether the link is up.
    pub fn processes(&self) -> Vec<(String, VmState, bool)> {
        let there = |process: &&Process| process.state != VmState::Gone;
        let world = self.world();
        let processes = world.processes.iter().filter(there);
        processes.map(|process| (process.machine.name.clone(), process.state, process.link_up)).collect()
    }

    /// Ends all processes of the machines of that name, as a crash would.
    pub fn crash(&self, machine: &str) {
        let mut world = self.world();
        let crashed = world.processes.iter_mut().filter(|process| process.machine.name == machine);
        crashed.for_each(|process| process.state = VmState::Gone);
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn step(&self, machine: &str, step: Step, name: &'static str) -> Result<()> {
        let mut world = self.world();
        world.calls.push((machine.into(), step));
        let planned = world.failures.iter().position(|failure| *failure == (machine.to_owned(), step));
        match planned {
            Some(planned) => {
                world.failures.remove(planned);
                Err(Error::Command { name: machine.into(), command: name, reason: "failure asked for".into() })
            }
            None => Ok(()),
        }
    }

    fn start(&self, machine: &Machine, state: VmState, link_up: bool) -> Result<Arc<dyn Vm>> {
        let mut world = self.world();
        let same = |process: &Process| process.machine.dir == machine.dir && process.state != VmState::Gone;
        if let Some(pid) = world.processes.iter().position(same) {
            return Err(Error::AlreadyRunning { name: machine.name.clone(), pid: number(pid) });
        }
        world.processes.push(Process { machine: machine.clone(), state, link_up });
        world.note_twins();
        let index = world.processes.len() - 1;
        Ok(Arc::new(FakeVm { vmm: self.clone(), name: machine.name.clone(), index }))
    }
}

#[async_trait]
impl Vmm for FakeVmm {
    async fn host(&self) -> Result<HostFacts> {
        Ok(self.host.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    async fn boot(&self, machine: &Machine) -> Result<Arc<dyn Vm>> {
        machine.check()?;
        self.step(&machine.name, Step::Boot, "boot")?;
        let ram = File::options().write(true).create(true).truncate(true).mode(0o600).open(&machine.ram_path);
        ram.and_then(|ram| ram.set_len(machine.memory_bytes)).map_err(Error::io("create", &machine.ram_path))?;
        self.start(machine, VmState::Running, machine.link_up)
    }

    async fn restore(&self, machine: &Machine, device_state: Option<File>) -> Result<Arc<dyn Vm>> {
        machine.check()?;
        self.step(&machine.name, Step::Restore, "restore")?;
        fits(machine, device_state)?;
        self.start(machine, VmState::Paused, false)
    }

    async fn can_probe(&self, _machine: &Machine, _health: &Health) -> Result<()> {
        Ok(())
    }

    fn free_memory_bytes(&self) -> Option<u64> {
        self.world().free_memory_bytes
    }

    /// A daemon that is lost meanwhile leaves the process.
    async fn probe(&self, machine: &Machine, device_state: Option<File>, health: &Health) -> Result<()> {
        machine.check()?;
        fits(machine, device_state)?;
        let vm = self.start(machine, VmState::Running, false)?;
        let silent = {
            let mut world = self.world();
            let at = world.silent.iter().position(|name| *name == machine.name);
            at.map(|at| world.silent.swap_remove(at)).is_some()
        };
        if silent {
            tokio::time::sleep(health.timeout()).await;
        }
        let well = self.step(&machine.name, Step::Probe, "probe");
        vm.quit().await?;
        let reason = match (silent, well) {
            (false, Ok(())) => return Ok(()),
            (true, _) => format!("no answer within {} s", health.timeout_s),
            (false, Err(error)) => error.to_string(),
        };
        Err(Error::Unhealthy { name: machine.name.clone(), probe: health.probe.to_string(), reason })
    }

    async fn end_others(&self, root: &Path, known: &HashSet<String>) -> Result<usize> {
        let mut world = self.world();
        let other = |process: &&mut Process| {
            process.state != VmState::Gone
                && process.machine.dir.starts_with(root)
                && !known.contains(&process.machine.uuid)
        };
        Ok(world.processes.iter_mut().filter(other).map(|process| process.state = VmState::Gone).count())
    }

    async fn adopt(&self, machine: &Machine) -> Result<Option<Arc<dyn Vm>>> {
        self.step(&machine.name, Step::Adopt, "adopt")?;
        let world = self.world();
        let same = |process: &Process| {
            process.machine.dir == machine.dir && process.machine.uuid == machine.uuid && process.state != VmState::Gone
        };
        let index = world.processes.iter().position(same);
        Ok(index.map(|index| Arc::new(FakeVm { vmm: self.clone(), name: machine.name.clone(), index }) as Arc<dyn Vm>))
    }
}

/// A restore of other files than those of the capture is refused.
fn fits(machine: &Machine, device_state: Option<File>) -> Result<()> {
    let mut found = String::new();
    let device_state = device_state.ok_or_else(|| needs_state("load", &machine.name))?;
    let read = device_state.take(4096).read_to_string(&mut found);
    read.map_err(Error::io("read the device state for", &machine.dir))?;
    if found != device_state_of(machine) {
        let reason = format!("does not fit this machine: {found:?}");
        return Err(Error::DeviceState { operation: "load", name: machine.name.clone(), reason });
    }
    let ram = machine.open("RAM file", &machine.ram_path)?.metadata();
    if ram.map_err(Error::io("look at", &machine.ram_path))?.len() != machine.memory_bytes {
        let problem = "is not the length of its RAM file".into();
        return Err(Error::Machine { name: machine.name.clone(), field: "memory_bytes", problem });
    }
    Ok(())
}

struct FakeVm {
    vmm: FakeVmm,
    name: String,
    index: usize,
}

impl FakeVm {
    /// Looks at the process, or changes it; an error if it is gone.
    fn with<T>(&self, operation: &'static str, act: impl FnOnce(&mut Process) -> T) -> Result<T> {
        match self.vmm.world().processes.get_mut(self.index) {
            Some(process) if process.state != VmState::Gone => Ok(act(process)),
            _ => Err(Error::Gone { operation, name: self.name.clone(), log: String::new() }),
        }
    }

    fn set(&self, operation: &'static str, state: VmState) -> Result<()> {
        self.with(operation, |process| process.state = state)?;
        self.vmm.world().note_twins();
        Ok(())
    }
}

#[async_trait]
impl Vm for FakeVm {
    fn pid(&self) -> u32 {
        number(self.index)
    }

    async fn state(&self) -> Result<VmState> {
        Ok(self.with("state", |process| process.state).unwrap_or(VmState::Gone))
    }

    async fn pause(&self) -> Result<()> {
        self.vmm.step(&self.name, Step::Pause, "pause")?;
        self.set("pause", VmState::Paused)
    }

    async fn resume(&self) -> Result<()> {
        self.vmm.step(&self.name, Step::Resume, "resume")?;
        self.set("resume", VmState::Running)
    }

    async fn set_link(&self, up: bool) -> Result<()> {
        self.vmm.step(&self.name, Step::SetLink, "set_link")?;
        self.with("set_link", |process| process.link_up = up)
    }

    /// What a test has put there, for those that ask.
    async fn cut(&self, cuts: &Cuts) -> Written {
        let mut world = self.vmm.world();
        world.cuts.push((self.name.clone(), cuts.clone()));
        let mut written = world.written.get(&self.name).cloned().unwrap_or_default();
        written.retain(|disk, _| cuts.get(disk).is_some_and(|cut| cut.since.is_some()));
        written
    }

    async fn keep(&self, keeps: &Keeps) {
        self.vmm.world().keeps.push((self.name.clone(), keeps.clone()));
    }

    async fn capture(&self, state_out: Option<File>, cuts: Cuts, while_paused: WhilePaused) -> Result<Captured> {
        let mut state_out = state_out.ok_or_else(|| needs_state("save", &self.name))?;
        let (state, content) = self.with("capture", |process| (process.state, device_state_of(&process.machine)))?;
        if state != VmState::Running {
            return Err(Error::WrongState { operation: "capture", name: self.name.clone(), state: "paused".into() });
        }
        self.vmm.step(&self.name, Step::CaptureStop, "stop")?;
        self.set("stop", VmState::Paused)?;
        let written = self.cut(&cuts).await;
        let begin = Instant::now();
        let saved = match self.vmm.step(&self.name, Step::CaptureState, "migrate") {
            Ok(()) => state_out.write_all(content.as_bytes()).map_err(Error::io("write", "device state")),
            Err(error) => Err(error),
        };
        let copied = match saved {
            Ok(()) => match tokio::task::spawn_blocking(move || while_paused(written)).await {
                Ok(copied) => copied.map_err(|source| Error::WhilePaused { name: self.name.clone(), source }),
                Err(_) => Err(Error::Panicked { name: self.name.clone() }),
            },
            Err(error) => Err(error),
        };
        let resumed = match self.vmm.step(&self.name, Step::CaptureResume, "cont") {
            Ok(()) => self.set("cont", VmState::Running),
            Err(error) => Err(error),
        };
        if let Err(source) = resumed {
            let capture = copied.err().map(Box::new);
            return Err(Error::NotResumed { name: self.name.clone(), capture, source: Box::new(source) });
        }
        copied?;
        let pause_ns = u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1);
        Ok(Captured { pause_ns, copy_ns: pause_ns, ..Captured::default() })
    }

    async fn save(&self, mut state_out: File) -> Result<()> {
        self.vmm.step(&self.name, Step::Save, "save")?;
        let (state, content) = self.with("save", |process| (process.state, device_state_of(&process.machine)))?;
        if state != VmState::Paused {
            return Err(Error::WrongState { operation: "save", name: self.name.clone(), state: "running".into() });
        }
        state_out.write_all(content.as_bytes()).map_err(Error::io("write", "device state"))
    }

    async fn quit(&self) -> Result<()> {
        self.vmm.step(&self.name, Step::Quit, "quit")?;
        // Gone already is fine.
        let _ = self.set("quit", VmState::Gone);
        Ok(())
    }

    /// There is none: nobody listens at this path.
    fn console(&self) -> PathBuf {
        self.with("console", |process| process.machine.dir.join("con")).unwrap_or_default()
    }
}

fn needs_state(operation: &'static str, name: &str) -> Error {
    Error::DeviceState { operation, name: name.into(), reason: "no file for it was given".into() }
}

fn device_state_of(machine: &Machine) -> String {
    format!("fake device state of {} bytes and {} disks\n", machine.memory_bytes, machine.disks.len())
}

fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}
