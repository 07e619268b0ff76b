//! What a process was started as, written down before there is one (rule 22 of the protocol): an adopted process is asked
//! whether it is that.
//!
//! It is not fsynced: it has to outlive the daemon, and a lost host has no process left to be asked. Which attempt and
//! which part of it a process belongs to is the caller's record; the uuid is what joins the two.

use std::io::{Read, Write};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::guest::Guest;
use super::process::Process;
use super::rundir::{INTENT, RunDir};
use crate::limits::INTENT_BYTES_MAX;
use crate::{Error, Machine, Result};

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Intent {
    name: String,
    uuid: String,
    /// All of the command line but the program: that may be a script which becomes QEMU.
    arguments: Vec<String>,
}

impl Intent {
    pub(super) fn new(machine: &Machine, line: &[std::ffi::OsString]) -> Self {
        let arguments = line.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        Intent { name: machine.name.clone(), uuid: machine.uuid.clone(), arguments }
    }

    pub(super) fn write(&self, run: &RunDir) -> Result<()> {
        let failed = |error: std::io::Error| Error::io("write", run.path().join(INTENT))(error);
        let text = serde_json::to_vec(self).map_err(|error| failed(error.into()))?;
        run.create_file(INTENT)?.write_all(&text).map_err(failed)
    }

    pub(super) fn read(run: &RunDir, machine: &Machine) -> Result<Self> {
        let mut text = Vec::new();
        let read = run.open_file(INTENT).and_then(|file| file.take(INTENT_BYTES_MAX).read_to_end(&mut text));
        let intent = read.and_then(|_| Ok(serde_json::from_slice::<Intent>(&text)?));
        let intent = intent.map_err(Error::io("read", run.path().join(INTENT)))?;
        match intent.uuid == machine.uuid {
            true => Ok(intent),
            false => Err(stranger(machine.name.clone(), format!("it was to be {}", intent.uuid))),
        }
    }

    /// Whether the process is what was to be started, by what it says itself and by its command line.
    pub(super) async fn check(&self, guest: &Guest) -> Result<()> {
        let mut said = Vec::new();
        for (command, field) in [("query-uuid", "UUID"), ("query-name", "name")] {
            let answer = guest.qmp.execute(command, Value::Null).await?;
            said.push(answer.get(field).and_then(Value::as_str).unwrap_or_default().to_owned());
        }
        if said != [self.uuid.as_str(), self.name.as_str()] {
            return Err(stranger(guest.name.clone(), format!("it says that it is {}", said.join(", "))));
        }
        let words = Process::arguments(guest.process.pid());
        if !words.iter().skip(1).eq(self.arguments.iter().map(String::as_bytes)) {
            return Err(stranger(guest.name.clone(), "its command line is not what it was started with".into()));
        }
        Ok(())
    }
}

fn stranger(name: String, problem: String) -> Error {
    Error::Protocol { name, command: "adopt", problem }
}
