//! Resuming a guest without a runtime: what is left when the daemon ends in the middle of a capture.
//!
//! A command sent on the old connection just before it closes is not enough: QEMU forgets what it has not yet run of a
//! client that is gone. So this is a connection of its own, and it stays until the guest runs.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::qmp_wire::{Message, command, parse};
use super::rundir::{MONITOR, RunDir};
use crate::limits::{POLL_INTERVAL, QMP_LINE_BYTES_MAX};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Blocks until the guest runs, at most for about that long. Nobody else may be connected to its monitor.
pub(super) fn resume(run: &RunDir, timeout: Duration) -> Result<(), Failure> {
    let until = Instant::now() + timeout;
    let socket = run.connect(MONITOR)?;
    socket.set_read_timeout(Some(timeout))?;
    let mut monitor = Monitor { answers: BufReader::new(socket.try_clone()?), socket, id: 0 };
    while !matches!(monitor.read()?, Some(Message::Greeting)) {}
    monitor.ask("qmp_capabilities")??;
    loop {
        let status = monitor.ask("query-status")??;
        match status.get("status").and_then(Value::as_str) {
            Some("running") => return Ok(()),
            Some("finish-migrate") => {}
            // Refused means not yet: the next status tells.
            _ => drop(monitor.ask("cont")?),
        }
        if Instant::now() >= until {
            return Err("no time left".into());
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

struct Monitor {
    socket: UnixStream,
    answers: BufReader<UnixStream>,
    id: u64,
}

impl Monitor {
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
