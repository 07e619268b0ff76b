use std::{fs::File, io::BufWriter, io::Write, os::unix::fs::FileExt};

use form_delta::limits::{SMALL_DELTA_BYTES, ZSTD_LEVEL, ZSTD_LEVEL_SMALL};
use zstd::bulk::{Compressor, Decompressor};

use super::{
    blocks::{BLOCK_BYTES, Run, on_all_cpus},
    mapped::Mapped,
};
use crate::Result;

/// Blocks that are compressed together: content compresses across their borders.
const BATCH_BLOCKS: u64 = 256;
/// Bytes of a batch before compression: a number and the content of each block.
const BATCH_BYTES_MAX: usize = (BATCH_BLOCKS * (4 + BLOCK_BYTES)) as usize;

/// Compresses what changed, at the level that `form_delta` takes for as much. A batch in the file is its length and its zstd frame; in the frame are the blocks' numbers and then their content.
pub(super) fn write(new: &Mapped, changed: &[Run], out: &File) -> Result<()> {
    let numbers: Vec<u64> = changed.iter().flat_map(|run| run.start..run.end).collect();
    let is_small = numbers.len() as u64 * BLOCK_BYTES <= SMALL_DELTA_BYTES;
    let level = if is_small { ZSTD_LEVEL_SMALL } else { ZSTD_LEVEL };
    let batches: Vec<&[u64]> = numbers.chunks(BATCH_BLOCKS as usize).collect();
    let mut out = BufWriter::new(out);
    // A few MiB at a time, so that memory does not grow with what changed.
    for some in batches.chunks(64) {
        for frame in on_all_cpus(some.len(), |index| compress(new, some[index], level)) {
            let frame = frame?;
            out.write_all(&u32::try_from(frame.len())?.to_le_bytes())?;
            out.write_all(&frame)?;
        }
    }
    Ok(out.flush()?)
}

fn compress(new: &Mapped, numbers: &[u64], level: i32) -> Result<Vec<u8>> {
    let mut batch = Vec::with_capacity(BATCH_BYTES_MAX);
    for number in numbers {
        batch.extend(u32::try_from(*number)?.to_le_bytes());
    }
    for number in numbers {
        batch.extend(new.blocks(Run { start: *number, end: number + 1 }));
    }
    Ok(Compressor::new(level)?.compress(&batch)?)
}

/// Writes each block in its place, neighbours together.
pub(super) fn apply(mut patch: &[u8], image: &File) -> Result<()> {
    let mut decompressor = Decompressor::new()?;
    while let Some((len, rest)) = patch.split_first_chunk::<4>() {
        let (frame, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize).ok_or("a truncated patch")?;
        patch = rest;
        let batch = decompressor.decompress(frame, BATCH_BYTES_MAX)?;
        let count = batch.len() / (4 + BLOCK_BYTES as usize);
        let (numbers, content) = batch.split_at(count * 4);
        let numbers: Vec<u64> =
            numbers.as_chunks::<4>().0.iter().map(|number| u64::from(u32::from_le_bytes(*number))).collect();
        let mut content = content;
        for run in numbers.chunk_by(|left, right| left + 1 == *right) {
            let (bytes, rest) = content.split_at(run.len() * BLOCK_BYTES as usize);
            content = rest;
            image.write_all_at(bytes, run.first().copied().unwrap_or(0) * BLOCK_BYTES)?;
        }
    }
    Ok(())
}
