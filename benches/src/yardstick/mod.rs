//! What the machine can do: compare two images a block of 4 KiB at a time on all CPUs, compress what differs with zstd, and write it in place.
//!
//! It is the least that any update that reads both images has to do, and knows nothing of content that has moved. Holes on both sides are skipped; a hole on
//! one side is compared with zeros. It runs in a process of its own, through this program's command line, as every other tool does.

mod blocks;
mod mapped;
mod patch;

use std::{fs::File, os::unix::fs::FileExt, path::Path, time::Instant};

use rustix::fs::{FallocateFlags, fallocate};
use serde_json::{Value, json};

use crate::Result;
use blocks::{BLOCK_BYTES, Run, changed};
use mapped::Mapped;

/// `yardstick VERB FILE…`: what it prints is one JSON object.
pub fn run(verb: &str, files: &[&Path]) -> Result<Value> {
    match (verb, files) {
        ("compare", [base, new]) => {
            let start = Instant::now();
            let changed = changed(&Mapped::open(base)?, &Mapped::open(new)?)?;
            Ok(json!({ "changed_bytes": bytes(&changed), "compare_s": start.elapsed().as_secs_f64() }))
        }
        ("make", [base, new, out]) => {
            let start = Instant::now();
            let new = Mapped::open(new)?;
            let changed = changed(&Mapped::open(base)?, &new)?;
            let compare_s = start.elapsed().as_secs_f64();
            patch::write(&new, &changed, &File::create(out)?)?;
            let zstd_s = start.elapsed().as_secs_f64() - compare_s;
            Ok(json!({ "changed_bytes": bytes(&changed), "compare_s": compare_s, "zstd_s": zstd_s }))
        }
        ("apply", [patch, image]) => {
            patch::apply(&std::fs::read(patch)?, &File::options().write(true).open(image)?)?;
            Ok(Value::Null)
        }
        ("same", [left, right]) => match changed(&Mapped::open(left)?, &Mapped::open(right)?)?.first() {
            None => Ok(Value::Null),
            Some(run) => {
                Err(format!("{} and {} differ at block {}", left.display(), right.display(), run.start).into())
            }
        },
        ("reset", [image, base]) => reset(image, base),
        _ => Err("yardstick compare|make|apply|same|reset FILE…".into()),
    }
}

fn bytes(changed: &[Run]) -> u64 {
    changed.iter().map(|run| run.end - run.start).sum::<u64>() * BLOCK_BYTES
}

/// Makes an image equal to its base again, and durable.
fn reset(image: &Path, base: &Path) -> Result<Value> {
    let base = Mapped::open(base)?;
    let changed = changed(&Mapped::open(image)?, &base)?;
    let file = File::options().write(true).open(image)?;
    for run in changed {
        let (offset, bytes) = (run.start * BLOCK_BYTES, base.blocks(run));
        if bytes.iter().all(|byte| *byte == 0) {
            fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, bytes.len() as u64)?;
        } else {
            file.write_all_at(bytes, offset)?;
        }
    }
    file.sync_all()?;
    Ok(Value::Null)
}
