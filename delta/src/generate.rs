//! Images for property tests, fuzz targets and benchmarks, made from a seed or from arbitrary bytes; and the whole way from a base to a rebuilt image in memory.

use std::{fs::File, os::unix::fs::FileExt};

use rustix::fs::{MemfdFlags, memfd_create};

use crate::{
    Base, BlockIndex, Encoded, Engine, Image, Result, Spool, apply, diff, encode,
    error::{Error, Object},
    hash::is_zero,
    plan, scan,
};

/// Images made by [`image_pair`] are not longer.
pub const PAIR_BYTES: usize = 4 << 20;

/// Bytes that do not compress; the same for the same seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    // splitmix64 (Steele, Lea, Flood 2014).
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend(next().to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// A file in memory with these bytes; blocks of zeros are holes.
pub fn memory_file(bytes: &[u8]) -> Result<File> {
    let file =
        memfd_create("form-image", MemfdFlags::CLOEXEC).map_err(Error::io("create a file for", Object::Image))?;
    let file = File::from(file);
    file.set_len(bytes.len() as u64).map_err(Error::io("set the length of", Object::Image))?;
    for (number, block) in bytes.chunks(4096).enumerate() {
        if !is_zero(block) {
            file.write_all_at(block, number as u64 * 4096).map_err(Error::io("write", Object::Image))?;
        }
    }
    Ok(file)
}

/// An image of a [`memory_file`].
pub fn image(bytes: &[u8]) -> Result<Image> {
    Image::from_file(memory_file(bytes)?)
}

/// Reads a base and a new image out of arbitrary bytes. The first byte says how many steps of four bytes build the base; the rest turn it into the new one.
pub fn image_pair(script: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let Some((count, steps)) = script.split_first() else {
        return Default::default();
    };
    let mut steps = steps.chunks_exact(4).take(256);
    let mut base = Vec::new();
    for step in steps.by_ref().take(usize::from(*count % 32)) {
        run(step, &mut base);
    }
    let mut new = base.clone();
    for step in steps {
        run(step, &mut new);
    }
    (base, new)
}

/// One step: what, where, how much. Places and lengths are mostly whole blocks, as guests write, and sometimes odd.
fn run(step: &[u8], image: &mut Vec<u8>) {
    let &[what, place, size, odd] = step else {
        return;
    };
    let slack = usize::from(odd % 16) * usize::from(odd >= 128);
    let len = (usize::from(size) + 1) * 2048 + slack;
    let at = (image.len() * usize::from(place) / 255).saturating_sub(slack);
    let end = (at + len).min(image.len());
    let seed = u64::from_le_bytes([what, place, size, odd, 0, 0, 0, 0]);
    match what % 8 {
        0 => image.extend(noise(seed, len)),
        1 => image.extend(vec![0; len * 4]),
        // Compresses about two to one.
        2 => image.extend(noise(seed, len).iter().map(|byte| byte & 15)),
        3 => image[at..end].copy_from_slice(&noise(seed, end - at)),
        4 => image[at..end].fill(0),
        5 => drop(image.splice(at..at, noise(seed, len))),
        6 => drop(image.drain(at..end)),
        _ => image.extend_from_within(at..end),
    }
    image.truncate(PAIR_BYTES);
}

/// Diffs, encodes, spools, plans and applies: what comes out must be `new`. Without a base the image is sent in full.
pub fn rebuild(base: Option<&[u8]>, new: &[u8], engine: Engine) -> Result<(Vec<u8>, Encoded)> {
    let new = image(new)?;
    let base = base.map(image).transpose()?;
    let base_manifest = base.as_ref().map(scan);
    let blocks =
        base.as_ref().zip(base_manifest.as_ref()).map(|(base, manifest)| BlockIndex::build(base, manifest.root()));
    let blocks = blocks.transpose()?;
    let bases: Vec<Base<'_>> = base
        .iter()
        .zip(&base_manifest)
        .map(|(image, manifest)| Base { image, manifest, blocks: blocks.as_ref() })
        .collect();
    let (manifest, changed) = match bases.first() {
        Some(base) => {
            let diff = diff(base.image, base.manifest, &new)?;
            (diff.manifest, diff.changed)
        }
        None => (scan(&new), Vec::new()),
    };
    let mut frames = Vec::new();
    let encoded = encode(&bases, &new, &manifest, &changed, &mut frames, &mut |_, _| {})?;
    let spool = Spool::full(memory_file(&frames)?, encoded.index.clone());
    let plan = plan(&encoded.index, &spool, &bases.iter().map(|base| base.manifest).collect::<Vec<_>>())?;
    let out = memory_file(base.as_ref().map_or(&[], |image| image.as_slice()))?;
    let images: Vec<&Image> = base.iter().collect();
    apply(&plan, &spool, &images, &out, engine, &mut |_, _| {})?;
    crate::verify_image(&out, &manifest)?;
    Ok((Image::from_file(out)?.as_slice().to_vec(), encoded))
}
