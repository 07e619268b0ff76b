//! Bodies: raw, or one zstd frame, with or without bytes of the base before its window.

use zstd::zstd_safe::{CCtx, CParameter, DCtx, ResetDirective, find_frame_compressed_size, get_frame_content_size};

use crate::{Extent, limits::ZSTD_LEVEL};

/// How a body is coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    /// As it is.
    Raw,
    /// One zstd frame.
    Zstd,
    /// One zstd frame with that range of the base as prefix.
    ZstdPrefix(Extent),
}

/// A compression context, used for many bodies. `'a` is the life of the base, which prefixes are borrowed from.
pub(super) struct Encoder<'a>(CCtx<'a>);

impl<'a> Encoder<'a> {
    pub(super) fn new() -> Encoder<'a> {
        let mut context = CCtx::create();
        context.set_parameter(CParameter::CompressionLevel(ZSTD_LEVEL)).expect("zstd knows its levels");
        Encoder(context)
    }

    /// The compressed body, or `None` where it would not be smaller.
    pub(super) fn zstd(&mut self, bytes: &[u8], prefix: Option<&'a [u8]>) -> Option<Vec<u8>> {
        // Less room than the content needs: zstd gives up as soon as it does not shrink.
        let mut out = Vec::with_capacity(bytes.len().saturating_sub(1));
        let compressed = match prefix {
            Some(prefix) => self.0.ref_prefix(prefix).map(drop),
            None => Ok(()),
        }
        .and_then(|()| self.0.compress2(&mut out, bytes));
        if compressed.is_err() {
            // A frame given up stays open, and the next prefix would be refused.
            let _ = self.0.reset(ResetDirective::SessionOnly);
            return None;
        }
        Some(out)
    }
}

/// A decompression context, used for many bodies.
pub(crate) struct Decoder<'a>(DCtx<'a>);

impl<'a> Decoder<'a> {
    pub(crate) fn new() -> Decoder<'a> {
        Decoder(DCtx::create())
    }

    /// Decodes one zstd frame of exactly `len_bytes` of content into `out`, whose bytes it replaces. The caller has checked `len_bytes` against a limit.
    ///
    /// Decoding goes straight into `out`, so the frame's window, whatever it claims, costs no memory.
    pub(crate) fn zstd(
        &mut self,
        body: &[u8],
        prefix: Option<&'a [u8]>,
        len_bytes: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), &'static str> {
        out.clear();
        if find_frame_compressed_size(body) != Ok(body.len()) {
            return Err("the body is not exactly one zstd frame");
        }
        if !matches!(get_frame_content_size(body), Ok(Some(len)) if len == len_bytes as u64) {
            return Err("the zstd frame is not as long as its chunks");
        }
        out.reserve(len_bytes);
        if prefix.is_some_and(|prefix| self.0.ref_prefix(prefix).is_err()) {
            return Err("zstd does not take the prefix");
        }
        match self.0.decompress(out, body) {
            Ok(written) if written == len_bytes => Ok(()),
            _ => Err("zstd cannot decode the body"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(len: usize) -> Vec<u8> {
        crate::generate::noise(7, len)
    }

    #[test]
    fn a_prefix_carries_what_stayed() {
        let base = noise(64 << 10);
        let mut new = base.clone();
        new[5000] ^= 1;
        let body = Encoder::new().zstd(&new, Some(&base)).unwrap();
        assert!(body.len() < 100, "{} bytes", body.len());
        let mut out = Vec::new();
        let mut decoder = Decoder::new();
        decoder.zstd(&body, Some(&base), new.len(), &mut out).unwrap();
        assert_eq!(out, new);
        // Without the prefix the same body is refused, and the context is none the worse for it.
        assert!(decoder.zstd(&body, None, new.len(), &mut out).is_err());
        decoder.zstd(&body, Some(&base), new.len(), &mut out).unwrap();
        assert_eq!(out, new);
    }

    #[test]
    fn noise_does_not_shrink_and_leaves_the_context_clean() {
        let base = noise(1 << 16);
        let other = crate::generate::noise(8, 1 << 16);
        let mut encoder = Encoder::new();
        assert_eq!(encoder.zstd(&other, Some(&base)), None);
        assert_eq!(encoder.zstd(&base, None), None);
        assert!(encoder.zstd(&base.clone(), Some(&base)).is_some());
    }

    #[test]
    fn anything_but_one_frame_of_that_length_is_refused() {
        let new = vec![5; 1000];
        let body = Encoder::new().zstd(&new, None).unwrap();
        let mut decoder = Decoder::new();
        let mut out = Vec::new();
        assert!(decoder.zstd(&body, None, 1000, &mut out).is_ok());
        assert!(decoder.zstd(&body, None, 999, &mut out).is_err());
        assert!(decoder.zstd(&body, None, 1001, &mut out).is_err());
        assert!(decoder.zstd(&body[..body.len() - 1], None, 1000, &mut out).is_err());
        assert!(decoder.zstd(&[&body[..], &[0]].concat(), None, 1000, &mut out).is_err());
        assert!(decoder.zstd(&[&body[..], &body[..]].concat(), None, 1000, &mut out).is_err());
    }
}
