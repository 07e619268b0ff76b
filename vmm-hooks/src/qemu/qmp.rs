//! A client of QEMU's monitor protocol (QMP): JSON lines on a Unix socket.
//!
//! Why not the crate `qapi`: it has no way to send a descriptor along with a command (`getfd` needs SCM_RIGHTS), and it
//! tells answers apart by id only where out-of-band execution is on, so that an answer that comes after its deadline would
//! be taken for the next command's. The dozen commands used here need little more than what such a wrapper would.

use std::collections::HashMap;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{broadcast, oneshot};
use tokio::task::AbortHandle;

use super::qmp_wire::{self, Event, Message};
use super::rundir::RunDir;
use crate::limits::{COMMAND_TIMEOUT, QMP_EVENTS_KEPT, QMP_LINE_BYTES_MAX};
use crate::{Error, Result};

/// The id under which the greeting is awaited; commands count from 1.
const GREETING: u64 = 0;

type Answer = Result<Value, String>;

/// One connection to a monitor. Commands may overlap; each gets its own answer. It ends with the last handle.
#[derive(Debug)]
pub(super) struct Qmp {
    name: String,
    run: Arc<RunDir>,
    wire: Arc<Wire>,
    reader: AbortHandle,
}

#[derive(Debug)]
struct Wire {
    stream: UnixStream,
    waiting: Mutex<Waiting>,
    events: broadcast::Sender<Event>,
}

#[derive(Debug, Default)]
struct Waiting {
    next_id: u64,
    closed: bool,
    answers: HashMap<u64, oneshot::Sender<Answer>>,
}

impl Qmp {
    /// Waits for the greeting and leaves the negotiation mode.
    pub(super) async fn connect(
        name: &str,
        run: Arc<RunDir>,
        stream: std::os::unix::net::UnixStream,
        timeout: Duration,
    ) -> Result<Self> {
        let stream = stream.set_nonblocking(true).and_then(|()| UnixStream::from_std(stream));
        let wire = Arc::new(Wire {
            stream: stream.map_err(Error::io("use", run.path().join(super::rundir::MONITOR)))?,
            waiting: Mutex::default(),
            events: broadcast::Sender::new(QMP_EVENTS_KEPT),
        });
        let greeting = wire.wait_for_answer();
        let reader = tokio::spawn(read(Arc::clone(&wire))).abort_handle();
        let qmp = Qmp { name: name.into(), run, wire, reader };
        let answer = match greeting {
            Some((GREETING, answer)) => answer,
            _ => return Err(qmp.gone("greeting")),
        };
        qmp.answer("greeting", answer, timeout).await?;
        qmp.execute("qmp_capabilities", Value::Null).await?;
        Ok(qmp)
    }

    pub(super) async fn execute(&self, command: &'static str, arguments: Value) -> Result<Value> {
        self.execute_within(command, arguments, None, COMMAND_TIMEOUT).await
    }

    /// Runs a command, with a descriptor for it if it wants one.
    pub(super) async fn execute_within(
        &self,
        command: &'static str,
        arguments: Value,
        descriptor: Option<BorrowedFd<'_>>,
        timeout: Duration,
    ) -> Result<Value> {
        let Some((id, answer)) = self.wire.wait_for_answer() else {
            return Err(self.gone(command));
        };
        let _forget = Forget { wire: &self.wire, id };
        self.wire.send(&qmp_wire::command(command, arguments, id), descriptor).await.map_err(|_| self.gone(command))?;
        self.answer(command, answer, timeout).await
    }

    pub(super) fn events(&self) -> broadcast::Receiver<Event> {
        self.wire.events.subscribe()
    }

    pub(super) fn gone(&self, operation: &'static str) -> Error {
        Error::Gone { operation, name: self.name.clone(), log: self.run.log_tail() }
    }

    async fn answer(
        &self,
        command: &'static str,
        answer: oneshot::Receiver<Answer>,
        timeout: Duration,
    ) -> Result<Value> {
        match tokio::time::timeout(timeout, answer).await {
            Ok(Ok(Ok(value))) => Ok(value),
            Ok(Ok(Err(reason))) => Err(Error::Command { name: self.name.clone(), command, reason }),
            Ok(Err(_)) => Err(self.gone(command)),
            Err(_) => {
                Err(Error::Timeout { operation: command, name: self.name.clone(), after_ms: timeout.as_millis() })
            }
        }
    }
}

impl Drop for Qmp {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// Takes back an answer that nobody waits for any more.
struct Forget<'a> {
    wire: &'a Wire,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.wire.waiting().answers.remove(&self.id);
    }
}

impl Wire {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` once the connection is closed.
    fn wait_for_answer(&self) -> Option<(u64, oneshot::Receiver<Answer>)> {
        let (sender, receiver) = oneshot::channel();
        let mut waiting = self.waiting();
        if waiting.closed {
            return None;
        }
        let id = waiting.next_id;
        waiting.next_id += 1;
        waiting.answers.insert(id, sender);
        Some((id, receiver))
    }

    async fn send(&self, line: &[u8], descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        loop {
            self.stream.writable().await?;
            match self.try_send(line, descriptor) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
        }
    }

    /// The whole line or nothing: a future that is dropped leaves no half line behind. Lines are short and QEMU reads at
    /// once, so a socket buffer that takes only part of one means that something is very wrong; then the connection ends.
    fn try_send(&self, line: &[u8], descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let sent = self.stream.try_io(Interest::WRITABLE, || qmp_wire::send(&self.stream, line, descriptor))?;
        if sent < line.len() {
            let _ = rustix::net::shutdown(&self.stream, rustix::net::Shutdown::Both);
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(())
    }

    fn take(&self, line: &[u8]) {
        let (id, answer) = match qmp_wire::parse(line) {
            Ok(Message::Event(event)) => {
                tracing::trace!(?event);
                let _ = self.events.send(event); // fails when nobody listens
                return;
            }
            Ok(Message::Greeting) => (GREETING, Ok(Value::Null)),
            Ok(Message::Answer { id, answer }) => (id, answer),
            Err(problem) => {
                tracing::warn!(problem, "a monitor's line was not understood");
                return;
            }
        };
        if let Some(sender) = self.waiting().answers.remove(&id) {
            let _ = sender.send(answer); // fails when its deadline is over
        }
    }
}

/// Reads until the end; then whoever waits for an answer hears that there will be none.
async fn read(wire: Arc<Wire>) {
    let mut buffer = Vec::new();
    let mut piece = [0; 16 << 10];
    while wire.stream.readable().await.is_ok() {
        let taken = match wire.stream.try_read(&mut piece) {
            Ok(0) => break,
            Ok(taken) => taken,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(_) => break,
        };
        buffer.extend(piece.iter().take(taken));
        while let Some(end) = buffer.iter().position(|&byte| byte == b'\n') {
            let rest = buffer.split_off(end + 1);
            wire.take(&buffer);
            buffer = rest;
        }
        if buffer.len() > QMP_LINE_BYTES_MAX {
            tracing::error!("a monitor's line has no end: connection given up");
            break;
        }
    }
    let mut waiting = wire.waiting();
    waiting.closed = true;
    waiting.answers.clear();
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixStream as Socket;

    use serde_json::json;

    use super::*;

    /// A monitor that greets, and then answers each command with the next of `answers`; `$` stands for the command's id.
    fn monitor(mut socket: Socket, answers: Vec<&'static str>) -> std::thread::JoinHandle<()> {
        std::thread::spawn(move || {
            socket.write_all(b"{\"QMP\": {}}\r\n").unwrap();
            let mut lines = BufReader::new(socket.try_clone().unwrap()).lines();
            for answer in std::iter::once(r#"{"return": {}, "id": $}"#).chain(answers) {
                let Some(Ok(line)) = lines.next() else { return };
                let command: Value = serde_json::from_str(&line).unwrap();
                let answer = answer.replace('$', &command["id"].to_string());
                socket.write_all(answer.as_bytes()).unwrap();
                socket.write_all(b"\r\n").unwrap();
            }
        })
    }

    async fn connected(answers: Vec<&'static str>) -> (Result<Qmp>, std::thread::JoinHandle<()>, tempfile::TempDir) {
        let (ours, theirs) = Socket::pair().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let run = Arc::new(RunDir::create(dir.path()).unwrap());
        let monitor = monitor(theirs, answers);
        (Qmp::connect("vm", run, ours, Duration::from_secs(60)).await, monitor, dir)
    }

    #[tokio::test]
    async fn an_answer_after_its_deadline_is_not_the_next_command_s() {
        let late = "{\"event\": \"NOISE\"}";
        let both = "{\"return\": \"late\", \"id\": 2}\n{\"return\": \"mine\", \"id\": $}";
        let (qmp, monitor, _dir) = connected(vec![late, both]).await;
        let qmp = qmp.unwrap();
        let first = qmp.execute_within("a", Value::Null, None, Duration::from_millis(50)).await;
        assert!(matches!(first, Err(Error::Timeout { operation: "a", .. })), "{first:?}");
        assert_eq!(qmp.execute("b", Value::Null).await.unwrap(), json!("mine"));
        monitor.join().unwrap();
    }

    #[tokio::test]
    async fn refusals_noise_and_the_end_are_told_apart() {
        let refusal = r#"{"error": {"class": "GenericError", "desc": "not now"}, "id": $}"#;
        let noisy = "no json\n{}\n{\"event\": \"STOP\"}\n{\"return\": {}, \"id\": $}";
        let (qmp, monitor, _dir) = connected(vec![refusal, noisy]).await;
        let qmp = qmp.unwrap();
        let mut events = qmp.events();
        let refused = qmp.execute("a", Value::Null).await;
        assert!(matches!(refused, Err(Error::Command { command: "a", reason, .. }) if reason == "not now"));
        assert_eq!(qmp.execute("b", Value::Null).await.unwrap(), json!({}));
        assert_eq!(events.try_recv().unwrap().name, "STOP");
        monitor.join().unwrap();
        assert!(matches!(qmp.execute("c", Value::Null).await, Err(Error::Gone { operation: "c", .. })));
        assert!(matches!(qmp.execute("d", Value::Null).await, Err(Error::Gone { operation: "d", .. })));
    }

    #[tokio::test]
    async fn a_line_without_end_ends_the_connection() {
        let endless: &'static str = Box::leak("x".repeat(QMP_LINE_BYTES_MAX + (64 << 10)).into_boxed_str());
        let (qmp, _monitor, _dir) = connected(vec![endless]).await;
        assert!(matches!(qmp.unwrap().execute("a", Value::Null).await, Err(Error::Gone { .. })));
    }
}
