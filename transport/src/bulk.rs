//! What a bulk fetch asks for.

use borsh::{BorshDeserialize, BorshSerialize};
use form_delta::Hash;

use crate::{
    Error, Result,
    limits::{FETCH_REQUEST_BYTES_MAX, FRAME_RANGES_MAX},
    wire,
};

const WHAT: &str = "fetch request";

/// The request of a fetch. An index, and with it the encoding whose frames it lists, is named by its hash.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum BulkRequest {
    /// Frames of one encoding. The items are those frames, in the order of the ranges.
    Frames {
        /// What the frames are served for: an attempt, or a seeding.
        session: [u8; 16],
        /// Hash of the frame index.
        index: [u8; 32],
        /// Which frames; [`FrameRange`] says in which order.
        ranges: Vec<FrameRange>,
    },
    /// A frame index. The items are its encoding, cut in pieces.
    Index {
        /// What it is served for.
        session: [u8; 16],
        /// Its hash.
        index: [u8; 32],
    },
}

/// Frames of neighbouring numbers. The ranges of a request ascend and leave a gap between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct FrameRange {
    /// The number of the first.
    pub first: u32,
    /// How many; at least one.
    pub count: u32,
}

impl FrameRange {
    /// The ranges that ascending `numbers` form; the first [`FRAME_RANGES_MAX`] of them.
    pub fn of(numbers: impl IntoIterator<Item = u32>) -> Vec<Self> {
        let mut ranges: Vec<Self> = Vec::new();
        for number in numbers {
            let full = ranges.len() == FRAME_RANGES_MAX;
            match ranges.last_mut() {
                Some(last) if last.numbers().end == number => last.count += 1,
                _ if full => break,
                _ => ranges.push(Self { first: number, count: 1 }),
            }
        }
        ranges
    }

    /// The numbers of its frames.
    pub fn numbers(self) -> std::ops::Range<u32> {
        self.first..self.first.saturating_add(self.count)
    }
}

impl BulkRequest {
    /// What it is served for: an attempt, or a seeding.
    pub fn session(&self) -> [u8; 16] {
        match self {
            Self::Frames { session, .. } | Self::Index { session, .. } => *session,
        }
    }

    /// The hash that names the index.
    pub fn index(&self) -> Hash {
        match self {
            Self::Frames { index, .. } | Self::Index { index, .. } => Hash::from_bytes(*index),
        }
    }

    /// The one encoding (borsh).
    pub fn encode(&self) -> Result<Vec<u8>> {
        borsh::to_vec(self).map_err(|e| Error::malformed(WHAT, e))
    }

    /// The reverse of [`encode`](Self::encode). Whether the frames exist, whoever has the index checks.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        wire::block_len(WHAT, bytes.len(), FETCH_REQUEST_BYTES_MAX)?;
        let request = Self::try_from_slice(bytes).map_err(|e| Error::malformed(WHAT, e))?;
        if let Self::Frames { ranges, .. } = &request {
            let mut free = Some(0);
            for range in ranges {
                if range.count == 0 || free.is_none_or(|free| range.first < free) {
                    return Err(Error::malformed(WHAT, "its ranges are empty, out of order or not apart"));
                }
                free = range.first.checked_add(range.count).and_then(|end| end.checked_add(1));
            }
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hold_exactly_the_numbers() {
        for (numbers, want) in
            [(vec![], vec![]), (vec![7], vec![(7, 1)]), (vec![0, 1, 2, 4, 8, 9], vec![(0, 3), (4, 1), (8, 2)])]
        {
            let ranges = FrameRange::of(numbers.clone());
            assert_eq!(ranges.iter().map(|r| (r.first, r.count)).collect::<Vec<_>>(), want);
            assert_eq!(ranges.into_iter().flat_map(FrameRange::numbers).collect::<Vec<_>>(), numbers);
        }
        let scattered = FrameRange::of((0..10 * FRAME_RANGES_MAX as u32).step_by(2));
        assert_eq!(scattered.len(), FRAME_RANGES_MAX);
        let request = BulkRequest::Frames { session: [0; 16], index: [0; 32], ranges: scattered };
        assert_eq!(BulkRequest::decode(&request.encode().unwrap()).unwrap(), request);
    }

    #[test]
    fn ranges_that_no_peer_of_ours_asks_for_are_refused() {
        for bad in [
            vec![(0, 0)],
            vec![(5, 1), (0, 1)],
            vec![(0, 2), (1, 2)],
            vec![(0, 2), (2, 2)],
            vec![(0, u32::MAX), (7, 1)],
            vec![(7, u32::MAX), (9, 1)],
        ] {
            let ranges = bad.iter().map(|&(first, count)| FrameRange { first, count }).collect();
            let bytes = BulkRequest::Frames { session: [0; 16], index: [0; 32], ranges }.encode().unwrap();
            assert!(matches!(BulkRequest::decode(&bytes), Err(Error::Malformed { .. })), "{bad:?}");
        }
        let whole = BulkRequest::Index { session: [1; 16], index: [2; 32] }.encode().unwrap();
        for cut in 0..whole.len() {
            assert!(BulkRequest::decode(&whole[..cut]).is_err(), "cut at {cut}");
        }
    }
}
