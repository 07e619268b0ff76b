//! A guest on probation: it runs on what can be thrown away, is asked, and is ended.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::TryRecvError;

use super::args::Start;
use super::guest::Guest;
use super::qmp_wire::Event;
use super::start::Started;
use super::{agent, port};
use crate::command::{Commander, Ended};
use crate::{Error, Health, Machine, Probe, Result};

/// What came of a question: an error that is not the guest's, or why the guest is not well.
pub(super) type Asked = Result<std::result::Result<(), String>>;

/// Whether the question can be asked at all.
pub(super) fn check(machine: &Machine, health: &Health, programs: &Path) -> Result<()> {
    match &health.probe {
        Probe::Command(words) => commander(&machine.name, &machine.dir, health, programs).check("health probe", words),
        Probe::TcpPort(_) => Ok(()),
        Probe::AgentPing if machine.agent => Ok(()),
        Probe::AgentPing => {
            let problem = "must have a port for the agent that is to be asked".to_owned();
            Err(Error::Machine { name: machine.name.clone(), field: "agent", problem })
        }
    }
}

/// How it begins.
pub(super) fn start(health: &Health) -> Start {
    match health.probe {
        Probe::TcpPort(port) => Start::Probation { tcp_port: Some(port) },
        Probe::Command(_) | Probe::AgentPing => Start::Probation { tcp_port: None },
    }
}

/// From a process that waits for its device state to the end of that process.
pub(super) async fn run(started: Started, device_state: File, health: &Health, programs: &Path) -> Result<()> {
    let guest = Arc::clone(&started.guest);
    guest.load(device_state).await?;
    // Where the link is up, there is nothing on the network but the port that is asked for.
    guest.set_link(matches!(health.probe, Probe::TcpPort(_))).await?;
    let mut events = guest.qmp.events();
    guest.resume().await?;
    let asked = match ask(&guest, health, programs).await {
        Ok(Ok(())) => Ok(still_runs(&guest, &mut events).await),
        asked => asked,
    };
    // It is gone before anybody may let another one run.
    started.kill().await?;
    asked?.map_err(|reason| Error::Unhealthy { name: guest.name.clone(), probe: health.probe.to_string(), reason })
}

async fn ask(guest: &Guest, health: &Health, programs: &Path) -> Asked {
    match &health.probe {
        Probe::Command(words) => {
            let commander = commander(&guest.name, &guest.run.path(), health, programs);
            let words = words.clone();
            let run = tokio::task::spawn_blocking(move || commander.try_run("health", &words)).await;
            Ok(match run.unwrap_or_else(|_| Err(Error::Panicked { name: guest.name.clone() }))? {
                Ended::Well => Ok(()),
                Ended::Badly(reason) => Err(reason),
                Ended::Late(said) => Err(format!("it did not end within {} s{said}", health.timeout_s)),
            })
        }
        Probe::TcpPort(_) => in_time(health, port::ask(guest)).await,
        Probe::AgentPing => in_time(health, agent::ask(guest)).await,
    }
}

async fn in_time(health: &Health, asked: impl Future<Output = Asked>) -> Asked {
    let late = || Ok(Err(format!("no answer within {} s", health.timeout_s)));
    tokio::time::timeout(health.timeout(), asked).await.unwrap_or_else(|_| late())
}

fn commander(name: &str, dir: &Path, health: &Health, programs: &Path) -> Commander {
    Commander { name: name.to_owned(), dir: dir.to_owned(), programs: programs.to_owned(), timeout: health.timeout() }
}

/// One that fell over after its answer, or before it and came back, is not well.
async fn still_runs(guest: &Guest, events: &mut Receiver<Event>) -> std::result::Result<(), String> {
    match guest.status().await {
        Ok(status) if status == "running" => {}
        Ok(status) => return Err(format!("it was asked, and then does not run: it is `{status}`")),
        Err(error) => return Err(error.to_string()),
    }
    loop {
        match events.try_recv() {
            Ok(event) if event.name == "RESET" => return Err("it has restarted".into()),
            Ok(_) | Err(TryRecvError::Lagged(_)) => {}
            Err(TryRecvError::Empty | TryRecvError::Closed) => return Ok(()),
        }
    }
}
