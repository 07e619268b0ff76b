use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use super::{Job, Tool, Update, trees};
use crate::{Result, process::Usage};

/// borg with the base in the repository.
pub(super) struct Borg {
    pub(super) name: &'static str,
    pub(super) chunker: &'static str,
}

impl Borg {
    fn borg(&self, home: &Path) -> Command {
        let mut command = Command::new("borg");
        command.env("BORG_BASE_DIR", home.join("home")).env("BORG_REPO", home.join("repo"));
        for yes in ["BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK", "BORG_RELOCATED_REPO_ACCESS_IS_OK"] {
            command.env(yes, "yes");
        }
        command
    }

    fn create(&self, home: &Path, archive: &str, image: &Path) -> Result<Command> {
        let mut command = self.borg(home);
        command.args([
            "create",
            "--chunker-params",
            self.chunker,
            "--compression",
            "zstd,3",
            "--files-cache",
            "disabled",
        ]);
        command.args(["--stdin-name", "image", archive, "-"]).stdin(File::open(image)?);
        Ok(command)
    }
}

impl Tool for Borg {
    fn name(&self) -> &'static str {
        self.name
    }

    fn prepare(&self, bases: &[PathBuf], state: &Path, setup: &mut Usage) -> Result<()> {
        setup.run(self.borg(state).args(["init", "-e", "none"]))?;
        setup.run(&mut self.create(state, "::base", bases.first().ok_or("a pair without a base")?)?)?;
        Ok(())
    }

    fn update(&self, job: &Job<'_>, source: &mut Usage, target: &mut Usage) -> Result<Update> {
        trees::link(&job.state.join("repo"), &job.work.join("repo"))?;
        trees::copy(&job.state.join("home"), &job.work.join("home"))?;
        source.run(&mut self.create(job.work, "::new", job.new)?)?;
        let wire_bytes = trees::added(&job.work.join("repo/data"), &mut |_| Ok(()))?;
        let out = job.work.join("out");
        fs::create_dir(&out)?;
        target.run(self.borg(job.work).args(["extract", "--sparse", "::new"]).current_dir(&out))?;
        Ok(Update { wire_bytes, result: Some(out.join("image")), ..Update::default() })
    }
}
