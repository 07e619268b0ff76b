//! A guest: its process and its monitor, and the commands of everyday life.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::args::{NETWORK_CARD, disk_node};
use super::process::Process;
use super::qmp::Qmp;
use super::rundir::{CONSOLE, RunDir};
use super::{bitmaps, capture};
use crate::keeper::{self, Keeping};
use crate::limits::{
    COMMAND_TIMEOUT, KEEPER_WAIT_TIMEOUT, KILL_TIMEOUT, MIGRATE_TIMEOUT, POLL_INTERVAL, QUIT_TIMEOUT, RESUME_TIMEOUT,
    STOP_TIMEOUT,
};
use crate::{Captured, Cuts, Error, Keeps, Machine, Result, Vm, VmState, WhilePaused, Written};

/// The name under which QEMU keeps a device state's descriptor until a migration takes it.
const DESCRIPTOR: &str = "st";

#[derive(Debug)]
pub(super) struct Guest {
    pub(super) name: String,
    pub(super) process: Arc<Process>,
    pub(super) qmp: Qmp,
    pub(super) run: Arc<RunDir>,
    /// Held by whatever stops the vCPUs or lets them go.
    pub(super) turn: Arc<Mutex<()>>,
    /// Held by whatever looks at the recordings of writes and then changes them.
    pub(super) recordings: Mutex<()>,
    /// The disks' names, in the order of their nodes.
    disks: Vec<String>,
}

impl Guest {
    pub(super) fn new(machine: &Machine, run: Arc<RunDir>, process: Arc<Process>, qmp: Qmp) -> Self {
        let disks = machine.disks.iter().map(|disk| disk.name.clone()).collect();
        let name = machine.name.clone();
        Guest { name, process, qmp, run, turn: Arc::default(), recordings: Mutex::default(), disks }
    }

    /// Each disk and its node.
    pub(super) fn nodes(&self) -> impl Iterator<Item = (&String, String)> {
        self.disks.iter().enumerate().map(|(number, disk)| (disk, disk_node(number)))
    }

    pub(super) fn node_of(&self, disk: &str) -> Option<String> {
        self.nodes().find(|(name, _)| *name == disk).map(|(_, node)| node)
    }

    /// QEMU's run state: `running`, `paused`, `inmigrate` …
    pub(super) async fn status(&self) -> Result<String> {
        let answer = self.qmp.execute("query-status", Value::Null).await?;
        self.field("query-status", &answer, "status")
    }

    pub(super) async fn pause(&self) -> Result<()> {
        let _turn = self.turn.lock().await;
        self.wait_for_no_keeper("pause").await?;
        self.stop().await
    }

    /// One that is left from a capture would undo what comes now, or has not let the guest go yet.
    pub(super) async fn wait_for_no_keeper(&self, operation: &'static str) -> Result<()> {
        let until = Instant::now() + KEEPER_WAIT_TIMEOUT;
        let dir = self.run.path();
        while keeper::is_there(&dir).map_err(Error::io("look for a keeper at", &dir))? {
            self.pause_before_next(operation, until, KEEPER_WAIT_TIMEOUT).await?;
        }
        Ok(())
    }

    pub(super) async fn resume(&self) -> Result<()> {
        let _turn = self.turn.lock().await;
        // A daemon that was lost may have been saving its device state: that would end by stopping it once more. Nothing to
        // cancel is fine.
        let _ = self.qmp.execute("migrate_cancel", Value::Null).await;
        self.cont().await
    }

    /// Writes the device state of a guest that stands still. Only after that may `cont` be sent.
    pub(super) async fn save(&self, state_out: &File) -> Result<()> {
        let saved = async {
            self.migrate("save", "migrate", state_out).await?;
            self.wait_for_status("save", "postmigrate").await
        };
        let saved = saved.await;
        if saved.is_err() {
            let _ = self.qmp.execute("migrate_cancel", Value::Null).await; // nothing to cancel is fine
        }
        saved
    }

    pub(super) async fn stop(&self) -> Result<()> {
        self.qmp.execute_within("stop", Value::Null, None, STOP_TIMEOUT).await.map(drop)
    }

    /// Lets the vCPUs go and sees that they do. `cont` is refused while a migration is being wound up: waits for that.
    pub(super) async fn cont(&self) -> Result<()> {
        let until = Instant::now() + RESUME_TIMEOUT;
        loop {
            let status = self.status().await?;
            match status.as_str() {
                "running" => return Ok(()),
                "finish-migrate" | "save-vm" | "restore-vm" => {}
                // `cont` would be taken, and come true at some later time.
                "inmigrate" => return Err(self.wrong_state("resume", status)),
                _ => match self.qmp.execute("cont", Value::Null).await {
                    Ok(_) => {}
                    Err(Error::Command { reason, .. }) if Instant::now() < until => {
                        tracing::debug!(machine = self.name, status, reason, "cont refused, trying again");
                    }
                    Err(error) => return Err(error),
                },
            }
            self.pause_before_next("resume", until, RESUME_TIMEOUT).await?;
        }
    }

    pub(super) async fn set_link(&self, up: bool) -> Result<()> {
        self.qmp.execute("set_link", json!({ "name": NETWORK_CARD, "up": up })).await.map(drop)
    }

    /// RAM stays where it is: in its file. Only then is the migration stream the device state alone.
    pub(super) async fn leave_ram_out(&self) -> Result<()> {
        let on = |name: &str| json!({ "capability": name, "state": true });
        let capabilities = json!({ "capabilities": [on("x-ignore-shared"), on("events")] });
        self.qmp.execute("migrate-set-capabilities", capabilities).await.map(drop)
    }

    /// Runs a migration command to its end, to or from a file. QEMU keeps its own duplicate of the descriptor.
    ///
    /// QEMU 9.1 and newer call `fd:` with a plain file deprecated, and take it.
    pub(super) async fn migrate(&self, operation: &'static str, command: &'static str, file: &File) -> Result<()> {
        let name = json!({ "fdname": DESCRIPTOR });
        self.qmp.execute_within("getfd", name.clone(), Some(file.as_fd()), COMMAND_TIMEOUT).await?;
        if let Err(error) = self.qmp.execute(command, json!({ "uri": format!("fd:{DESCRIPTOR}") })).await {
            let _ = self.qmp.execute("closefd", name).await; // whoever refuses a command has not taken its descriptor
            return Err(error);
        }
        let until = Instant::now() + MIGRATE_TIMEOUT;
        loop {
            let answer = self.qmp.execute("query-migrate", Value::Null).await?;
            let failed = |reason: &str| {
                let reason = answer.get("error-desc").and_then(Value::as_str).unwrap_or(reason);
                Err(Error::DeviceState { operation, name: self.name.clone(), reason: reason.into() })
            };
            match answer.get("status").and_then(Value::as_str) {
                Some("completed") => return Ok(()),
                Some("failed") => return failed("no reason given"),
                // Not by us: its keeper has lost patience. It may be stuck on the way; nobody waits for it any more.
                Some("cancelled" | "cancelling") => return Err(Error::Voided { name: self.name.clone() }),
                _ => {}
            }
            self.pause_before_next(operation, until, MIGRATE_TIMEOUT).await?;
        }
    }

    pub(super) async fn wait_for_status(&self, operation: &'static str, wanted: &str) -> Result<()> {
        let until = Instant::now() + MIGRATE_TIMEOUT;
        loop {
            match self.status().await? {
                status if status == wanted => return Ok(()),
                // Its keeper has lost patience, or somebody else interferes.
                status if status == "running" => return Err(Error::Voided { name: self.name.clone() }),
                _ => self.pause_before_next(operation, until, MIGRATE_TIMEOUT).await?,
            }
        }
    }

    /// Loads a device state into a process that was started for it.
    pub(super) async fn load(&self, device_state: File) -> Result<()> {
        let loaded = async {
            self.leave_ram_out().await?;
            self.migrate("load", "migrate-incoming", &device_state).await?;
            self.wait_for_status("load", "paused").await
        };
        match loaded.await {
            // QEMU says why and exits; the log is complete once it is gone.
            Err(Error::Gone { .. }) => {
                self.process.wait_gone(KILL_TIMEOUT).await;
                Err(self.qmp.gone("restore"))
            }
            result => result,
        }
    }

    pub(super) async fn quit(&self) -> Result<()> {
        if !self.process.is_gone() {
            // An answer does not matter: the process does.
            let _ = self.qmp.execute_within("quit", Value::Null, None, QUIT_TIMEOUT).await;
            if !self.process.wait_gone(QUIT_TIMEOUT).await {
                tracing::warn!(machine = self.name, pid = self.process.pid(), "does not quit: killed");
                self.process.kill();
                if !self.process.wait_gone(KILL_TIMEOUT).await {
                    return Err(self.late("quit", KILL_TIMEOUT));
                }
            }
        }
        self.run.clean(Some(self.process.pid()));
        Ok(())
    }

    pub(super) fn wrong_state(&self, operation: &'static str, state: String) -> Error {
        Error::WrongState { operation, name: self.name.clone(), state }
    }

    async fn pause_before_next(&self, operation: &'static str, until: Instant, timeout: Duration) -> Result<()> {
        if Instant::now() >= until {
            return Err(self.late(operation, timeout));
        }
        tokio::time::sleep(POLL_INTERVAL).await;
        Ok(())
    }

    pub(super) fn late(&self, operation: &'static str, timeout: Duration) -> Error {
        Error::Timeout { operation, name: self.name.clone(), after_ms: timeout.as_millis() }
    }

    fn field(&self, command: &'static str, answer: &Value, field: &str) -> Result<String> {
        answer.get(field).and_then(Value::as_str).map(str::to_owned).ok_or_else(|| Error::Protocol {
            name: self.name.clone(),
            command,
            problem: format!("no `{field}` in it"),
        })
    }
}

/// Without its device state a capture of a guest is worth nothing.
pub(super) fn needs_state(operation: &'static str, name: &str) -> Error {
    Error::DeviceState { operation, name: name.into(), reason: "no file for it was given".into() }
}

/// The handle that callers hold.
pub(super) struct QemuVm(Arc<Guest>, Keeping);

impl QemuVm {
    pub(super) fn new(guest: Arc<Guest>, keeping: Keeping) -> Self {
        QemuVm(guest, keeping)
    }
}

#[async_trait]
impl Vm for QemuVm {
    fn pid(&self) -> u32 {
        self.0.process.pid()
    }

    async fn state(&self) -> Result<VmState> {
        if self.0.process.is_gone() {
            return Ok(VmState::Gone);
        }
        match self.0.status().await {
            Ok(status) if status == "running" => Ok(VmState::Running),
            Ok(_) => Ok(VmState::Paused),
            Err(Error::Gone { .. }) if self.0.process.wait_gone(QUIT_TIMEOUT).await => Ok(VmState::Gone),
            Err(error) => Err(error),
        }
    }

    async fn pause(&self) -> Result<()> {
        self.0.pause().await
    }

    async fn resume(&self) -> Result<()> {
        self.0.resume().await
    }

    async fn set_link(&self, up: bool) -> Result<()> {
        self.0.set_link(up).await
    }

    async fn cut(&self, cuts: &Cuts) -> Written {
        bitmaps::cut(&self.0, cuts).await
    }

    async fn keep(&self, keeps: &Keeps) {
        bitmaps::keep(&self.0, keeps).await;
    }

    async fn capture(&self, state_out: Option<File>, cuts: Cuts, while_paused: WhilePaused) -> Result<Captured> {
        let state_out = state_out.ok_or_else(|| needs_state("save", &self.0.name))?;
        capture::capture(Arc::clone(&self.0), self.1.clone(), state_out, cuts, while_paused).await
    }

    async fn save(&self, state_out: File) -> Result<()> {
        let _turn = self.0.turn.lock().await;
        let status = self.0.status().await?;
        if status != "paused" {
            return Err(self.0.wrong_state("save", status));
        }
        self.0.leave_ram_out().await?;
        self.0.save(&state_out).await
    }

    async fn quit(&self) -> Result<()> {
        self.0.quit().await
    }

    fn console(&self) -> PathBuf {
        self.0.run.path().join(CONSOLE)
    }
}
