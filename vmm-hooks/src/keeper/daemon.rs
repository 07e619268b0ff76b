//! The daemon's end: a keeper is started, told, and dismissed. All of it blocks.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::KeeperCommand;
use super::wire::{Answer, Charge, Lines, Next, Order, is_readable, line};
use crate::limits::{KEEPER_END_TIMEOUT, KEEPER_START_TIMEOUT};
use crate::{Error, Result};

/// A keeper that is ready. Dropped without [`Keeper::dismiss`], it lets the guest go on: so an error, a panic and a
/// runtime that shuts down do no harm.
#[derive(Debug)]
pub(crate) struct Keeper {
    name: String,
    /// `None` once it is reaped, or somebody else does that.
    child: Option<Child>,
    /// `None` once it was told that it is over.
    orders: Option<ChildStdin>,
    answers: Lines,
}

impl Keeper {
    /// Starts one and waits until it is ready. What it says goes to `log`.
    pub(crate) fn start(command: Option<&KeeperCommand>, charge: &Charge, log: File) -> Result<Self> {
        let failed = |problem: String| Error::Keeper { name: charge.name.clone(), problem };
        let command = command.ok_or_else(|| failed("none is configured".into()))?;
        let io = |error: io::Error| failed(format!("{}: {error}", command.program.display()));
        let mut process = Command::new(&command.program);
        process.arg0(&command.called).args(&command.arguments).arg(&charge.name).arg(&charge.dir).current_dir("/");
        process.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut child = process.spawn().map_err(io)?;
        let orders = child.stdin.take();
        let answers = child.stdout.take().map(|pipe| Lines::new(File::from(OwnedFd::from(pipe))));
        let answers = answers.ok_or_else(|| failed("it has no output".into()))?;
        let mut keeper = Keeper { name: charge.name.clone(), child: Some(child), orders, answers };
        let ready = keeper.tell(charge).map_err(io).and_then(|()| keeper.answer(KEEPER_START_TIMEOUT));
        match ready {
            Ok(Answer::Ready) => Ok(keeper),
            Ok(other) => Err(failed(format!("it is not ready: {other:?}"))),
            Err(error) => {
                // Nothing is paused: it has nothing to do.
                keeper.kill();
                Err(error)
            }
        }
    }

    /// Gives an order that is answered.
    pub(crate) fn order(&mut self, order: Order, timeout: Duration) -> Result<Answer> {
        self.tell(&order).map_err(|error| self.failed(format!("it can't be told: {error}")))?;
        self.answer(timeout)
    }

    /// The guest runs. When this returns, no keeper is there any more.
    pub(crate) fn dismiss(mut self) {
        if let Err(error) = self.tell(&Order::Resumed) {
            tracing::warn!(machine = self.name, %error, "its keeper had ended before the capture did");
        }
        self.orders = None;
        let Some(child) = &self.child else { return };
        let ended = pidfd_open(Pid::from_child(child), PidfdFlags::empty())
            .map_err(io::Error::from)
            .and_then(|pidfd| is_readable(&pidfd, Instant::now() + KEEPER_END_TIMEOUT));
        if !matches!(ended, Ok(true)) {
            tracing::warn!(machine = self.name, "its keeper does not end: killed");
        }
        self.kill();
    }

    fn tell(&mut self, value: &impl serde::Serialize) -> io::Result<()> {
        let line = line(value)?;
        match &mut self.orders {
            Some(orders) => orders.write_all(&line),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn answer(&mut self, timeout: Duration) -> Result<Answer> {
        match self.answers.next(Instant::now() + timeout) {
            Ok(Next::Line(answer)) => Ok(answer),
            Ok(Next::Late) => Err(self.failed(format!("no answer within {} s", timeout.as_secs()))),
            Ok(Next::End) => Err(self.failed("it has ended".into())),
            Err(error) => Err(self.failed(format!("its answer: {error}"))),
        }
    }

    fn failed(&self, problem: String) -> Error {
        Error::Keeper { name: self.name.clone(), problem }
    }

    /// Ends it where it is; gone already is fine.
    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(mut child) = self.child.take() {
            tracing::error!(machine = self.name, "its capture was broken off: its keeper lets it go on");
            // A thread, because it takes its time. Without one there is a zombie until we end.
            let _ = std::thread::Builder::new().name("keeper-reaper".into()).spawn(move || child.wait());
        }
    }
}
