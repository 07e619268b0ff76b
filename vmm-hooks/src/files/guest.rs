//! A machine of files: what is done to it, one thing at a time.

use std::fs::{self, File};
use std::os::unix::fs::DirBuilderExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;

use super::record::{Record, State};
use super::{Commands, FilesConfig};
use crate::command::Commander;
use crate::keeper::{self, Answer, Charge, Keeper, Kind, Order};
use crate::limits::{KEEPER_START_TIMEOUT, KEEPER_WAIT_TIMEOUT, RELEASE_INTERVAL};
use crate::{Captured, Cuts, Error, Machine, Result, Vm, VmState, WhilePaused, Written};

#[derive(Debug, Clone)]
pub(super) struct Guest {
    pub(super) name: String,
    pub(super) record: Arc<Record>,
    dir: PathBuf,
    commands: Commands,
    commander: Arc<Commander>,
    config: Arc<FilesConfig>,
    /// Held while anything is done to it. The record is what counts: another handle may have written it.
    turn: Arc<Mutex<()>>,
}

/// Runs what blocks to its end, whether or not somebody still waits for it: a runtime that shuts down waits too.
pub(super) async fn blocking<T: Send + 'static>(
    name: &str,
    f: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(f).await.unwrap_or(Err(Error::Panicked { name: name.into() }))
}

pub(super) fn make_dir(dir: &Path) -> Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(Error::io("make", dir))
}

impl Guest {
    pub(super) fn new(machine: &Machine, config: Arc<FilesConfig>) -> Result<Self> {
        let absolute = |path| std::path::absolute(path).map_err(Error::io("find", path));
        let dir = absolute(&machine.dir)?;
        make_dir(&dir)?;
        let commander = Commander {
            name: machine.name.clone(),
            dir: dir.clone(),
            programs: absolute(&config.programs)?,
            timeout: Duration::from_secs(machine.commands.timeout_s.into()),
        };
        Ok(Guest {
            name: machine.name.clone(),
            record: Arc::new(Record::new(&dir, &machine.uuid)),
            dir,
            commands: machine.commands.clone(),
            commander: Arc::new(commander),
            config,
            turn: Arc::default(),
        })
    }

    /// Everything that will be run is there: what is missing is said before anything is paused.
    pub(super) fn check_programs(&self) -> Result<()> {
        let Commands { pause, resume, start, stop, .. } = &self.commands;
        let all = [("pause command", pause), ("resume command", resume), ("start command", start)];
        all.into_iter().chain([("stop command", stop)]).try_for_each(|(what, c)| self.commander.check(what, c))
    }

    pub(super) fn boot(&self) -> Result<()> {
        self.record.write(State::Made)?;
        let started = self.resume();
        if started.is_err() {
            self.record.remove()?;
        }
        started
    }

    /// A name for the directory that stays the same from commit to commit, while that has another each time.
    pub(super) fn link(&self) -> Result<()> {
        let links = &self.config.links;
        let link = links.join(&self.name);
        if fs::read_link(&link).is_ok_and(|to| to == self.dir) {
            return Ok(());
        }
        let new = links.join(format!(".{}", self.name));
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(links).and_then(|()| {
            let _ = fs::remove_file(&new); // of one that was cut short
            std::os::unix::fs::symlink(&self.dir, &new)?;
            fs::rename(&new, &link)
        });
        made.map_err(Error::io("link", &link))
    }

    /// Nobody else does anything to it meanwhile; a keeper that is left from a capture has ended.
    fn alone<T>(&self, f: impl FnOnce() -> Result<T>) -> Result<T> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.wait_for_no_keeper()?;
        f()
    }

    pub(super) fn wait_for_no_keeper(&self) -> Result<()> {
        let until = Instant::now() + KEEPER_WAIT_TIMEOUT;
        while keeper::is_there(&self.dir).map_err(Error::io("look for a keeper at", &self.dir))? {
            if Instant::now() >= until {
                let (name, after_ms) = (self.name.clone(), KEEPER_WAIT_TIMEOUT.as_millis());
                return Err(Error::Timeout { operation: "wait for the keeper", name, after_ms });
            }
            std::thread::sleep(RELEASE_INTERVAL);
        }
        Ok(())
    }

    fn pause(&self) -> Result<()> {
        self.alone(|| match self.record.read()? {
            None => Err(self.gone("pause")),
            Some(State::Made | State::Paused) => Ok(()),
            Some(State::Running) => {
                self.record.write(State::Paused)?;
                let paused = self.commander.run("pause", &self.commands.pause);
                if paused.is_err() {
                    // It may have come half way.
                    match self.commander.run("resume", &self.commands.resume) {
                        Ok(()) => self.record.write(State::Running)?,
                        Err(error) => tracing::error!(machine = self.name, %error, "it may still be paused"),
                    }
                }
                paused
            }
        })
    }

    fn resume(&self) -> Result<()> {
        self.alone(|| {
            match self.record.read()? {
                None => return Err(self.gone("resume")),
                Some(State::Running) => return Ok(()),
                Some(State::Paused) => self.commander.run("resume", &self.commands.resume)?,
                Some(State::Made) => {
                    self.link()?;
                    self.commander.run("start", &self.commands.start)?;
                }
            }
            self.record.write(State::Running)
        })
    }

    fn capture(&self, while_paused: WhilePaused) -> Result<Captured> {
        self.alone(|| {
            match self.record.read()? {
                None => return Err(self.gone("capture")),
                Some(State::Running) => {}
                Some(state) => {
                    let state = state.word().into();
                    return Err(Error::WrongState { operation: "capture", name: self.name.clone(), state });
                }
            }
            let mut driver = Driver::new(self)?;
            // First the record: whoever finds it resumes.
            self.record.write(State::Paused)?;
            let begin = Instant::now();
            let paused = driver.pause();
            let stop_ns = nanos(begin.elapsed());
            let copied = paused.and_then(|()| self.copy(while_paused));
            let copy_ns = nanos(begin.elapsed()).saturating_sub(stop_ns);
            let resumed = driver.resume();
            let pause_ns = nanos(begin.elapsed()).max(1);
            match resumed {
                Ok(()) => {}
                Err(error @ Error::Voided { .. }) => return Err(error),
                Err(source) => {
                    tracing::error!(machine = self.name, %source, "STILL PAUSED after its capture");
                    let capture = copied.err().map(Box::new);
                    return Err(Error::NotResumed { name: self.name.clone(), capture, source: Box::new(source) });
                }
            }
            self.record.write(State::Running)?;
            driver.dismiss();
            copied?;
            Ok(Captured { pause_ns, stop_ns, state_ns: 0, copy_ns })
        })
    }

    fn copy(&self, while_paused: WhilePaused) -> Result<()> {
        match catch_unwind(AssertUnwindSafe(|| while_paused(Written::new()))) {
            Ok(copied) => copied.map_err(|source| Error::WhilePaused { name: self.name.clone(), source }),
            Err(_) => Err(Error::Panicked { name: self.name.clone() }),
        }
    }

    fn quit(&self) -> Result<()> {
        self.alone(|| {
            match self.record.read()? {
                None => return Ok(()),
                Some(State::Made) => {}
                Some(State::Running | State::Paused) => self.commander.run("stop", &self.commands.stop)?,
            }
            let link = self.config.links.join(&self.name);
            if fs::read_link(&link).is_ok_and(|to| to == self.dir) {
                fs::remove_file(&link).map_err(Error::io("remove", &link))?;
            }
            self.record.remove()
        })
    }

    fn gone(&self, operation: &'static str) -> Error {
        Error::Gone { operation, name: self.name.clone(), log: String::new() }
    }

    async fn blocking<T: Send + 'static>(&self, f: impl FnOnce(&Guest) -> Result<T> + Send + 'static) -> Result<T> {
        let guest = self.clone();
        blocking(&self.name, move || f(&guest)).await
    }
}

#[async_trait]
impl Vm for Guest {
    /// There is none.
    fn pid(&self) -> u32 {
        0
    }

    async fn state(&self) -> Result<VmState> {
        Ok(match self.record.read()? {
            Some(State::Running) => VmState::Running,
            Some(State::Made | State::Paused) => VmState::Paused,
            None => VmState::Gone,
        })
    }

    async fn pause(&self) -> Result<()> {
        self.blocking(Guest::pause).await
    }

    async fn resume(&self) -> Result<()> {
        self.blocking(Guest::resume).await
    }

    /// Files have no cable.
    async fn set_link(&self, _up: bool) -> Result<()> {
        Ok(())
    }

    /// The pause is counted from before its command to after the other: what the commands take is in it.
    async fn capture(&self, state_out: Option<File>, _cuts: Cuts, while_paused: WhilePaused) -> Result<Captured> {
        // There is no state to write: what is asked for can't be had.
        if state_out.is_some() {
            let reason = "files have none".to_owned();
            return Err(Error::DeviceState { operation: "save", name: self.name.clone(), reason });
        }
        self.blocking(move |guest| guest.capture(while_paused)).await
    }

    async fn save(&self, _state_out: File) -> Result<()> {
        let reason = "files have none".to_owned();
        Err(Error::DeviceState { operation: "save", name: self.name.clone(), reason })
    }

    async fn quit(&self) -> Result<()> {
        self.blocking(Guest::quit).await
    }

    /// There is none: nobody listens at this path.
    fn console(&self) -> PathBuf {
        self.dir.join("con")
    }
}

/// What pauses and resumes a machine during a capture: its keeper, or nothing for a machine without commands.
struct Driver<'a> {
    guest: &'a Guest,
    keeper: Option<Keeper>,
    timeout: Duration,
}

impl<'a> Driver<'a> {
    fn new(guest: &'a Guest) -> Result<Self> {
        let Commands { pause, resume, timeout_s, .. } = &guest.commands;
        let timeout = guest.commander.timeout + KEEPER_START_TIMEOUT;
        if pause.is_empty() && resume.is_empty() {
            return Ok(Driver { guest, keeper: None, timeout });
        }
        let keeping = &guest.config.keeping;
        // The pause begins once its command has ended, whose time is limited too.
        let bound_ms = (guest.commander.timeout + keeping.pause_max).as_millis();
        let kind = Kind::Files {
            uuid: guest.record.uuid().to_owned(),
            programs: guest.commander.programs.clone(),
            pause: pause.clone(),
            resume: resume.clone(),
            timeout_s: *timeout_s,
        };
        let bound_ms = u64::try_from(bound_ms).unwrap_or(u64::MAX);
        let charge = Charge { name: guest.name.clone(), dir: guest.dir.clone(), bound_ms, kind };
        let keeper = Keeper::start(keeping.command.as_ref(), &charge, guest.commander.log()?)?;
        Ok(Driver { guest, keeper: Some(keeper), timeout })
    }

    fn pause(&mut self) -> Result<()> {
        self.order("pause", Order::Pause)
    }

    fn resume(&mut self) -> Result<()> {
        match self.order("resume", Order::Resume) {
            // The keeper itself is gone, and its commands with it: this is the only one left.
            Err(Error::Keeper { problem, .. }) => {
                tracing::error!(machine = self.guest.name, problem, "its keeper is lost during the pause");
                self.keeper = None;
                self.guest.wait_for_no_keeper()?;
                self.guest.commander.run("resume", &self.guest.commands.resume)
            }
            other => other,
        }
    }

    fn order(&mut self, what: &'static str, order: Order) -> Result<()> {
        let Some(keeper) = &mut self.keeper else { return Ok(()) };
        match keeper.order(order, self.timeout)? {
            Answer::Ready | Answer::Done => Ok(()),
            Answer::Voided => Err(Error::Voided { name: self.guest.name.clone() }),
            Answer::Failed(failure) => Err(failure.told(&self.guest.name, what)),
        }
    }

    /// It runs, and its record says so.
    fn dismiss(self) {
        if let Some(keeper) = self.keeper {
            keeper.dismiss();
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
