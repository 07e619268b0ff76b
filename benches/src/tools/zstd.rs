use std::{path::Path, process::Command};

use super::{Job, Tool, Update, file_bytes};
use crate::{Result, process::Usage};

/// `zstd --patch-from`: the whole base is the window.
pub(super) struct PatchFrom;

fn zstd(base: &Path) -> Command {
    let mut command = Command::new("zstd");
    command.args(["-q", "--long=31"]).arg(format!("--patch-from={}", base.display()));
    command
}

impl Tool for PatchFrom {
    fn name(&self) -> &'static str {
        "zstd-patch"
    }

    fn update(&self, job: &Job<'_>, source: &mut Usage, target: &mut Usage) -> Result<Update> {
        let (patch, out) = (job.work.join("patch"), job.work.join("new"));
        source.run(zstd(job.base()?).arg("-3").arg(job.new).arg("-o").arg(&patch))?;
        target.run(zstd(job.base()?).arg("-d").arg(&patch).arg("-o").arg(&out))?;
        Ok(Update { wire_bytes: file_bytes(&patch)?, result: Some(out), ..Update::default() })
    }
}
