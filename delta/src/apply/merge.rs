use std::{fs::File, mem};

use rustix::{
    fs::{FallocateFlags, fallocate},
    io::Errno,
};

use super::Writer;
use crate::{
    Extent, Image, Result,
    error::{Error, Object},
    hash::{ZEROS, is_zero},
    limits::{BLOCK_BYTES, HOLE_BYTES_MIN, WRITE_BYTES_MAX},
};

/// Merges neighbouring pieces of data into long writes and neighbouring zeros into long holes. Both engines run the list that comes out of it.
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
    pub(super) writes: u64,
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

    /// Data for `offset`, not before anything given earlier. Long runs of zeros in it become holes.
    pub(super) fn data(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let mut rest = bytes;
        let mut at = offset;
        while let Some((zeros, len)) = next_run(at, rest) {
            let (run, behind) = rest.split_at(len);
            match zeros {
                true => self.zero(Extent::new(at, at + len as u64))?,
                false => self.append(at, run)?,
            }
            rest = behind;
            at += len as u64;
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
        self.merged.writes = self.writer.finish()?;
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

/// The first run of `bytes`, which begin at `offset` of the image: whether it becomes a hole, and its length. Runs end between blocks of the image, or where
/// `bytes` end: chunks end anywhere, and a hole may go on in the next one.
fn next_run(offset: u64, bytes: &[u8]) -> Option<(bool, usize)> {
    let mut zeros_from = None;
    let mut at = 0;
    while at < bytes.len() {
        let into_block = (offset + at as u64) % BLOCK_BYTES;
        let end = (at + (BLOCK_BYTES - into_block) as usize).min(bytes.len());
        if is_zero(&bytes[at..end]) {
            zeros_from.get_or_insert(at);
        } else if let Some(start) = zeros_from.take_if(|start| is_long(at - *start)) {
            return Some(run(start, at));
        } else {
            zeros_from = None;
        }
        at = end;
    }
    match zeros_from {
        Some(start) if is_long(at - start) => Some(run(start, at)),
        _ if at > 0 => Some((false, at)),
        _ => None,
    }
}

fn is_long(zeros: usize) -> bool {
    zeros as u64 >= HOLE_BYTES_MIN
}

/// The zeros, or what stands before them.
fn run(zeros_from: usize, zeros_to: usize) -> (bool, usize) {
    match zeros_from {
        0 => (true, zeros_to),
        _ => (false, zeros_from),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_zeros_become_holes() {
        let block = BLOCK_BYTES as usize;
        let mut bytes = vec![1; 10 * block];
        bytes[2 * block..3 * block].fill(0);
        bytes[4 * block..9 * block].fill(0);
        assert_eq!(next_run(0, &bytes), Some((false, 4 * block)));
        assert_eq!(next_run(0, &bytes[4 * block..]), Some((true, 5 * block)));
        assert_eq!(next_run(0, &bytes[9 * block..]), Some((false, block)));
        // Shifted by 100 bytes, the first block of zeros holds 100 bytes of data.
        assert_eq!(next_run(100, &bytes), Some((false, 5 * block - 100)));
        // A hole may begin and end with the bytes at hand.
        assert_eq!(next_run(100, &bytes[4 * block..9 * block]), Some((true, 5 * block)));
        assert_eq!(next_run(0, &[]), None);
        assert_eq!(next_run(1, &[0; 10]), Some((false, 10)));
    }
}
