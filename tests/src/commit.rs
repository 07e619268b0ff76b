//! A commit while it is under way: its events as they come.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use form_node::api::types::AttemptEvent;

use crate::{Context, Error, Form, Result};

/// A running `form manage commit --json`; dropped, it is killed, and the commit goes on without it.
#[derive(Debug)]
pub struct Commit {
    form: Child,
    lines: Receiver<String>,
    stderr: Option<JoinHandle<String>>,
    accepted: bool,
    events: Vec<AttemptEvent>,
}

/// How it ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// `None` when a signal ended it.
    pub exit_code: Option<i32>,
    /// The node has taken the request.
    pub accepted: bool,
    /// All that it told.
    pub events: Vec<AttemptEvent>,
    /// What it complained of.
    pub stderr: String,
}

impl Ended {
    /// It was told that the state store says so.
    pub fn said_committed(&self) -> bool {
        self.events.iter().any(|event| matches!(event, AttemptEvent::Committed { .. }))
    }
}

impl Commit {
    /// Begins it; waits for nothing.
    ///
    /// # Errors
    /// `form` can't be run.
    pub fn begin(form: &Form, name: &str, description: &str, more: &[&str]) -> Result<Self> {
        let words = ["manage", "commit", "--json", "--name", name, "--description", description];
        let mut command = form.command(words.iter().chain(more));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut form = command.spawn().context(|| "run a commit".into())?;
        let (sender, lines) = channel();
        if let Some(stdout) = form.stdout.take() {
            // It ends with the pipe.
            std::thread::spawn(move || {
                BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
            });
        }
        let stderr = form.stderr.take().map(|mut stderr| {
            std::thread::spawn(move || {
                let mut said = String::new();
                let _ = stderr.read_to_string(&mut said); // what came until then is what there is
                said
            })
        });
        Ok(Self { form, lines, stderr, accepted: false, events: Vec::new() })
    }

    /// Waits for one word of what it tells: `accepted`, a phase, `committed`, `failed`, or `ready`, `active` and
    /// `settled` of a target. Whether it came, before the end and in time.
    pub fn wait_for(&mut self, word: &str, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        while let Some(said) = self.next(until) {
            if said == word {
                return true;
            }
        }
        false
    }

    /// Waits until an instance has come to a phase of its own: `ready`, `active`, `settled`.
    pub fn wait_for_target(&mut self, target: &str, phase: &str, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        while self.next(until).is_some() {
            let last = self.events.last();
            if matches!(last, Some(AttemptEvent::Phase { target: Some(t), phase: p, .. }) if t == target && p == phase)
            {
                return true;
            }
        }
        false
    }

    /// The word of its next line.
    fn next(&mut self, until: Instant) -> Option<String> {
        let line = match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return None,
        };
        let Ok(event) = serde_json::from_str::<AttemptEvent>(&line) else {
            let accepted = line.contains("\"accepted\"");
            self.accepted |= accepted;
            return Some(if accepted { "accepted" } else { "" }.into());
        };
        let word = match &event {
            AttemptEvent::Phase { phase, .. } => phase.clone(),
            AttemptEvent::Committed { .. } => "committed".into(),
            AttemptEvent::Failed { .. } => "failed".into(),
            AttemptEvent::Settled { .. } => "end".into(),
            AttemptEvent::Bytes { .. } | AttemptEvent::Warning { .. } | AttemptEvent::Snapshot { .. } => String::new(),
        };
        self.events.push(event);
        Some(word)
    }

    /// SIGKILL: whoever has asked is gone.
    pub fn kill(&mut self) {
        // Gone already is what is wanted.
        let _ = self.form.kill();
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// It does not.
    pub fn end(mut self, patience: Duration) -> Result<Ended> {
        let until = Instant::now() + patience;
        while self.next(until).is_some() {}
        while self.form.try_wait().context(|| "wait for a commit".into())?.is_none() {
            if Instant::now() > until {
                return Err(Error::new(format!("`form manage commit` goes on; it told {:?}", self.events.last())));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let status = self.form.wait().context(|| "wait for a commit".into())?;
        let stderr = self.stderr.take().and_then(|reader| reader.join().ok()).unwrap_or_default();
        let events = std::mem::take(&mut self.events);
        Ok(Ended { exit_code: status.code(), accepted: self.accepted, events, stderr })
    }
}

impl Drop for Commit {
    fn drop(&mut self) {
        self.kill();
        let _ = self.form.wait();
    }
}
