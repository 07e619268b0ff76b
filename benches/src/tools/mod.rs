//! Everything that can bring an image from one place to another, each through its own command line.

mod borg;
mod casync;
mod commit;
mod form;
mod qemu_img;
mod restic;
mod rsync;
mod trees;
mod xdelta3;
mod yardstick;
mod zstd;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Result, process::Usage, settings::Settings};

/// One update, to be carried out.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    /// Images that both ends hold. The first is the older version of the new one.
    pub bases: &'a [PathBuf],
    /// The image to be sent.
    pub new: &'a Path,
    /// What the tool prepared for these bases.
    pub state: &'a Path,
    /// An empty directory.
    pub work: &'a Path,
    /// A file that holds what the first base holds. Only a tool that says so may write there.
    pub standby: &'a Path,
}

impl Job<'_> {
    /// The older version of the new image.
    pub fn base(&self) -> Result<&Path> {
        Ok(self.bases.first().ok_or("a pair without a base")?)
    }
}

/// An update that was carried out.
#[derive(Debug, Clone, Default)]
pub struct Update {
    /// What crossed from source to target and back.
    pub wire_bytes: u64,
    /// Where the target has the new image now; `None` if the tool makes none.
    pub result: Option<PathBuf>,
    /// What else the tool said.
    pub detail: Value,
}

/// What a tool is to the comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// The program of this repository.
    Ours,
    /// What it is held against.
    Peer,
    /// What the machine can do.
    Yardstick,
}

/// A way to update an image.
pub trait Tool {
    /// Name in tables and in `FORM_BENCH_PEERS`.
    fn name(&self) -> &'static str;

    /// Whose figures these are.
    fn role(&self) -> Role {
        Role::Peer
    }

    /// Whether it changes the standby image instead of writing a new one.
    fn in_place(&self) -> bool {
        false
    }

    /// Makes what both ends would have from the update before: an index, a repository.
    fn prepare(&self, _bases: &[PathBuf], _state: &Path, _setup: &mut Usage) -> Result<()> {
        Ok(())
    }

    /// Carries out one update.
    fn update(&self, job: &Job<'_>, source: &mut Usage, target: &mut Usage) -> Result<Update>;
}

/// All tools, the fast ones first.
pub fn all(settings: &Settings) -> Result<Vec<Box<dyn Tool>>> {
    let bench = std::env::current_exe()?;
    let tools: Vec<Box<dyn Tool>> = vec![
        Box::new(form::Form { program: settings.form.clone(), standby: true, bench: bench.clone() }),
        Box::new(form::Form { program: settings.form.clone(), standby: false, bench: bench.clone() }),
        Box::new(commit::Commit::new(settings)),
        Box::new(yardstick::ComparePass { program: bench.clone() }),
        Box::new(yardstick::BlocksAndZstd { program: bench }),
        Box::new(rsync::Rsync { compressed: true }),
        Box::new(rsync::Rsync { compressed: false }),
        Box::new(qemu_img::Rebase { name: "qemu-4k", cluster: "4k" }),
        Box::new(qemu_img::Rebase { name: "qemu-64k", cluster: "64k" }),
        Box::new(zstd::PatchFrom),
        Box::new(xdelta3::Xdelta3),
        Box::new(casync::Casync),
        Box::new(borg::Borg { name: "borg", chunker: "buzhash,19,23,21,4095" }),
        Box::new(borg::Borg { name: "borg-64k", chunker: "fixed,65536" }),
        Box::new(restic::Restic),
    ];
    Ok(tools.into_iter().filter(|tool| settings.wants_tool(tool.name())).collect())
}

/// Length of a file.
fn file_bytes(path: &Path) -> Result<u64> {
    Ok(path.metadata().map_err(|error| format!("{}: {error}", path.display()))?.len())
}
