use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Command,
};

use super::{Job, Tool, Update, trees};
use crate::{Result, process::Usage};

/// restic with the base in the repository.
pub(super) struct Restic;

fn restic(repository: &Path) -> Command {
    let mut command = Command::new("restic");
    command.args(["--quiet", "--no-cache", "--repo"]).arg(repository).env("RESTIC_PASSWORD", "benchmark");
    command
}

fn backup(repository: &Path, image: &Path) -> Result<Command> {
    let mut command = restic(repository);
    command.args(["backup", "--stdin", "--stdin-filename", "image"]).stdin(File::open(image)?);
    Ok(command)
}

impl Tool for Restic {
    fn name(&self) -> &'static str {
        "restic"
    }

    fn prepare(&self, bases: &[PathBuf], state: &Path, setup: &mut Usage) -> Result<()> {
        let repository = state.join("repo");
        setup.run(restic(&repository).arg("init"))?;
        setup.run(&mut backup(&repository, bases.first().ok_or("a pair without a base")?)?)?;
        Ok(())
    }

    fn update(&self, job: &Job<'_>, source: &mut Usage, target: &mut Usage) -> Result<Update> {
        let repository = job.work.join("repo");
        trees::link(&job.state.join("repo"), &repository)?;
        source.run(&mut backup(&repository, job.new)?)?;
        let wire_bytes = trees::added(&repository, &mut |_| Ok(()))?;
        let out = job.work.join("out");
        target.run(restic(&repository).args(["restore", "latest", "--target"]).arg(&out))?;
        Ok(Update { wire_bytes, result: Some(out.join("image")), ..Update::default() })
    }
}
