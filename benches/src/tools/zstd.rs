use std::{
    path::{Path, PathBuf},
    process::Command,
};

use super::{Job, Tool, Update, file_bytes};
use crate::{Result, process::Usage};

/// `zstd --patch-from`. Its window is 2 GiB and has to hold base and image, so larger ones are cut into pieces.
pub(super) struct PatchFrom;

const PIECE_BYTES: u64 = 1 << 30;

/// A loop of the shell over the pieces of an image, with one output. Its environment has all that the script may name.
fn for_each_piece(image: &Path, script: &str, out: &Path, files: &[(&str, &Path)]) -> Result<Command> {
    let last = file_bytes(image)?.div_ceil(PIECE_BYTES).saturating_sub(1);
    let mut command = Command::new("sh");
    command.args(["-euc", &format!("exec > \"$OUT\"; for number in $(seq 0 {last}); do {script}; done")]);
    command.env("MIB", (PIECE_BYTES >> 20).to_string()).env("BYTES", file_bytes(image)?.min(PIECE_BYTES).to_string());
    command.env("OUT", out).envs(files.iter().copied());
    Ok(command)
}

impl Tool for PatchFrom {
    fn name(&self) -> &'static str {
        "zstd-patch"
    }

    fn prepare(&self, bases: &[PathBuf], state: &Path, setup: &mut Usage) -> Result<()> {
        let base = bases.first().ok_or("a pair without a base")?;
        let cut = r#"dd if="$BASE" of="$STATE/$number" bs=1M skip=$((number * MIB)) count="$MIB" conv=sparse status=none
            truncate -s "$BYTES" "$STATE/$number""#;
        setup.run(&mut for_each_piece(base, cut, Path::new("/dev/null"), &[("BASE", base), ("STATE", state)])?)?;
        Ok(())
    }

    fn update(&self, job: &Job<'_>, source: &mut Usage, target: &mut Usage) -> Result<Update> {
        let out = job.work.join("new");
        let files = [("NEW", job.new), ("STATE", job.state), ("WORK", job.work)];
        let make = r#"dd if="$NEW" bs=1M skip=$((number * MIB)) count="$MIB" iflag=fullblock status=none |
            zstd -q -3 --long=31 --stream-size="$BYTES" --patch-from="$STATE/$number" -o "$WORK/$number""#;
        source.run(&mut for_each_piece(job.new, make, Path::new("/dev/null"), &files)?)?;
        // The pieces follow each other in one output, with holes.
        let apply = r#"zstd -q -d --long=31 --sparse --patch-from="$STATE/$number" -c "$WORK/$number""#;
        target.run(&mut for_each_piece(job.new, apply, &out, &files)?)?;
        let pieces = 0..file_bytes(job.new)?.div_ceil(PIECE_BYTES);
        let wire_bytes = pieces.map(|number| file_bytes(&job.work.join(number.to_string()))).sum::<Result<u64>>()?;
        Ok(Update { wire_bytes, result: Some(out), ..Update::default() })
    }
}
