//! Streams of a frame: one zstd frame each, with or without bytes of the bases before its window.

use std::slice;

use zstd::zstd_safe::{
    CCtx, CParameter, DCtx, DParameter, ResetDirective, compress_bound, find_frame_compressed_size,
    get_frame_content_size,
};

use crate::limits::{FRAME_CONTENT_BYTES_MAX, ZSTD_LEVEL_SMALL};

/// The window covers a whole stream and its prefix: excerpts of earlier frames, edited parts, and what the patched ones were.
const WINDOW_LOG: u32 = (3 * FRAME_CONTENT_BYTES_MAX).next_power_of_two().ilog2();

/// The hash table that zstd has at level 5, for streams as long as a frame's.
const TABLE_LOG_USUAL: u32 = 19;
/// The largest that a stream with a prefix gets: 8 MiB in each thread. Four times as much finds nothing more, and misses the CPU's cache more often.
const TABLE_LOG_MAX: u32 = 21;
/// The smallest of our slower level.
const TABLE_LOG_MIN: u32 = 12;

/// Compresses streams one after the other. What the first one costs in memory serves all: zstd's tables for one stream are several MiB, and touching so much
/// memory for the first time takes longer than compressing a short stream.
pub(super) struct Compressor(CCtx<'static>);

impl Compressor {
    pub(super) fn new() -> Compressor {
        Compressor(CCtx::create())
    }

    /// The compressed stream of what follows the first `prefix_bytes`, or `None` where it would not be smaller.
    ///
    /// Prefix and content stand next to each other because zstd then searches them as one; of a prefix that stands elsewhere it searches both, at half the speed.
    pub(super) fn zstd(&mut self, bytes: &[u8], prefix_bytes: usize, level: i32) -> Option<Vec<u8>> {
        let (prefix, bytes) = bytes.split_at_checked(prefix_bytes)?;
        let known = "zstd knows its own parameters";
        self.0.reset(ResetDirective::SessionAndParameters).expect(known);
        self.0.set_parameter(CParameter::CompressionLevel(level)).expect(known);
        if prefix.is_empty() {
            return compress(&mut self.0, bytes);
        }
        self.0.set_parameter(CParameter::WindowLog(WINDOW_LOG)).expect(known);
        let positions = prefix_bytes + bytes.len();
        let table_log = if level < ZSTD_LEVEL_SMALL {
            // Our faster levels have room for half a million positions at most, and forget the oldest first: the prefix. It should know that until what stands on it,
            // which comes first and is about as long, is through. What repeats an excerpt may come later, and short ones are forgotten by then: to know all
            // positions would save 0.2 % of a disk with new packages, in half as long again.
            (2 * prefix_bytes).min(positions).next_power_of_two().ilog2().clamp(TABLE_LOG_USUAL, TABLE_LOG_MAX)
        } else {
            // zstd would take up to two entries for each position of a short stream, and one is enough.
            positions.next_power_of_two().ilog2().clamp(TABLE_LOG_MIN, TABLE_LOG_MAX)
        };
        self.0.set_parameter(CParameter::HashLog(table_log)).expect(known);
        compress_behind(&mut self.0, prefix, bytes)
    }
}

/// As [`compress`], with a prefix for this one stream.
#[expect(
    unsafe_code,
    reason = "zstd-safe wants a prefix to outlive the context; zstd itself needs it for one stream only"
)]
fn compress_behind(context: &mut CCtx<'static>, prefix: &[u8], bytes: &[u8]) -> Option<Vec<u8>> {
    // SAFETY: a context keeps the pointer until a stream begins, which takes it for itself alone, or until its parameters are reset (zstd.h,
    // `ZSTD_CCtx_refPrefix`, `ZSTD_CCtx_reset`). We reset them before we return. Should this unwind, the next call of `Compressor::zstd` resets them before
    // anything is compressed.
    let prefix: &'static [u8] = unsafe { slice::from_raw_parts(prefix.as_ptr(), prefix.len()) };
    let out = context.ref_prefix(prefix).ok().and_then(|_| compress(context, bytes));
    context.reset(ResetDirective::SessionAndParameters).expect("a context can always be reset");
    out
}

fn compress(context: &mut CCtx<'_>, bytes: &[u8]) -> Option<Vec<u8>> {
    // Less room than the content needs: zstd gives up as soon as it does not shrink.
    let mut out = Vec::with_capacity(bytes.len().saturating_sub(1).min(compress_bound(bytes.len())));
    context.compress2(&mut out, bytes).ok()?;
    Some(out)
}

/// Decodes one zstd frame of exactly `len_bytes` of content. The caller has checked `len_bytes` against a limit.
///
/// Decoding goes straight into the result, so the frame's window, whatever it claims, costs no memory.
pub(crate) fn unzstd(stream: &[u8], prefix: &[u8], len_bytes: usize) -> Result<Vec<u8>, &'static str> {
    if find_frame_compressed_size(stream) != Ok(stream.len()) {
        return Err("the stream is not exactly one zstd frame");
    }
    if !matches!(get_frame_content_size(stream), Ok(Some(len)) if len == len_bytes as u64) {
        return Err("the zstd frame is not as long as what it is for");
    }
    let mut context = DCtx::create();
    let mut out = Vec::with_capacity(len_bytes);
    context.set_parameter(DParameter::WindowLogMax(WINDOW_LOG)).map_err(|_| "zstd does not take the window")?;
    if !prefix.is_empty() {
        context.ref_prefix(prefix).map_err(|_| "zstd does not take the prefix")?;
    }
    match context.decompress(&mut out, stream) {
        Ok(written) if written == len_bytes => Ok(out),
        _ => Err("zstd cannot decode the stream"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{generate::noise, limits::ZSTD_LEVEL};

    fn zstd(bytes: &[u8], prefix: &[u8]) -> Option<Vec<u8>> {
        Compressor::new().zstd(&[prefix, bytes].concat(), prefix.len(), ZSTD_LEVEL)
    }

    #[test]
    fn a_prefix_carries_what_stayed() {
        let base = noise(7, 64 << 10);
        let mut new = base.clone();
        new[5000] ^= 1;
        let stream = zstd(&new, &base).unwrap();
        assert!(stream.len() < 100, "{} bytes", stream.len());
        assert_eq!(unzstd(&stream, &base, new.len()).unwrap(), new);
        assert!(unzstd(&stream, &[], new.len()).is_err());
    }

    #[test]
    fn a_prefix_as_long_as_a_frame_allows_is_reached() {
        let base = noise(7, FRAME_CONTENT_BYTES_MAX as usize);
        let mut new = base.clone();
        new[5] ^= 1;
        let stream = zstd(&new, &base).unwrap();
        assert!(stream.len() < new.len() / 500, "{} bytes", stream.len());
        assert_eq!(unzstd(&stream, &base, new.len()).unwrap(), new);
    }

    /// Which streams a thread compressed before depends on time, and what it makes must not.
    #[test]
    fn a_context_that_was_used_makes_the_same_bytes_as_a_new_one() {
        let text: Vec<u8> = noise(1, 1 << 20).iter().flat_map(|byte| [byte & 15, byte & 3, 7]).collect();
        let noise = noise(2, 200_000);
        let streams: [(&[u8], usize, i32); 9] = [
            (&text, 1 << 20, 5),
            (&text[..70_000], 0, 9),
            // As short as most records and edits.
            (&text[..3_000], 0, 9),
            (&text[5_000..300_000], 100_000, 3),
            (&text[..2 << 20], 1 << 20, 9),
            (&text[..1 << 20], 0, 3),
            (&text[7..200_007], 0, 5),
            // Given up on in the middle.
            (&noise, 0, 3),
            (&noise, 100_000, 9),
        ];
        let zstd =
            |compressor: &mut Compressor, (bytes, prefix_bytes, level)| compressor.zstd(bytes, prefix_bytes, level);
        let fresh = streams.map(|stream| zstd(&mut Compressor::new(), stream));
        assert_eq!(fresh.iter().filter(|stream| stream.is_none()).count(), 2);
        let mut used = Compressor::new();
        for first in streams {
            for (number, second) in streams.into_iter().enumerate() {
                zstd(&mut used, first);
                assert!(zstd(&mut used, second) == fresh[number], "stream {number}");
            }
        }
    }

    #[test]
    fn noise_does_not_shrink() {
        assert_eq!(zstd(&noise(8, 1 << 16), &noise(7, 1 << 16)), None);
        assert_eq!(zstd(&noise(8, 1 << 16), &[]), None);
        assert_eq!(zstd(&[], &[]), None);
    }

    #[test]
    fn anything_but_one_frame_of_that_length_is_refused() {
        let new = vec![5; 1000];
        let stream = zstd(&new, &[]).unwrap();
        assert!(unzstd(&stream, &[], 1000).is_ok());
        assert!(unzstd(&stream, &[], 999).is_err());
        assert!(unzstd(&stream, &[], 1001).is_err());
        assert!(unzstd(&stream[..stream.len() - 1], &[], 1000).is_err());
        assert!(unzstd(&[&stream[..], &[0]].concat(), &[], 1000).is_err());
        assert!(unzstd(&[&stream[..], &stream[..]].concat(), &[], 1000).is_err());
    }
}
