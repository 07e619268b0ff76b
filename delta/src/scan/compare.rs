use crate::{
    Extent, Image, Result,
    hash::is_zero,
    image::{Piece, clip, normalise, pieces},
    limits::{BLOCK_BYTES, COMPARED_BYTES_MAX},
    parallel,
};

/// Where `new` differs from `base`, in blocks of 4 KiB; bytes behind the end of the shorter base count as changed. Holes on both sides are skipped, a hole on
/// one side is compared with zeros without reading it.
pub(super) fn changed_extents(base: &Image, new: &Image) -> Result<Vec<Extent>> {
    let shared = Extent::new(0, base.len_bytes().min(new.len_bytes()));
    let touched = normalise(clip(base.data(), shared).chain(clip(new.data(), shared)).collect());
    // To release pages (`madvise`) makes every CPU that runs one of our threads flush its TLB. So it is done seldom: windows are as long as memory allows, holes
    // included.
    let window_bytes = COMPARED_BYTES_MAX / (2 * parallel::threads() as u64) / BLOCK_BYTES * BLOCK_BYTES;
    let window = |number: u64| Extent::new(number * window_bytes, (number + 1) * window_bytes).and(shared);
    let mut windows: Vec<Extent> = Vec::new();
    for extent in touched {
        let begun = windows.last().map_or(0, |last| last.end.div_ceil(window_bytes));
        windows.extend((begun.max(extent.start / window_bytes)..extent.end.div_ceil(window_bytes)).map(window));
    }
    let mut changed: Vec<Extent> = parallel::map(
        windows.len(),
        || (),
        |(), number| {
            let mut changed = Vec::new();
            for piece in pieces(base.data(), new.data(), windows[number]) {
                compare_piece(base, new, piece, &mut changed);
            }
            base.release(windows[number]);
            new.release(windows[number]);
            Ok(changed)
        },
    )?
    .concat();
    changed.push(Extent::new(shared.end, new.len_bytes()));
    Ok(normalise(changed))
}

fn compare_piece(base: &Image, new: &Image, piece: Piece, changed: &mut Vec<Extent>) {
    let mut start = piece.extent.start;
    while start < piece.extent.end {
        let end = (start / BLOCK_BYTES + 1) * BLOCK_BYTES;
        let block = Extent::new(start, end.min(piece.extent.end));
        let same = match (piece.left_data, piece.right_data) {
            (true, true) => base.get(block) == new.get(block),
            (true, false) => base.get(block).is_some_and(is_zero),
            (false, _) => new.get(block).is_some_and(is_zero),
        };
        if !same {
            match changed.last_mut() {
                Some(last) if last.end == block.start => last.end = block.end,
                _ => changed.push(block),
            }
        }
        start = block.end;
    }
}
