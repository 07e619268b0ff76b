//! Makes one file equal another by copying what differs. It is the one place where files are read that a guest may be writing to: what is compared and written
//! is always a copy of that in a buffer of our own.

mod mapped;

use std::{fs::File, ops::Range, os::unix::fs::FileExt};

use rustix::{
    fs::{FallocateFlags, fallocate},
    io::Errno,
};

use crate::{
    Extent, Result,
    error::{Error, Object},
    hash::{ZEROS, is_zero},
    image::{self, Piece, data_within, normalise, pieces, preallocate},
    limits::{BLOCK_BYTES, LIVE_SLICE_BYTES},
    parallel,
};

pub use mapped::Mapped;
use mapped::Maps;

/// What [`refresh_shadow`] moved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refreshed {
    /// Bytes read from the live file.
    pub bytes_read: u64,
    /// Bytes written into the shadow.
    pub bytes_written: u64,
    /// Where the shadow was changed: everywhere else it is what it was. Sorted, in whole blocks but at the end.
    pub changed: Vec<Extent>,
}

/// Brings `shadow`, a file of ours, to equal `live`, which a guest may be writing to. Blocks of 4 KiB that differ are copied, holes of both are skipped, and
/// what became a hole becomes one in the shadow.
///
/// While the guest runs the result is only *nearly* equal (a warm pass); once its vCPUs stand still and its disks are flushed, it is equal.
pub fn refresh_shadow(live: &File, shadow: &File) -> Result<Refreshed> {
    let all = Extent::new(0, file_len(live, Object::Live)?);
    refresh(live, shadow, &[all], &|| true)
}

/// As [`refresh_shadow`], where one of `within` is: between two files that are known to be equal everywhere else. Blocks that an extent cuts are taken whole.
pub fn refresh_extents(live: &File, shadow: &File, within: &[Extent]) -> Result<Refreshed> {
    refresh(live, shadow, within, &|| true)
}

/// As [`refresh_extents`]; `go_on` is asked before each slice.
pub(crate) fn refresh(
    live: &File,
    shadow: &File,
    within: &[Extent],
    go_on: &(dyn Fn() -> bool + Sync),
) -> Result<Refreshed> {
    refresh_in(live, shadow, None, within, go_on)
}

/// `maps` are of these two files, and of use while the live one has the length that is mapped: the shadow gets it before anything is read.
fn refresh_in(
    live: &File,
    shadow: &File,
    maps: Option<&Maps>,
    within: &[Extent],
    go_on: &(dyn Fn() -> bool + Sync),
) -> Result<Refreshed> {
    let len_bytes = file_len(live, Object::Live)?;
    if file_len(shadow, Object::Shadow)? != len_bytes {
        shadow.set_len(len_bytes).map_err(Error::io("set the length of", Object::Shadow))?;
    }
    let maps = maps.filter(|maps| maps.len_bytes == len_bytes);
    let whole_blocks = |extent: &Extent| {
        let end = extent.end.min(len_bytes).next_multiple_of(BLOCK_BYTES);
        Extent::new(extent.start / BLOCK_BYTES * BLOCK_BYTES, end.min(len_bytes))
    };
    let within = normalise(within.iter().map(whole_blocks).collect());
    let live_data = data_within(live, &within, Object::Live)?;
    let shadow_data = data_within(shadow, &within, Object::Shadow)?;
    let touched = normalise([&live_data[..], &shadow_data[..]].concat());
    let slices: Vec<Extent> = touched.into_iter().flat_map(|extent| image::slices(extent, LIVE_SLICE_BYTES)).collect();
    let moved = parallel::map(
        slices.len(),
        || Copier { live, shadow, maps, ours: Vec::new(), theirs: Vec::new() },
        |copier, number| {
            if !go_on() {
                return Err(Error::Cancelled);
            }
            let mut moved = Refreshed::default();
            for piece in pieces(&live_data, &shadow_data, slices[number]) {
                copier.refresh(piece, &mut moved)?;
            }
            Ok(moved)
        },
    )?;
    Ok(Refreshed {
        bytes_read: moved.iter().map(|part| part.bytes_read).sum(),
        bytes_written: moved.iter().map(|part| part.bytes_written).sum(),
        changed: normalise(moved.into_iter().flat_map(|part| part.changed).collect()),
    })
}

fn file_len(file: &File, object: Object) -> Result<u64> {
    Ok(file.metadata().map_err(Error::io("stat", object))?.len())
}

struct Copier<'a> {
    live: &'a File,
    shadow: &'a File,
    maps: Option<&'a Maps>,
    ours: Vec<u8>,
    theirs: Vec<u8>,
}

impl Copier<'_> {
    fn refresh(&mut self, piece: Piece, moved: &mut Refreshed) -> Result<()> {
        let extent = piece.extent;
        if !piece.left_data {
            return self.make_hole(extent, moved);
        }
        let len = extent.len_bytes() as usize;
        moved.bytes_read += extent.len_bytes();
        self.theirs.resize(len, 0);
        if self.maps.is_none() {
            self.live.read_exact_at(&mut self.theirs, extent.start).map_err(Error::io("read", Object::Live))?;
            if piece.right_data {
                self.ours.resize(len, 0);
                self.shadow.read_exact_at(&mut self.ours, extent.start).map_err(Error::io("read", Object::Shadow))?;
            }
        }
        let block_len = |at: usize| {
            let into = (extent.start + at as u64) % BLOCK_BYTES;
            ((BLOCK_BYTES - into) as usize).min(len - at)
        };
        let mut at = 0;
        while at < len {
            let start = at;
            while at < len && self.differs(piece, at..at + block_len(at)) {
                at += block_len(at);
            }
            if start < at {
                if !piece.right_data {
                    let hole = Extent::new(extent.start + start as u64, extent.start + at as u64);
                    preallocate(self.shadow, hole, Object::Shadow)?;
                }
                self.shadow
                    .write_all_at(&self.theirs[start..at], extent.start + start as u64)
                    .map_err(Error::io("write", Object::Shadow))?;
                moved.bytes_written += (at - start) as u64;
                moved.changed.push(Extent::new(extent.start + start as u64, extent.start + at as u64));
            } else {
                at += block_len(at);
            }
        }
        Ok(())
    }

    /// Whether a block of the piece, at `block` in the buffers, is to be written. Of a mapped file it is copied there only now: so it is compared while it is in
    /// the CPU's first cache.
    fn differs(&mut self, piece: Piece, block: Range<usize>) -> bool {
        let at = piece.extent.start + block.start as u64;
        let theirs = &mut self.theirs[block.clone()];
        if let Some(maps) = self.maps {
            maps.read_live(at, theirs);
        }
        match (piece.right_data, self.maps) {
            (false, _) => !is_zero(theirs),
            (true, Some(maps)) => !maps.shadow_has(at, theirs),
            (true, None) => *theirs != self.ours[block],
        }
    }

    fn make_hole(&self, extent: Extent, moved: &mut Refreshed) -> Result<()> {
        moved.changed.push(extent);
        let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match fallocate(self.shadow, mode, extent.start, extent.len_bytes()) {
            Ok(()) => Ok(()),
            // A slice is no longer than the zeros at hand.
            Err(Errno::OPNOTSUPP) => {
                moved.bytes_written += extent.len_bytes();
                self.shadow
                    .write_all_at(&ZEROS[..extent.len_bytes() as usize], extent.start)
                    .map_err(Error::io("write", Object::Shadow))
            }
            Err(error) => Err(Error::io("punch a hole in", Object::Shadow)(error)),
        }
    }
}
