use std::path::{Path, PathBuf};

use form_delta::{open_delta, summarise};
use serde_json::json;

use super::failure;
use super::input_file::open_input;
use super::report::{Report, kinds_json};
use super::stages::Stages;
use crate::exit::Stop;
use crate::output::Output;
use crate::units;

/// Check a delta, and show what it is made of
///
/// All of it is read and held against its hashes. No base is needed for that; whether what it says fits its bases is seen when
/// it is applied.
#[derive(clap::Args)]
pub(crate) struct InfoArgs {
    /// The delta; `-` is stdin
    #[arg(value_name = "FILE")]
    delta: PathBuf,
}

pub(super) fn run(args: InfoArgs, output: Output) -> Result<(), Stop> {
    let path = &args.delta;
    let mut stages = Stages::begin();
    let file = open_input(path, Path::new("."))?;
    let bytes = file.metadata().map_err(|error| failure::io("read", path, &error))?.len();
    let spool =
        stages.run("open", || open_delta(file)).map_err(|error| failure::of_delta("read", path, None, &error))?;
    let totals = stages
        .run("read", || summarise(&spool))
        .map_err(|error| failure::of_delta("read", path, Some(&spool), &error))?;

    let index = spool.index();
    let roots = &index.base_roots;
    let mut report = Report::new()
        .line("delta", format!("{}  {}", path.display(), units::bytes(bytes)))
        .line("frames", index.frames.len())
        .line("new", format!("{}  {}", index.new_root, units::bytes(index.image_len_bytes)));
    for root in roots {
        report = report.line("base", root);
    }
    let json = json!({
        "delta": path.display().to_string(),
        "bytes": bytes,
        "frames": index.frames.len(),
        "image_bytes": index.image_len_bytes,
        "root": index.new_root.to_string(),
        "bases": roots.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "kinds": kinds_json(&totals),
        "new_chunks": totals.new_chunks,
    });
    report.kinds(&totals).show(json, &stages, output);
    Ok(())
}
