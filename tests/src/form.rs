//! Runs the command line as a user does, and reads its JSON.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use form_node::ApiError;
use form_node::api::types::{AttemptEvent, CommitSummary, InstanceView};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::{Context, Error, Result, Room};

/// `form`, in a place, asking one node with one key.
#[derive(Clone, Debug)]
pub struct Form {
    binary: PathBuf,
    room: Option<Arc<Room>>,
    /// Variables of its environment; no other FORM_… reaches it.
    variables: Vec<(&'static str, String)>,
}

/// What a run of it said.
#[derive(Clone, Debug)]
pub struct Answer {
    /// `None` when a signal ended it.
    pub exit_code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it complained of.
    pub stderr: String,
}

/// How it refused.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// Its exit code.
    pub exit_code: i32,
    /// What it said; code, message, cause, remedy.
    pub error: ApiError,
    /// Events that came before, when a commit had begun.
    pub events: Vec<AttemptEvent>,
}

/// `form manage status --json`.
#[derive(Deserialize)]
struct Status {
    instance: InstanceView,
}

/// `form account new --json`.
#[derive(Deserialize)]
struct Account {
    mnemonic: String,
    address: String,
}

impl Form {
    /// Without a node and a key.
    pub fn new(binary: PathBuf, room: Option<Arc<Room>>) -> Self {
        Self { binary, room, variables: Vec::new() }
    }

    /// With this variable set, as `FORM_NODE`.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.variables.retain(|(other, _)| *other != name);
        self.variables.push((name, value.into()));
        self
    }

    /// Without any key.
    #[must_use]
    pub fn without_key(mut self) -> Self {
        self.variables.retain(|(name, _)| *name == "FORM_NODE");
        self
    }

    /// Ready to run.
    pub fn command<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = match &self.room {
            Some(room) => room.command(&self.binary),
            None => Command::new(&self.binary),
        };
        for name in ["FORM_NODE", "FORM_PRIVATE_KEY", "FORM_KEYFILE", "FORM_MNEMONIC", "FORM_LOG"] {
            command.env_remove(name);
        }
        command.envs(self.variables.iter().map(|(name, value)| (*name, value)));
        command.args(arguments);
        command
    }

    /// Runs it to its end, whatever that is.
    ///
    /// # Errors
    /// It can't be run.
    pub fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Result<Answer> {
        let output = self.command(arguments).stdin(Stdio::null()).output();
        let Output { status, stdout, stderr } = output.context(|| format!("run {}", self.binary.display()))?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(Answer { exit_code: status.code(), stdout: text(stdout), stderr: text(stderr) })
    }

    /// Runs it with `--json`; it must succeed.
    ///
    /// # Errors
    /// It failed, with what it said; or said something else than a `T`.
    pub fn json<T: DeserializeOwned>(&self, arguments: &[&str]) -> Result<T> {
        let answer = self.succeed(arguments)?;
        serde_json::from_str(&answer.stdout)
            .context(|| format!("read what {} says: {}", words(arguments), answer.stdout))
    }

    /// Runs it with `--json`; it must fail, and say how.
    ///
    /// # Errors
    /// It did not fail, or did not say how.
    pub fn refused(&self, arguments: &[&str]) -> Result<Refusal> {
        let answer = self.run(arguments.iter().chain(&["--json"]))?;
        let said = || format!("{}: {answer:?}", words(arguments));
        let exit_code =
            answer.exit_code.filter(|code| *code != 0).ok_or_else(|| Error::new(format!("not refused: {}", said())))?;
        let error = answer.stderr.lines().last().unwrap_or_default();
        let error = serde_json::from_str(error).context(|| format!("read the error of {}", said()))?;
        Ok(Refusal { exit_code, error, events: events(&answer.stdout) })
    }

    /// Commits; the summary of its last event.
    ///
    /// # Errors
    /// It failed, with what it said.
    pub fn commit(&self, name: &str, description: &str) -> Result<CommitSummary> {
        let answer = self.succeed(&["manage", "commit", "--name", name, "--description", description])?;
        match events(&answer.stdout).pop() {
            Some(AttemptEvent::Settled { summary: Some(summary) }) => Ok(*summary),
            last => Err(Error::new(format!("the commit's last event is no summary: {last:?}"))),
        }
    }

    /// One instance, with its history.
    ///
    /// # Errors
    /// As [`Form::json`].
    pub fn instance(&self, name: &str) -> Result<InstanceView> {
        self.json::<Status>(&["manage", "status", "--name", name]).map(|status| status.instance)
    }

    /// All instances of the installation.
    ///
    /// # Errors
    /// As [`Form::json`].
    pub fn instances(&self) -> Result<Vec<InstanceView>> {
        self.json(&["manage", "instances"])
    }

    /// A new key: mnemonic and address.
    ///
    /// # Errors
    /// As [`Form::json`].
    pub fn new_account(&self) -> Result<(String, String)> {
        self.json::<Account>(&["account", "new"]).map(|account| (account.mnemonic, account.address))
    }

    fn succeed(&self, arguments: &[&str]) -> Result<Answer> {
        let answer = self.run(arguments.iter().chain(&["--json"]))?;
        if answer.exit_code == Some(0) {
            return Ok(answer);
        }
        let code = answer.exit_code.map_or("a signal".into(), |code| format!("code {code}"));
        Err(Error::new(format!("{} ended with {code}: {}", words(arguments), answer.stderr.trim())))
    }
}

/// The events of a commit, one a line; lines that are none are left out.
fn events(stdout: &str) -> Vec<AttemptEvent> {
    stdout.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn words(arguments: &[&str]) -> String {
    format!("`form {}`", arguments.join(" "))
}
