//! The bytes of the bases that parts stand on.

use super::{PartSource, Record};
use crate::{Extent, Image, base::Place};

/// What the parts of a kind stand on, one after the other, each as long as its part: where a base ends before, zeros follow. So the old self of every byte of
/// the patched ones is at the same distance, which is what makes a prefix cheap.
pub(crate) fn references<'r>(
    bases: &[&Image],
    records: impl Iterator<Item = &'r Record>,
    wanted: fn(PartSource) -> Option<Place>,
) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in records.flat_map(Record::parts) {
        if let Some(place) = wanted(part.source) {
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

/// What a patched part stands on.
pub(crate) fn patched(source: PartSource) -> Option<Place> {
    if let PartSource::Patched(place) = source { Some(place) } else { None }
}

/// What an edited part stands on.
pub(crate) fn edited(source: PartSource) -> Option<Place> {
    if let PartSource::Edited(place) = source { Some(place) } else { None }
}
