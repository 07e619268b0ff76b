use crate::{BlockIndex, Extent, Image, Manifest, limits::BLOCK_BYTES};

/// An image that both ends hold, of the commit that a delta stands on. The first of several is the older image of the same artifact.
#[derive(Clone, Copy)]
pub struct Base<'a> {
    /// Its bytes.
    pub image: &'a Image,
    /// Its manifest.
    pub manifest: &'a Manifest,
    /// Where its blocks stand, if that is known. Without it moved data is found in whole chunks only.
    pub blocks: Option<&'a BlockIndex>,
}

/// A position in one of the bases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) base: u8,
    pub(crate) start: u64,
}

impl Place {
    /// What stands there now: the same position of the same artifact.
    pub(crate) fn is_kept_at(self, position: u64) -> bool {
        self == Place { base: 0, start: position }
    }

    pub(crate) fn forward(self, bytes: u64) -> Place {
        Place { base: self.base, start: self.start + bytes }
    }
}

/// Whether a base has these bytes there.
pub(crate) fn has(bases: &[Base<'_>], place: Place, bytes: &[u8]) -> bool {
    let there = Extent::new(place.start, place.start + bytes.len() as u64);
    bases.get(usize::from(place.base)).and_then(|base| base.image.get(there)) == Some(bytes)
}

/// Where an index says that a base has a block with these bytes, and it has.
pub(crate) fn find_block(bases: &[Base<'_>], bytes: &[u8]) -> Option<Place> {
    if bytes.len() as u64 != BLOCK_BYTES {
        return None;
    }
    let indexed = bases.iter().zip(0u8..);
    let mut said = indexed.filter_map(|(base, number)| Some(Place { base: number, start: base.blocks?.find(bytes)? }));
    said.find(|place| has(bases, *place, bytes))
}
