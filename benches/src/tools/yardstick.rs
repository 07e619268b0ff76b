use std::{path::PathBuf, process::Command};

use super::{Job, Role, Tool, Update, file_bytes};
use crate::{Result, process::Usage};

/// Reads both images and finds out which blocks of 4 KiB differ; nothing else. See [`crate::yardstick`].
pub(super) struct ComparePass {
    pub(super) program: PathBuf,
}

impl Tool for ComparePass {
    fn name(&self) -> &'static str {
        "compare"
    }

    fn role(&self) -> Role {
        Role::Yardstick
    }

    fn update(&self, job: &Job<'_>, source: &mut Usage, _target: &mut Usage) -> Result<Update> {
        let printed =
            source.run(Command::new(&self.program).args(["yardstick", "compare"]).arg(job.base()?).arg(job.new))?;
        Ok(Update { wire_bytes: 0, result: None, detail: serde_json::from_str(&printed)? })
    }
}

/// The compare pass and zstd of what differs.
pub(super) struct BlocksAndZstd {
    pub(super) program: PathBuf,
}

impl Tool for BlocksAndZstd {
    fn name(&self) -> &'static str {
        "yardstick"
    }

    fn role(&self) -> Role {
        Role::Yardstick
    }

    fn in_place(&self) -> bool {
        true
    }

    fn update(&self, job: &Job<'_>, source: &mut Usage, target: &mut Usage) -> Result<Update> {
        let patch = job.work.join("patch");
        let yardstick = |verb: &str| {
            let mut command = Command::new(&self.program);
            command.args(["yardstick", verb]);
            command
        };
        let printed = source.run(yardstick("make").arg(job.base()?).arg(job.new).arg(&patch))?;
        target.run(yardstick("apply").arg(&patch).arg(job.standby))?;
        Ok(Update {
            wire_bytes: file_bytes(&patch)?,
            result: Some(job.standby.to_owned()),
            detail: serde_json::from_str(&printed)?,
        })
    }
}
