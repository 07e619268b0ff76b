//! A keeper's part of QEMU: it lets a guest go on over a monitor of its own.
//!
//! The daemon's monitor would not do: QEMU serves one client of a monitor at a time, and a daemon that hangs is still one.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use serde_json::Value;

use super::qmp_wire::{Message, command, parse};
use super::rundir::{KEEPER, RunDir};
use crate::keeper::{Charge, Order, Ward, no_such_order, say};
use crate::limits::{QMP_LINE_BYTES_MAX, RELEASE_GRACE};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A guest in QEMU, to its keeper.
pub(crate) struct Kept {
    name: String,
    run: RunDir,
    monitor: Monitor,
    /// Since when it has been seen to run, without a break.
    running_since: Option<Instant>,
    released: bool,
}

impl Kept {
    pub(crate) fn new(charge: &Charge) -> Result<Self, Failure> {
        let run = RunDir::open(&charge.dir)?.ok_or("its directory is gone")?;
        let monitor = Monitor::connect(&run)?;
        Ok(Kept { name: charge.name.clone(), run, monitor, running_since: None, released: false })
    }

    fn try_release(&mut self) -> Result<bool, Failure> {
        let status = self.monitor.ask("query-status")??;
        match status.get("status").and_then(Value::as_str).unwrap_or_default() {
            "running" => {
                let since = *self.running_since.get_or_insert_with(Instant::now);
                // What its daemon sent last may not have been carried out yet, and may stop it once more.
                return Ok(since.elapsed() >= RELEASE_GRACE);
            }
            // No capture brings a guest here, and `cont` does not help it.
            "shutdown" | "internal-error" | "io-error" | "watchdog" | "guest-panicked" | "inmigrate" => {
                return Ok(true);
            }
            _ => {}
        }
        self.running_since = None;
        if !self.released {
            self.released = true;
            say(&format!("lets {} go on", self.name));
        }
        // A device state that is being saved is worth nothing any more. Nothing to cancel is fine. `cont` is refused while a
        // migration is wound up: the next try comes soon.
        drop(self.monitor.ask("migrate_cancel")?);
        drop(self.monitor.ask("cont")?);
        Ok(false)
    }
}

impl Ward for Kept {
    fn obey(&mut self, _order: Order) -> crate::Result<()> {
        Err(no_such_order(&self.name))
    }

    fn release(&mut self) -> bool {
        match self.try_release() {
            Ok(done) => done,
            Err(error) => match Monitor::connect(&self.run) {
                Ok(monitor) => {
                    self.monitor = monitor;
                    false
                }
                Err(_) => {
                    say(&format!("{} is gone: {error}", self.name));
                    true
                }
            },
        }
    }
}

struct Monitor {
    socket: UnixStream,
    answers: BufReader<UnixStream>,
    id: u64,
}

impl Monitor {
    fn connect(run: &RunDir) -> Result<Self, Failure> {
        let socket = run.connect(KEEPER)?;
        let mut monitor = Monitor { answers: BufReader::new(socket.try_clone()?), socket, id: 0 };
        while !matches!(monitor.read()?, Some(Message::Greeting)) {}
        monitor.ask("qmp_capabilities")??;
        Ok(monitor)
    }

    fn ask(&mut self, name: &str) -> Result<Result<Value, String>, Failure> {
        self.id += 1;
        self.socket.write_all(&command(name, Value::Null, self.id))?;
        loop {
            match self.read()? {
                Some(Message::Answer { id, answer }) if id == self.id => return Ok(answer),
                _ => {}
            }
        }
    }

    /// `None` for a line that was not understood.
    fn read(&mut self) -> Result<Option<Message>, Failure> {
        let mut line = Vec::new();
        let limit = u64::try_from(QMP_LINE_BYTES_MAX)?;
        if self.answers.by_ref().take(limit).read_until(b'\n', &mut line)? == 0 {
            return Err("the monitor closed the connection".into());
        }
        Ok(parse(&line).ok())
    }
}
