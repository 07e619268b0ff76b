use std::{path::Path, process::Command};

use super::{Job, Tool, Update, file_bytes};
use crate::{Result, process::Usage};

/// xdelta3 with as large a source window as it takes, its output through zstd.
pub(super) struct Xdelta3;

fn xdelta3(base: &Path, verb: &str) -> Command {
    let mut command = Command::new("xdelta3");
    command.args([verb, "-B", "536870912", "-S", "none", "-A", "-s"]).arg(base);
    command
}

impl Tool for Xdelta3 {
    fn name(&self) -> &'static str {
        "xdelta3"
    }

    fn update(&self, job: &Job<'_>, source: &mut Usage, target: &mut Usage) -> Result<Update> {
        let (patch, wire) = (job.work.join("patch"), job.work.join("wire"));
        let (received, out) = (job.work.join("received"), job.work.join("new"));
        source.run(xdelta3(job.base()?, "-e").arg(job.new).arg(&patch))?;
        source.run(Command::new("zstd").args(["-q", "-3", "-o"]).arg(&wire).arg(&patch))?;
        target.run(Command::new("zstd").args(["-q", "-d", "-o"]).arg(&received).arg(&wire))?;
        target.run(xdelta3(job.base()?, "-d").arg(&received).arg(&out))?;
        Ok(Update { wire_bytes: file_bytes(&wire)?, result: Some(out), ..Update::default() })
    }
}
