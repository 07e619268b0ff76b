//! The bytes of the bases that a patched stream stands on.

use super::{PartSource, Record};
use crate::{Extent, Image};

/// What the patched parts refer to, one after the other, each as long as its part: where a base ends before, zeros follow. So the old self of every byte is at
/// the same distance, which is what makes a prefix cheap.
pub(crate) fn references<'r>(bases: &[&Image], records: impl Iterator<Item = &'r Record>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in records.flat_map(Record::parts) {
        if let PartSource::Patched(place) = part.source {
            let end = bytes.len() + part.len_bytes as usize;
            if let Some(image) = bases.get(usize::from(place.base)) {
                let there = Extent::new(place.start, place.start.saturating_add(u64::from(part.len_bytes)));
                bytes.extend(image.get(there.and(Extent::new(0, image.len_bytes()))).unwrap_or_default());
            }
            bytes.resize(end, 0);
        }
    }
    bytes
}

/// Exclusive or, of as many bytes as the shorter has. Its own inverse.
pub(crate) fn xor(bytes: &mut [u8], with: &[u8]) {
    bytes.iter_mut().zip(with).for_each(|(byte, with)| *byte ^= with);
}
