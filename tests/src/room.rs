//! A place of its own for a node: a mount namespace, and if asked for a network namespace.
//!
//! A shell holds them and waits for its stdin to end: they go when this process does, whatever way it ends.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::{Context, Error, Result, Scene};

/// Namespaces that other commands can enter.
#[derive(Debug)]
pub struct Room {
    holder: Child,
    has_network: bool,
}

impl Room {
    /// Makes the namespaces. Needs root.
    ///
    /// # Errors
    /// The kernel's or a missing `unshare`.
    pub fn new(scene: &Scene, has_network: bool) -> Result<Self> {
        // It is named after the scene, to be found with it.
        let script = scene.dir().join("room");
        std::fs::write(&script, "echo ready\nread -r forever\n").context(|| format!("write {}", script.display()))?;
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private"]);
        if has_network {
            command.arg("--net");
        }
        command.arg("/bin/sh").arg(&script).stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let mut holder = command.spawn().context(|| "run unshare".into())?;
        let mut said = String::new();
        if let Some(stdout) = holder.stdout.take() {
            BufReader::new(stdout).read_line(&mut said).context(|| "wait for unshare".into())?;
        }
        let room = Self { holder, has_network };
        if said.trim() != "ready" {
            return Err(Error::new("unshare made no namespaces; this needs root"));
        }
        Ok(room)
    }

    /// Runs `program` in it, in place of the process that enters.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg("--target").arg(self.pid().to_string()).arg("--mount");
        if self.has_network {
            command.arg("--net");
        }
        command.arg("--").arg(program);
        command
    }

    /// Runs it and requires success; its stdout.
    ///
    /// # Errors
    /// It failed, with what it said.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let output = self.command(program).args(arguments).output().context(|| format!("run {program}"))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(Error::new(format!("{program} {}: {}: {}", arguments.join(" "), output.status, said.trim())));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// What is there can't be seen from the room any more.
    ///
    /// # Errors
    /// The mount's.
    pub fn hide(&self, path: &Path) -> Result<()> {
        let path_text = path.to_string_lossy();
        if path.is_dir() {
            self.run("mount", &["-t", "tmpfs", "-o", "size=0,mode=0000,ro", "hidden", &path_text]).map(drop)
        } else {
            self.run("mount", &["--bind", "/dev/null", &path_text]).map(drop)
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.holder.id()
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // Its stdin ends with it; the kill is for a shell that is not there yet.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
