//! Whatever bytes arrive: a manifest and a frame index are refused, or have exactly these bytes as their one encoding.

#![no_main]

use form_delta::{FrameIndex, Hash, Manifest};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(manifest) = Manifest::decode(bytes) {
        assert_eq!(manifest.encode(), bytes);
        assert_eq!(manifest.root(), Hash::of(bytes));
    }
    if let Ok(index) = FrameIndex::decode(bytes) {
        assert_eq!(index.encode(), bytes);
    }
});
