use std::{fs::File, mem, ops::Range};

use rustix::{
    fs::{FallocateFlags, fallocate},
    io::Errno,
};

use super::{Calls, Writer};
use crate::{
    Extent, Image, Result,
    error::{Error, Object},
    hash::{ZEROS, is_zero},
    image::{preallocate, slices},
    limits::{BLOCK_BYTES, RUN_BYTES_MIN, WRITE_BYTES_MAX},
};

/// Merges neighbouring pieces of data into long writes and neighbouring zeros into long holes, and leaves out what the base has at the same place. Both
/// engines run the list that comes out of it.
pub(super) struct Merger<'a> {
    writer: &'a mut dyn Writer,
    out: &'a File,
    base: Option<&'a Image>,
    pending: Vec<u8>,
    pending_at: u64,
    hole: Extent,
    merged: Merged,
}

/// What came out.
#[derive(Default)]
pub(super) struct Merged {
    pub(super) bytes_written: u64,
    pub(super) calls: Calls,
    pub(super) holes_punched: u64,
}

impl<'a> Merger<'a> {
    pub(super) fn new(writer: &'a mut dyn Writer, out: &'a File, base: Option<&'a Image>) -> Self {
        Merger {
            pending: writer.buffer(),
            writer,
            out,
            base,
            pending_at: 0,
            hole: Extent::new(0, 0),
            merged: Merged::default(),
        }
    }

    /// Data for `offset`, not before anything given earlier. Long runs of zeros in it become holes; long runs that the base has there are there already: one
    /// changed page does not write its whole chunk.
    pub(super) fn data(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        for (zeros, extent, bytes) in runs(offset, bytes, |_, block| is_zero(block)) {
            if zeros {
                self.zero(extent)?;
                continue;
            }
            let base = self.base;
            let in_base = |extent, block: &[u8]| base.is_some_and(|base| base.has(extent, block));
            for (present, extent, bytes) in runs(extent.start, bytes, in_base) {
                if !present {
                    self.append(extent.start, bytes)?;
                }
            }
        }
        Ok(())
    }

    /// Zeros for `extent`, not before anything given earlier.
    pub(super) fn zero(&mut self, extent: Extent) -> Result<()> {
        if self.hole.end == extent.start {
            self.hole.end = extent.end;
            return Ok(());
        }
        let before = mem::replace(&mut self.hole, extent);
        self.punch(before)
    }

    /// Everything out, and durable.
    pub(super) fn finish(mut self) -> Result<Merged> {
        let hole = self.hole;
        self.punch(hole)?;
        self.flush()?;
        self.merged.calls = self.writer.finish()?;
        Ok(self.merged)
    }

    fn append(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let mut rest = bytes;
        let mut at = offset;
        while !rest.is_empty() {
            let pending_end = self.pending_at + self.pending.len() as u64;
            if pending_end != at || self.pending.len() == WRITE_BYTES_MAX {
                self.flush()?;
                self.pending_at = at;
            }
            let room = WRITE_BYTES_MAX - self.pending.len();
            let (now, later) = rest.split_at(room.min(rest.len()));
            self.pending.extend(now);
            at += now.len() as u64;
            rest = later;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let extent = Extent::new(self.pending_at, self.pending_at + self.pending.len() as u64);
        if self.base.is_none_or(|base| base.is_hole(extent)) {
            preallocate(self.out, extent, Object::Output)?;
        }
        let next = self.writer.buffer();
        let bytes = mem::replace(&mut self.pending, next);
        self.merged.bytes_written += bytes.len() as u64;
        self.writer.write(self.pending_at, bytes)
    }

    /// Where the file has a hole already, a hole is nothing to do: everywhere without a base, and where the base has one.
    fn punch(&mut self, extent: Extent) -> Result<()> {
        if self.base.is_none_or(|base| base.is_hole(extent)) {
            return Ok(());
        }
        let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match fallocate(self.out, mode, extent.start, extent.len_bytes()) {
            Ok(()) => {
                self.merged.holes_punched += 1;
                Ok(())
            }
            Err(Errno::OPNOTSUPP) => self.write_zeros(extent),
            Err(error) => Err(Error::io("punch a hole in", Object::Output)(error)),
        }
    }

    fn write_zeros(&mut self, extent: Extent) -> Result<()> {
        let mut at = extent.start;
        while at < extent.end {
            let len = (extent.end - at).min(ZEROS.len() as u64);
            let mut bytes = self.writer.buffer();
            bytes.extend(&ZEROS[..len as usize]);
            self.merged.bytes_written += len;
            self.writer.write(at, bytes)?;
            at += len;
        }
        Ok(())
    }
}

/// Cuts `bytes`, which begin at `offset` of the image, into runs: those of blocks that are `special`, if they are long, and what lies between. Runs end
/// between blocks of the image or with `bytes`: chunks end anywhere, and a run may go on in the next one.
fn runs(
    offset: u64,
    bytes: &[u8],
    special: impl Fn(Extent, &[u8]) -> bool,
) -> impl Iterator<Item = (bool, Extent, &[u8])> {
    let mut merged: Vec<(bool, Extent)> = Vec::new();
    for extent in slices(Extent::new(offset, offset + bytes.len() as u64), BLOCK_BYTES) {
        let is_special = special(extent, &bytes[within(offset, extent)]);
        match merged.last_mut() {
            Some((last, run)) if *last == is_special => run.end = extent.end,
            _ => merged.push((is_special, extent)),
        }
    }
    for (is_special, run) in &mut merged {
        *is_special &= run.len_bytes() >= RUN_BYTES_MIN;
    }
    merged.dedup_by(|(next_special, next), (special, run)| {
        let joins = !*next_special && !*special;
        if joins {
            run.end = next.end;
        }
        joins
    });
    merged.into_iter().map(move |(is_special, run)| (is_special, run, &bytes[within(offset, run)]))
}

fn within(offset: u64, extent: Extent) -> Range<usize> {
    (extent.start - offset) as usize..(extent.end - offset) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zero_runs(offset: u64, bytes: &[u8]) -> Vec<(bool, usize)> {
        let found: Vec<_> = runs(offset, bytes, |_, block| is_zero(block)).collect();
        let mut next = offset;
        for (_, extent, bytes) in &found {
            assert_eq!((extent.start, extent.len_bytes()), (next, bytes.len() as u64));
            next = extent.end;
        }
        assert_eq!(next, offset + bytes.len() as u64);
        found.into_iter().map(|(zeros, _, bytes)| (zeros, bytes.len())).collect()
    }

    #[test]
    fn long_runs_stand_alone_and_short_ones_join_their_neighbours() {
        let block = BLOCK_BYTES as usize;
        let mut bytes = vec![1; 10 * block];
        bytes[2 * block..3 * block].fill(0);
        bytes[4 * block..9 * block].fill(0);
        assert_eq!(zero_runs(0, &bytes), [(false, 4 * block), (true, 5 * block), (false, block)]);
        // Shifted by 100 bytes, the first and the last block of the zeros hold data.
        assert_eq!(zero_runs(100, &bytes), [(false, 5 * block - 100), (true, 4 * block), (false, block + 100)]);
        // A run may begin and end with the bytes at hand.
        assert_eq!(zero_runs(100, &bytes[4 * block..9 * block]), [(true, 5 * block)]);
        assert_eq!(zero_runs(0, &[]), []);
        assert_eq!(zero_runs(1, &[0; 10]), [(false, 10)]);
    }
}
