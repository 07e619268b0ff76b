use std::{fs::File, path::Path};

use form_delta::{
    limits::{
        FRAME_CONTENT_BYTES_TARGET, REDUNDANT_RATIO, REDUNDANT_SAMPLE_BYTES, SMALL_DELTA_BYTES, ZSTD_LEVEL,
        ZSTD_LEVEL_REDUNDANT, ZSTD_LEVEL_SMALL,
    },
    open_delta, sent_extents,
};
use zstd::bulk::Compressor;

use super::{blocks::on_all_cpus, mapped::Mapped};
use crate::Result;

/// The bytes of a new image that a delta of `form` carries, a frame's worth at a time.
pub(super) struct Sent(Vec<Vec<u8>>);

impl Sent {
    pub(super) fn read(new: &Path, delta: &Path) -> Result<Sent> {
        let new = Mapped::open(new)?;
        let mut batches = vec![Vec::new()];
        for extent in sent_extents(&open_delta(File::open(delta)?)?)? {
            for piece in new.bytes(extent.start, extent.end).chunks(FRAME_CONTENT_BYTES_TARGET as usize) {
                if batches.last().is_none_or(|last| last.len() + piece.len() > FRAME_CONTENT_BYTES_TARGET as usize) {
                    batches.push(Vec::new());
                }
                if let Some(last) = batches.last_mut() {
                    last.extend_from_slice(piece);
                }
            }
        }
        Ok(Sent(batches))
    }

    pub(super) fn bytes(&self) -> u64 {
        self.0.iter().map(|batch| batch.len() as u64).sum()
    }

    /// Compresses them on all CPUs at the levels that `form` takes, and nothing else.
    pub(super) fn compress(&self) -> Result<()> {
        let is_small = self.bytes() <= SMALL_DELTA_BYTES;
        let compressed = on_all_cpus(self.0.len(), |number| -> Result<usize> {
            let batch = self.0.get(number).map(Vec::as_slice).unwrap_or_default();
            let level = if is_small { ZSTD_LEVEL_SMALL } else { level(batch)? };
            Ok(Compressor::new(level)?.compress(batch)?.len())
        });
        compressed.into_iter().try_for_each(|len| len.map(drop))
    }
}

/// A piece from the middle says how closely to look.
fn level(batch: &[u8]) -> Result<i32> {
    let start = batch.len().saturating_sub(REDUNDANT_SAMPLE_BYTES) / 2;
    Ok(match batch.get(start..start + REDUNDANT_SAMPLE_BYTES) {
        Some(sample) if Compressor::new(ZSTD_LEVEL)?.compress(sample)?.len() * REDUNDANT_RATIO < sample.len() => {
            ZSTD_LEVEL_REDUNDANT
        }
        _ => ZSTD_LEVEL,
    })
}
