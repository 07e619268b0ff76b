use std::process::Command;

use super::{Job, Tool, Update, file_bytes};
use crate::{Result, process::Usage};

/// An overlay on the new image is rebased onto the base, so that it holds what differs; zstd makes it small; the target commits it into its base.
pub(super) struct Rebase {
    pub(super) name: &'static str,
    pub(super) cluster: &'static str,
}

fn qemu_img(verb: &str) -> Command {
    let mut command = Command::new("qemu-img");
    command.args([verb, "-q", "-f", "qcow2"]);
    command
}

impl Tool for Rebase {
    fn name(&self) -> &'static str {
        self.name
    }

    fn in_place(&self) -> bool {
        true
    }

    fn update(&self, job: &Job<'_>, source: &mut Usage, target: &mut Usage) -> Result<Update> {
        let (sent, wire, received) = (job.work.join("sent"), job.work.join("wire"), job.work.join("received"));
        let mut create = qemu_img("create");
        create.args(["-F", "raw", "-o", &format!("cluster_size={}", self.cluster), "-b"]).arg(job.new).arg(&sent);
        source.run(&mut create)?;
        source.run(qemu_img("rebase").args(["-F", "raw", "-b"]).arg(job.base()?).arg(&sent))?;
        source.run(Command::new("zstd").args(["-q", "-3", "-o"]).arg(&wire).arg(&sent))?;

        target.run(Command::new("zstd").args(["-q", "-d", "-o"]).arg(&received).arg(&wire))?;
        target.run(qemu_img("rebase").args(["-u", "-F", "raw", "-b"]).arg(job.standby).arg(&received))?;
        target.run(qemu_img("commit").arg("-d").arg(&received))?;
        Ok(Update { wire_bytes: file_bytes(&wire)?, result: Some(job.standby.to_owned()), ..Update::default() })
    }
}
