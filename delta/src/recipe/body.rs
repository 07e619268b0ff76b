//! Streams of a frame: one zstd frame each, with or without bytes of the bases before its window.

use zstd::zstd_safe::{
    CCtx, CParameter, DCtx, DParameter, compress_bound, find_frame_compressed_size, get_frame_content_size,
};

use crate::limits::{FRAME_CONTENT_BYTES_MAX, ZSTD_LEVEL};

/// The window covers a whole stream and its prefix.
const WINDOW_LOG: u32 = (2 * FRAME_CONTENT_BYTES_MAX).next_power_of_two().ilog2();

/// The hash table that zstd has at `ZSTD_LEVEL`, for streams as long as a frame's.
const TABLE_LOG_USUAL: u32 = 19;

/// The compressed stream, or `None` where it would not be smaller.
///
/// A context is made for each: what that costs is lost in what a stream costs.
pub(super) fn zstd(bytes: &[u8], prefix: Option<&[u8]>, level: i32) -> Option<Vec<u8>> {
    let mut context = CCtx::create();
    let known = "zstd knows its own parameters";
    context.set_parameter(CParameter::CompressionLevel(level)).expect(known);
    if let Some(prefix) = prefix {
        context.set_parameter(CParameter::WindowLog(WINDOW_LOG)).expect(known);
        // Our faster level has room for half a million positions. A prefix and its stream have more, and the prefix would be forgotten first.
        if level <= ZSTD_LEVEL {
            let table_log = (prefix.len() + bytes.len()).next_power_of_two().ilog2().clamp(TABLE_LOG_USUAL, WINDOW_LOG);
            context.set_parameter(CParameter::HashLog(table_log)).expect(known);
        }
        context.ref_prefix(prefix).ok()?;
    }
    // Less room than the content needs: zstd gives up as soon as it does not shrink.
    let mut out = Vec::with_capacity(bytes.len().saturating_sub(1).min(compress_bound(bytes.len())));
    context.compress2(&mut out, bytes).ok()?;
    Some(out)
}

/// Decodes one zstd frame of exactly `len_bytes` of content. The caller has checked `len_bytes` against a limit.
///
/// Decoding goes straight into the result, so the frame's window, whatever it claims, costs no memory.
pub(crate) fn unzstd(stream: &[u8], prefix: Option<&[u8]>, len_bytes: usize) -> Result<Vec<u8>, &'static str> {
    if find_frame_compressed_size(stream) != Ok(stream.len()) {
        return Err("the stream is not exactly one zstd frame");
    }
    if !matches!(get_frame_content_size(stream), Ok(Some(len)) if len == len_bytes as u64) {
        return Err("the zstd frame is not as long as what it is for");
    }
    let mut context = DCtx::create();
    let mut out = Vec::with_capacity(len_bytes);
    context.set_parameter(DParameter::WindowLogMax(WINDOW_LOG)).map_err(|_| "zstd does not take the window")?;
    if prefix.is_some_and(|prefix| context.ref_prefix(prefix).is_err()) {
        return Err("zstd does not take the prefix");
    }
    match context.decompress(&mut out, stream) {
        Ok(written) if written == len_bytes => Ok(out),
        _ => Err("zstd cannot decode the stream"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::noise;

    #[test]
    fn a_prefix_carries_what_stayed() {
        let base = noise(7, 64 << 10);
        let mut new = base.clone();
        new[5000] ^= 1;
        let stream = zstd(&new, Some(&base), ZSTD_LEVEL).unwrap();
        assert!(stream.len() < 100, "{} bytes", stream.len());
        assert_eq!(unzstd(&stream, Some(&base), new.len()).unwrap(), new);
        assert!(unzstd(&stream, None, new.len()).is_err());
    }

    #[test]
    fn a_prefix_as_long_as_a_frame_allows_is_reached() {
        let base = noise(7, FRAME_CONTENT_BYTES_MAX as usize);
        let mut new = base.clone();
        new[5] ^= 1;
        let stream = zstd(&new, Some(&base), ZSTD_LEVEL).unwrap();
        assert!(stream.len() < new.len() / 500, "{} bytes", stream.len());
        assert_eq!(unzstd(&stream, Some(&base), new.len()).unwrap(), new);
    }

    #[test]
    fn noise_does_not_shrink() {
        assert_eq!(zstd(&noise(8, 1 << 16), Some(&noise(7, 1 << 16)), ZSTD_LEVEL), None);
        assert_eq!(zstd(&noise(8, 1 << 16), None, ZSTD_LEVEL), None);
        assert_eq!(zstd(&[], None, ZSTD_LEVEL), None);
    }

    #[test]
    fn anything_but_one_frame_of_that_length_is_refused() {
        let new = vec![5; 1000];
        let stream = zstd(&new, None, ZSTD_LEVEL).unwrap();
        assert!(unzstd(&stream, None, 1000).is_ok());
        assert!(unzstd(&stream, None, 999).is_err());
        assert!(unzstd(&stream, None, 1001).is_err());
        assert!(unzstd(&stream[..stream.len() - 1], None, 1000).is_err());
        assert!(unzstd(&[&stream[..], &[0]].concat(), None, 1000).is_err());
        assert!(unzstd(&[&stream[..], &stream[..]].concat(), None, 1000).is_err());
    }
}
