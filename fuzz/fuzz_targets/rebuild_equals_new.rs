//! Whatever became of an image: the incremental manifest is that of the plain scan, and what is rebuilt from the delta is the new image.

#![no_main]

use form_delta::{
    Engine,
    generate::{image, image_pair, rebuild},
    scan_reference,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|script: &[u8]| {
    let (base, new) = image_pair(script);
    let root = scan_reference(&image(&new).expect("an image in memory")).root();
    for base in [Some(base.as_slice()), None] {
        let (rebuilt, encoded) = rebuild(base, &new, Engine::Pwrite).expect("own deltas are sound");
        assert_eq!(encoded.index.new_root, root);
        assert!(rebuilt == new);
    }
});
