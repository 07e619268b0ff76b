//! What a reader keeps of the frames that it has been through.

use std::{collections::VecDeque, sync::Arc};

use super::excerpt::Excerpt;
use crate::limits::EARLIER_BYTES_MAX;

/// The content of the frames before one, as far back as that may refer to: what a reader keeps while it goes through them in order.
#[derive(Debug, Default)]
pub(crate) struct Earlier {
    /// Each with where it ends in all content.
    frames: VecDeque<(u64, Arc<Vec<u8>>)>,
    end: u64,
}

impl Earlier {
    /// Adds the content of the next frame; forgets what is out of reach.
    pub(crate) fn push(&mut self, content: Arc<Vec<u8>>) {
        if !content.is_empty() {
            self.end += content.len() as u64;
            self.frames.push_back((self.end, content));
        }
        while let Some((end, _)) = self.frames.front()
            && *end + EARLIER_BYTES_MAX <= self.end
        {
            self.frames.pop_front();
        }
    }

    /// Appends an excerpt's bytes to `out`, or `None` where there never were as many.
    pub(crate) fn add(&self, excerpt: Excerpt, out: &mut Vec<u8>) -> Option<()> {
        let mut at = self.end.checked_sub(u64::from(excerpt.back_bytes))?;
        let mut wanted = excerpt.len_bytes as usize;
        let first = self.frames.partition_point(|(end, _)| *end <= at);
        for (end, content) in self.frames.range(first..) {
            let start = at.checked_sub(end - content.len() as u64)? as usize;
            let rest = content.get(start..)?;
            let taken = rest.get(..wanted).unwrap_or(rest);
            out.extend(taken);
            wanted -= taken.len();
            if wanted == 0 {
                return Some(());
            }
            at = *end;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(earlier: &Earlier, back_bytes: u32, len_bytes: u32) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        earlier.add(Excerpt { back_bytes, len_bytes }, &mut out).map(|()| out)
    }

    #[test]
    fn an_excerpt_may_lie_across_frames() {
        let mut earlier = Earlier::default();
        for content in [&[1, 2, 3][..], &[], &[4], &[5, 6]] {
            earlier.push(Arc::new(content.to_vec()));
        }
        assert_eq!(get(&earlier, 5, 4), Some(vec![2, 3, 4, 5]));
        assert_eq!(get(&earlier, 3, 1), Some(vec![4]));
        assert_eq!(get(&earlier, 6, 6), Some(vec![1, 2, 3, 4, 5, 6]));
        assert_eq!(get(&earlier, 7, 1), None);
        assert_eq!(get(&earlier, 1, 2), None);
    }

    #[test]
    fn all_that_is_in_reach_is_kept_and_little_more() {
        let mut earlier = Earlier::default();
        let frame_bytes = 3 << 20;
        for number in 0..30 {
            earlier.push(Arc::new(vec![number; frame_bytes]));
        }
        let reach = EARLIER_BYTES_MAX as u32;
        assert_eq!(get(&earlier, reach, 1), Some(vec![30 - reach.div_ceil(frame_bytes as u32) as u8]));
        let kept: u64 = earlier.frames.iter().map(|(_, content)| content.len() as u64).sum();
        assert!(kept < EARLIER_BYTES_MAX + frame_bytes as u64, "{kept}");
    }
}
