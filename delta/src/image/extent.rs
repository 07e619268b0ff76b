use crate::limits::BLOCK_BYTES;

/// A range of byte positions, half open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Extent {
    /// First byte.
    pub start: u64,
    /// The byte after the last.
    pub end: u64,
}

impl Extent {
    /// The range from `start` to before `end`.
    pub fn new(start: u64, end: u64) -> Extent {
        Extent { start, end }
    }

    /// How many bytes it spans.
    pub fn len_bytes(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Whether it spans none.
    pub fn is_empty(&self) -> bool {
        self.end <= self.start
    }

    pub(crate) fn and(&self, other: Extent) -> Extent {
        Extent::new(self.start.max(other.start), self.end.min(other.end))
    }
}

/// Sorts extents and merges those that overlap or touch; drops empty ones.
pub fn normalise(mut extents: Vec<Extent>) -> Vec<Extent> {
    extents.retain(|extent| !extent.is_empty());
    extents.sort_unstable();
    extents.dedup_by(|next, kept| {
        let touches = next.start <= kept.end;
        if touches {
            kept.end = kept.end.max(next.end);
        }
        touches
    });
    extents
}

/// The blocks that extents touch, normalised. The last one of an image may reach behind its end.
pub(crate) fn whole_blocks(extents: &[Extent]) -> Vec<Extent> {
    let whole = |extent: &Extent| {
        let (start, end) = (extent.start / BLOCK_BYTES, extent.end.div_ceil(BLOCK_BYTES));
        Extent::new(start * BLOCK_BYTES, end.saturating_mul(BLOCK_BYTES))
    };
    normalise(extents.iter().map(whole).collect())
}

/// The parts of a normalised list that lie within `window`.
pub(crate) fn clip(extents: &[Extent], window: Extent) -> impl Iterator<Item = Extent> {
    let first = extents.partition_point(|extent| extent.end <= window.start);
    extents.iter().skip(first).map(move |extent| extent.and(window)).take_while(|extent| !extent.is_empty())
}

/// Whether a normalised list touches `window`.
pub(crate) fn intersects(extents: &[Extent], window: Extent) -> bool {
    clip(extents, window).next().is_some()
}

/// Cuts an extent at multiples of `len_bytes`, so that nothing smaller that divides it falls into two.
pub(crate) fn slices(extent: Extent, len_bytes: u64) -> impl Iterator<Item = Extent> {
    let first = extent.start / len_bytes;
    (first..extent.end.div_ceil(len_bytes)).map(move |n| Extent::new(n * len_bytes, (n + 1) * len_bytes).and(extent))
}

/// Groups neighbouring extents. A group is closed once it has at least `len_bytes`.
pub(crate) fn batches(extents: impl Iterator<Item = Extent>, len_bytes: u64) -> Vec<Vec<Extent>> {
    let mut batches: Vec<Vec<Extent>> = Vec::new();
    let mut room_bytes = 0;
    for extent in extents {
        match batches.last_mut() {
            Some(last) if room_bytes > 0 => last.push(extent),
            _ => {
                batches.push(vec![extent]);
                room_bytes = len_bytes;
            }
        }
        room_bytes = room_bytes.saturating_sub(extent.len_bytes());
    }
    batches
}

/// A stretch within which each of two images is either all data or all hole, and not both holes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) extent: Extent,
    pub(crate) left_data: bool,
    pub(crate) right_data: bool,
}

/// Cuts `window` into pieces where at least one of two normalised lists has data.
pub(crate) fn pieces(left: &[Extent], right: &[Extent], window: Extent) -> Vec<Piece> {
    let mut edges: Vec<u64> =
        clip(left, window).chain(clip(right, window)).flat_map(|extent| [extent.start, extent.end]).collect();
    edges.sort_unstable();
    edges.dedup();
    edges
        .windows(2)
        .filter_map(|edge| match *edge {
            [start, end] => Some(Extent::new(start, end)),
            _ => None,
        })
        .map(|extent| Piece { extent, left_data: intersects(left, extent), right_data: intersects(right, extent) })
        .filter(|piece| piece.left_data || piece.right_data)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(pairs: &[(u64, u64)]) -> Vec<Extent> {
        pairs.iter().map(|&(a, b)| Extent::new(a, b)).collect()
    }

    #[test]
    fn normalise_sorts_merges_and_drops() {
        assert_eq!(normalise(list(&[(8, 9), (1, 3), (3, 5), (7, 7), (2, 4)])), list(&[(1, 5), (8, 9)]));
    }

    #[test]
    fn batches_have_all_in_order() {
        let extents = list(&[(0, 4), (6, 8), (10, 20), (30, 31)]);
        let of = |len_bytes| batches(extents.iter().copied(), len_bytes);
        assert_eq!(of(5), [extents[..2].to_vec(), extents[2..3].to_vec(), extents[3..].to_vec()]);
        assert_eq!((of(1).len(), of(100)), (4, vec![extents.clone()]));
        assert!(batches(std::iter::empty(), 5).is_empty());
    }

    #[test]
    fn clip_keeps_what_lies_in_the_window() {
        let extents = list(&[(0, 4), (6, 8), (10, 20)]);
        let inside: Vec<_> = clip(&extents, Extent::new(3, 11)).collect();
        assert_eq!(inside, list(&[(3, 4), (6, 8), (10, 11)]));
        assert!(!intersects(&extents, Extent::new(4, 6)));
    }

    #[test]
    fn pieces_say_who_has_data() {
        let left = list(&[(0, 10)]);
        let right = list(&[(5, 15), (20, 30)]);
        let found: Vec<_> = pieces(&left, &right, Extent::new(2, 25))
            .into_iter()
            .map(|p| (p.extent.start, p.extent.end, p.left_data, p.right_data))
            .collect();
        assert_eq!(found, [(2, 5, true, false), (5, 10, true, true), (10, 15, false, true), (20, 25, false, true)]);
    }
}
