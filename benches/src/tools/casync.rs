use std::{fs, path::Path, path::PathBuf, process::Command};

use super::{Job, Tool, Update, file_bytes, trees};
use crate::{Result, process::Usage};

/// casync with the chunks of the base in a store at the source; the target has the base as its seed.
pub(super) struct Casync;

fn make(store: &Path, index: &Path, image: &Path) -> Command {
    let mut command = Command::new("casync");
    command.arg("make").arg(format!("--store={}", store.display())).arg(index).arg(image);
    command
}

impl Tool for Casync {
    fn name(&self) -> &'static str {
        "casync"
    }

    fn prepare(&self, bases: &[PathBuf], state: &Path, setup: &mut Usage) -> Result<()> {
        let base = bases.first().ok_or("a pair without a base")?;
        setup.run(&mut make(&state.join("store.castr"), &state.join("base.caibx"), base))?;
        Ok(())
    }

    fn update(&self, job: &Job<'_>, source: &mut Usage, target: &mut Usage) -> Result<Update> {
        let (store, index, out) = (job.work.join("store.castr"), job.work.join("new.caibx"), job.work.join("new"));
        trees::link(&job.state.join("store.castr"), &store)?;
        source.run(&mut make(&store, &index, job.new))?;

        // What is new in the store crosses the wire, and nothing else is in the target's.
        let wire = job.work.join("wire.castr");
        let chunk_bytes = trees::added(&store, &mut |chunk| {
            let to = wire.join(chunk.strip_prefix(&store)?);
            fs::create_dir_all(to.parent().ok_or("a chunk without a directory")?)?;
            Ok(fs::rename(chunk, to)?)
        })?;
        fs::create_dir_all(&wire)?;
        let mut extract = Command::new("casync");
        extract.arg("extract").arg(format!("--store={}", wire.display()));
        extract.arg(format!("--seed={}", job.base()?.display())).arg(&index).arg(&out);
        target.run(&mut extract)?;
        Ok(Update { wire_bytes: chunk_bytes + file_bytes(&index)?, result: Some(out), ..Update::default() })
    }
}
