use std::{
    fs::File,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use super::{Job, Role, Tool, Update, file_bytes};
use crate::{Result, process::Usage};

/// `form delta`, with an index of each base. With a standby image the target changes that; without, it writes a new file.
pub(super) struct Form {
    pub(super) program: PathBuf,
    pub(super) standby: bool,
    /// What says how long zstd alone takes for what was sent.
    pub(super) bench: PathBuf,
}

impl Form {
    fn delta(&self, verb: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["delta", verb]);
        command
    }
}

/// Bases are named through links, so that their indexes stand beside those and not in the corpus.
fn linked(base: &Path, state: &Path) -> PathBuf {
    state.join(base.file_name().unwrap_or_default())
}

impl Tool for Form {
    fn name(&self) -> &'static str {
        if self.standby { "form" } else { "form-copy" }
    }

    fn role(&self) -> Role {
        Role::Ours
    }

    fn in_place(&self) -> bool {
        self.standby
    }

    fn prepare(&self, bases: &[PathBuf], state: &Path, setup: &mut Usage) -> Result<()> {
        for base in bases {
            symlink(base, linked(base, state))?;
            setup.run(self.delta("index").arg(linked(base, state)))?;
        }
        Ok(())
    }

    fn update(&self, job: &Job<'_>, source: &mut Usage, target: &mut Usage) -> Result<Update> {
        let (patch, out) = (job.work.join("patch"), job.work.join("new"));
        if let Some(base) = job.bases.first().filter(|_| self.standby) {
            // What a target does in the background after the update before: the standby image becomes the base's equal, and is known to be.
            Usage::default().run(self.delta("standby").arg("--base").arg(linked(base, job.state)).arg(job.standby))?;
        }
        let bases = job.bases.iter().flat_map(|base| [PathBuf::from("--base"), linked(base, job.state)]);
        let mut make = self.delta("make");
        make.args(bases.clone()).arg("--new").arg(job.new).arg("--out").arg(&patch).arg("--json");
        let made = source.run(&mut make)?;
        let mut sent = Command::new(&self.bench);
        let sent = Usage::default().run(sent.args(["yardstick", "sent"]).arg(job.new).arg(&patch))?;
        let mut apply = self.delta("apply");
        apply.args(bases).arg("--delta").arg(&patch).arg("--out").arg(&out).arg("--json");
        if self.standby {
            apply.arg("--standby").arg(job.standby);
        }
        let applied = target.run(&mut apply)?;
        let mut digest = blake3::Hasher::new();
        digest.update_reader(File::open(&patch)?)?;
        let parse = |printed: &str| serde_json::from_str::<serde_json::Value>(printed).unwrap_or_default();
        Ok(Update {
            wire_bytes: file_bytes(&patch)?,
            result: Some(out),
            detail: serde_json::json!({
                "make": parse(&made), "sent": parse(&sent), "apply": parse(&applied),
                "blake3": digest.finalize().to_hex().as_str(),
            }),
        })
    }
}
