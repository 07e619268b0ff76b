//! Where the blocks of a base stand, by content. A hint: every hit is compared with the base's bytes before anything is built on it.

use twox_hash::XxHash3_64;

use crate::{
    Extent, Hash, Image, Result,
    codec::Reader,
    error::Object,
    hash::is_zero,
    image::slices,
    limits::{BLOCK_BYTES, BLOCKS_MAX, SLICE_BYTES},
    parallel,
};

const MAGIC: [u8; 4] = *b"fmBI";
const VERSION: u16 = 1;
const SLOT_BYTES: usize = 8;
/// Slots that are looked at for one block. A block that finds them taken is not listed.
const PROBES: usize = 8;
/// No image is that long.
const EMPTY: Slot = Slot { block: u32::MAX, tag: u32::MAX };

/// An index of the 4 KiB blocks of an image by content, zeros left out. Of equal blocks the first is listed. Some 16 bytes for each block.
///
/// The hash is XXH3, which a guest can make collide at will: that costs it hits, and never gives wrong bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockIndex {
    /// Root of the image.
    root: Hash,
    /// Open addressing; a power of two long.
    slots: Vec<Slot>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Slot {
    /// Number of the block in the image.
    block: u32,
    /// The upper half of its hash; the lower half says where in the table it stands.
    tag: u32,
}

impl BlockIndex {
    /// Reads all data of `image`, whose manifest has this root, on all CPUs, and lists its whole blocks.
    pub fn build(image: &Image, root: Hash) -> Result<BlockIndex> {
        let data: Vec<Extent> = image.data().iter().flat_map(|extent| slices(*extent, SLICE_BYTES)).collect();
        let hashed = parallel::map(
            data.len(),
            || (),
            |(), number| {
                let blocks = slices(data[number], BLOCK_BYTES).filter_map(|block| {
                    let bytes =
                        image.get(block).filter(|bytes| bytes.len() as u64 == BLOCK_BYTES && !is_zero(bytes))?;
                    Some((u32::try_from(block.start / BLOCK_BYTES).ok()?, XxHash3_64::oneshot(bytes)))
                });
                let hashed = blocks.collect::<Vec<_>>();
                image.release(data[number]);
                Ok(hashed)
            },
        )?;
        let count = hashed.iter().map(Vec::len).sum::<usize>().min(BLOCKS_MAX);
        let mut index = BlockIndex { root, slots: vec![EMPTY; (count + count / 2 + 1).next_power_of_two()] };
        for (block, hash) in hashed.into_iter().flatten().take(BLOCKS_MAX) {
            let tag = tag(hash);
            let usable = |slot: &Slot| *slot == EMPTY || slot.tag == tag;
            let mut probes = index.probes(hash);
            if let Some(at) = probes.find(|at| usable(&index.slots[*at]))
                && index.slots[at] == EMPTY
            {
                index.slots[at] = Slot { block, tag };
            }
        }
        Ok(index)
    }

    /// Root of the image that it lists.
    pub fn root(&self) -> Hash {
        self.root
    }

    /// Where the image may have a block with these bytes, as a byte position.
    pub(crate) fn find(&self, block: &[u8]) -> Option<u64> {
        let hash = XxHash3_64::oneshot(block);
        let tag = tag(hash);
        let slots = self.probes(hash).filter_map(|at| self.slots.get(at));
        let found = slots.take_while(|slot| **slot != EMPTY).find(|slot| slot.tag == tag)?;
        Some(u64::from(found.block) * BLOCK_BYTES)
    }

    fn probes(&self, hash: u64) -> impl Iterator<Item = usize> + use<> {
        let mask = self.slots.len() - 1;
        (0..PROBES).map(move |probe| (hash as usize).wrapping_add(probe) & mask)
    }

    /// The bytes that are stored.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(48 + self.slots.len() * SLOT_BYTES);
        out.extend(MAGIC);
        out.extend(VERSION.to_le_bytes());
        out.extend([0; 2]);
        out.extend(self.root.as_bytes());
        out.extend((self.slots.len() as u64).to_le_bytes());
        for slot in &self.slots {
            out.extend(slot.block.to_le_bytes());
            out.extend(slot.tag.to_le_bytes());
        }
        out
    }

    /// Reads what [`BlockIndex::encode`] wrote. What it lists is not checked here: it is only ever a hint.
    pub fn decode(bytes: &[u8]) -> Result<BlockIndex> {
        let mut reader = Reader::new(Object::BlockIndex, bytes, 0);
        reader.opening(MAGIC, VERSION)?;
        if reader.u16()? != 0 {
            return Err(reader.damaged("the reserved field must be zero"));
        }
        let root = reader.hash()?;
        let count = reader.u64()?;
        reader.limit("number of slots", count, (2 * BLOCKS_MAX).next_power_of_two() as u64)?;
        if !count.is_power_of_two() || reader.remaining() as u64 != count * SLOT_BYTES as u64 {
            return Err(reader.damaged("the number of slots is not what follows"));
        }
        let mut slots = Vec::with_capacity(count as usize);
        for _ in 0..count {
            slots.push(Slot { block: reader.u32()?, tag: reader.u32()? });
        }
        Ok(BlockIndex { root, slots })
    }
}

fn tag(hash: u64) -> u32 {
    (hash >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::{image, noise};

    #[test]
    fn every_block_is_found_at_its_first_place() {
        let block = BLOCK_BYTES as usize;
        let mut bytes = noise(1, 600 * block);
        bytes.extend_from_within(..block);
        bytes.extend(vec![0; 3 * block]);
        bytes.extend(noise(2, block + 1));
        let image = image(&bytes).unwrap();
        let index = BlockIndex::build(&image, Hash::of(b"root")).unwrap();
        let mut missed = 0;
        for (number, block) in bytes.chunks(block).take(600).enumerate() {
            match index.find(block) {
                Some(at) => assert_eq!(at, number as u64 * BLOCK_BYTES),
                None => missed += 1,
            }
        }
        assert!(missed < 6, "{missed} of 600 blocks are not listed");
        assert_eq!(index.find(&[0; 4096]), None);
        assert_eq!(index.find(&noise(3, block)), None);
        assert_eq!(BlockIndex::decode(&index.encode()).unwrap(), index);
    }

    #[test]
    fn damage_is_refused_or_harmless() {
        let image = image(&noise(1, 100 * 4096)).unwrap();
        let bytes = BlockIndex::build(&image, Hash::of(b"root")).unwrap().encode();
        for len in 0..bytes.len() {
            assert!(BlockIndex::decode(&bytes[..len]).is_err());
        }
        for at in 0..bytes.len() {
            let mut other = bytes.clone();
            other[at] ^= 0x40;
            if let Ok(index) = BlockIndex::decode(&other) {
                assert_eq!(index.encode(), other);
                index.find(&noise(1, 4096));
            }
        }
    }
}
