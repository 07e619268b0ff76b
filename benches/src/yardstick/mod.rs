//! What the machine can do: compare two images a block of 4 KiB at a time on all CPUs, compress what differs with zstd, and write it in place.
//!
//! It is the least that any update that reads both images has to do, and knows nothing of content that has moved. Holes on both sides are skipped; a hole on
//! one side is compared with zeros. It runs in a process of its own, through this program's command line, as every other tool does.

mod blocks;
mod mapped;
mod patch;
mod sent;

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
        ("sent", [new, delta]) => {
            let sent = sent::Sent::read(new, delta)?;
            let start = Instant::now();
            sent.compress()?;
            Ok(json!({ "sent_bytes": sent.bytes(), "zstd_s": start.elapsed().as_secs_f64() }))
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
        ("warm", images) => {
            for image in images {
                let image = Mapped::open(image)?;
                image.data.iter().for_each(|run| image.populate(*run));
            }
            Ok(Value::Null)
        }
        ("reset", [image, base]) => reset(image, base),
        _ => Err("yardstick compare|make|sent|apply|same|warm|reset FILE…".into()),
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

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: usize = BLOCK_BYTES as usize;

    /// Blocks by letter; a dot is a hole.
    fn image(path: &Path, blocks: &str) {
        let file = File::create(path).unwrap();
        file.set_len(blocks.len() as u64 * BLOCK_BYTES).unwrap();
        for (number, letter) in blocks.bytes().enumerate().filter(|(_, letter)| *letter != b'.') {
            let byte = if letter == b'0' { 0 } else { letter };
            file.write_all_at(&[byte; BLOCK], number as u64 * BLOCK_BYTES).unwrap();
        }
    }

    #[test]
    fn what_differs_is_found_sent_and_undone() {
        let dir = tempfile::tempdir().unwrap();
        let [base, new, standby, patch] = ["base", "new", "standby", "patch"].map(|name| dir.path().join(name));
        image(&base, "aaaa....bb0.cc");
        image(&new, "aaxa..x.b...cy");
        image(&standby, "aaaa....bb0.cc");
        let told = run("make", &[&base, &new, &patch]).unwrap();
        assert_eq!(told["changed_bytes"], 4 * BLOCK_BYTES, "a hole and a block of zeros are the same");
        assert!(run("same", &[&standby, &new]).is_err());
        run("apply", &[&patch, &standby]).unwrap();
        run("same", &[&standby, &new]).unwrap();
        run("reset", &[&standby, &base]).unwrap();
        run("same", &[&standby, &base]).unwrap();
        assert_eq!(run("compare", &[&standby, &base]).unwrap()["changed_bytes"], 0);
    }
}
