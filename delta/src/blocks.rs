//! Where the blocks of a base stand, by content. A hint: every hit is compared with the base's bytes before anything is built on it.

use std::{
    fmt,
    ops::Range,
    sync::atomic::{AtomicBool, Ordering},
};

use twox_hash::XxHash3_64;

use crate::{
    Extent, Hash, Image, Result,
    codec::Reader,
    error::Object,
    hash::is_zero,
    image::{clip, slices, whole_blocks},
    limits::{BLOCK_BYTES, BLOCKS_MAX, SLICE_BYTES, THREADS_MAX},
    parallel,
};

const MAGIC: [u8; 4] = *b"fmBI";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 48;
const SLOT_BYTES: usize = 8;
/// Slots that are looked at for one block. A block that finds them taken is not listed.
const PROBES: usize = 8;
/// No image is that long.
const EMPTY: Slot = Slot { block: u32::MAX, tag: u32::MAX };

/// An index of the 4 KiB blocks of an image by content, zeros left out. Of equal blocks the first is listed. Some 16 bytes for each block.
///
/// The hash is XXH3, which a guest can make collide at will: that costs it hits, and never gives wrong bytes.
#[derive(PartialEq, Eq)]
pub struct BlockIndex {
    /// Root of the image.
    root: Hash,
    /// Open addressing; a power of two long.
    slots: Slots,
}

/// The table, in the bytes that are stored: four MiB for each GiB of data. One in a file stays there, and only the slots that are asked for are read.
enum Slots {
    Owned(Vec<[u8; SLOT_BYTES]>),
    /// Where it stands in a file that holds still.
    Mapped(Image, Range<usize>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Slot {
    /// Number of the block in the image.
    block: u32,
    /// The upper half of its hash; the lower half says where in the table it stands.
    tag: u32,
}

impl Slot {
    fn encode(self) -> [u8; SLOT_BYTES] {
        (u64::from(self.tag) << 32 | u64::from(self.block)).to_le_bytes()
    }

    fn decode(bytes: [u8; SLOT_BYTES]) -> Slot {
        let both = u64::from_le_bytes(bytes);
        Slot { block: both as u32, tag: (both >> 32) as u32 }
    }
}

impl Slots {
    fn as_slice(&self) -> &[[u8; SLOT_BYTES]] {
        match self {
            Slots::Owned(slots) => slots,
            Slots::Mapped(file, range) => file.as_slice().get(range.clone()).unwrap_or_default().as_chunks().0,
        }
    }

    /// The table in memory of its own.
    fn into_owned(self) -> Vec<[u8; SLOT_BYTES]> {
        match self {
            Slots::Owned(slots) => slots,
            mapped => mapped.as_slice().to_vec(),
        }
    }
}

impl PartialEq for Slots {
    fn eq(&self, other: &Slots) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for Slots {}

impl fmt::Debug for BlockIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockIndex").field("root", &self.root).field("slots", &self.slots.as_slice().len()).finish()
    }
}

impl BlockIndex {
    /// Reads all data of `image`, whose manifest has this root, on all CPUs, and lists its whole blocks.
    pub fn build(image: &Image, root: Hash) -> Result<BlockIndex> {
        let hashed = hashed(image, image.data())?;
        let count = hashed.len();
        let mut slots = vec![EMPTY.encode(); (count + count / 2 + 1).next_power_of_two()];
        hashed.into_iter().for_each(|block| list(&mut slots, block));
        Ok(BlockIndex { root, slots: Slots::Owned(slots) })
    }

    /// The index of `image`, whose manifest has this root, from the index of an older one that it equals outside of `changed`: only what is in there is read.
    /// `None` if so much was added that blocks would find no room; then it is time to [build](BlockIndex::build) one anew.
    pub fn follow(self, image: &Image, root: Hash, changed: &[Extent]) -> Result<Option<BlockIndex>> {
        let mut slots = self.slots.into_owned();
        let changed = whole_blocks(changed);
        let blocks = image.len_bytes() / BLOCK_BYTES;
        let mut stays = vec![true; blocks as usize];
        for extent in &changed {
            let range = (extent.start / BLOCK_BYTES).min(blocks)..(extent.end / BLOCK_BYTES).min(blocks);
            stays[range.start as usize..range.end as usize].fill(false);
        }
        for slot in &mut slots {
            if !stays.get(Slot::decode(*slot).block as usize).is_some_and(|stays| *stays) {
                *slot = EMPTY.encode();
            }
        }
        let data: Vec<Extent> = changed.iter().flat_map(|extent| clip(image.data(), *extent)).collect();
        hashed(image, &data)?.into_iter().for_each(|block| list(&mut slots, block));
        let taken = slots.iter().filter(|slot| **slot != EMPTY.encode()).count();
        Ok((taken <= slots.len() / 4 * 3).then_some(BlockIndex { root, slots: Slots::Owned(slots) }))
    }

    /// Root of the image that it lists.
    pub fn root(&self) -> Hash {
        self.root
    }

    /// Where the image may have a block with these bytes, as a byte position.
    pub(crate) fn find(&self, block: &[u8]) -> Option<u64> {
        let hash = XxHash3_64::oneshot(block);
        let (slots, tag) = (self.slots.as_slice(), tag(hash));
        let mut probed = probes(slots, hash).filter_map(|at| slots.get(at)).map(|slot| Slot::decode(*slot));
        // Slots before it may have become empty.
        let found = probed.find(|slot| slot.tag == tag && *slot != EMPTY)?;
        Some(u64::from(found.block) * BLOCK_BYTES)
    }

    /// The bytes that are stored.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.encoded_len());
        self.encode_into(&mut out);
        out
    }

    /// How many these are.
    pub(crate) fn encoded_len(&self) -> usize {
        HEADER_BYTES + self.slots.as_slice().len() * SLOT_BYTES
    }

    pub(crate) fn encode_into(&self, out: &mut Vec<u8>) {
        out.extend(MAGIC);
        out.extend(VERSION.to_le_bytes());
        out.extend([0; 2]);
        out.extend(self.root.as_bytes());
        let slots = self.slots.as_slice();
        out.extend((slots.len() as u64).to_le_bytes());
        out.extend_from_slice(slots.as_flattened());
    }

    /// Reads what [`BlockIndex::encode`] wrote. What it lists is not checked here: it is only ever a hint.
    pub fn decode(bytes: &[u8]) -> Result<BlockIndex> {
        let (root, table) = table(bytes)?;
        Ok(BlockIndex { root, slots: Slots::Owned(bytes.get(table).unwrap_or_default().as_chunks().0.to_vec()) })
    }

    /// The same of a part of a file, which stays there.
    pub(crate) fn mapped(file: Image, part: Range<usize>) -> Result<BlockIndex> {
        let (root, table) = table(file.as_slice().get(part.clone()).unwrap_or_default())?;
        Ok(BlockIndex { root, slots: Slots::Mapped(file, part.start + table.start..part.start + table.end) })
    }
}

/// The root in a stored index, and where its table stands.
fn table(bytes: &[u8]) -> Result<(Hash, Range<usize>)> {
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
    Ok((root, bytes.len() - reader.remaining()..bytes.len()))
}

/// Lists a block, unless one like it is listed, or there is no room.
fn list(slots: &mut [[u8; SLOT_BYTES]], (block, hash): (u32, u64)) {
    let tag = tag(hash);
    let mut room = None;
    for at in probes(slots, hash) {
        match Slot::decode(slots[at]) {
            EMPTY => room = room.or(Some(at)),
            listed if listed.tag == tag => return,
            _ => {}
        }
    }
    if let Some(at) = room {
        slots[at] = Slot { block, tag }.encode();
    }
}

/// The slots in which a block with this hash may stand.
fn probes(slots: &[[u8; SLOT_BYTES]], hash: u64) -> impl Iterator<Item = usize> + use<> {
    let mask = slots.len() - 1;
    (0..PROBES).map(move |probe| (hash as usize).wrapping_add(probe) & mask)
}

/// The whole blocks in `data` that are not zeros: number and hash, in order, up to `BLOCKS_MAX`.
fn hashed(image: &Image, data: &[Extent]) -> Result<Vec<(u32, u64)>> {
    let (mut all, is_full) = (Vec::new(), AtomicBool::new(false));
    let parts = data.iter().flat_map(|extent| slices(*extent, SLICE_BYTES));
    let hash = |part: Extent| {
        let blocks = slices(part, BLOCK_BYTES).filter_map(|block| {
            let bytes = image.get(block).filter(|bytes| bytes.len() as u64 == BLOCK_BYTES && !is_zero(bytes))?;
            Some((u32::try_from(block.start / BLOCK_BYTES).ok()?, XxHash3_64::oneshot(bytes)))
        });
        let hashed = blocks.collect::<Vec<_>>();
        image.release(part);
        Ok(hashed)
    };
    let take = |hashed: Vec<_>| {
        let room = BLOCKS_MAX - all.len();
        is_full.store(hashed.len() >= room, Ordering::Relaxed);
        all.extend(hashed.into_iter().take(room));
        Ok(())
    };
    // What is hashed when there is no room any more is thrown away.
    let wanted = parts.take_while(|_| !is_full.load(Ordering::Relaxed));
    parallel::in_order(THREADS_MAX, 2, wanted, || (), |(), part| hash(part), take)?;
    Ok(all)
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
    fn it_follows_its_image() {
        let block = BLOCK_BYTES as usize;
        let older = noise(1, 600 * block);
        let mut newer = older.clone();
        newer[100 * block..200 * block].copy_from_slice(&noise(2, 100 * block));
        newer[300 * block..310 * block].fill(0);
        newer.truncate(590 * block + 5);
        let (older, newer) = (image(&older).unwrap(), image(&newer).unwrap());
        let root = Hash::of(b"newer");
        // One byte in the first and in the last of the blocks: blocks are taken whole.
        let changed = [(101 * block - 1, 199 * block + 1), (100 * block, 100 * block + 1), (300 * block, 310 * block)];
        let changed = changed.map(|(start, end)| Extent::new(start as u64, end as u64));
        let index = BlockIndex::build(&older, Hash::of(b"older")).unwrap();
        let index = index.follow(&newer, root, &changed).unwrap().unwrap();
        assert_eq!(index.root(), root);
        let mut missed = 0;
        for (number, bytes) in newer.as_slice().chunks_exact(block).enumerate() {
            match index.find(bytes) {
                Some(at) => assert_eq!(at, number as u64 * BLOCK_BYTES),
                None => missed += 1,
            }
        }
        assert!(missed < 20, "{missed} of 590 are not listed, ten of which are zeros");
        for gone in [100, 199, 305, 591] {
            assert_eq!(index.find(&older.as_slice()[gone * block..][..block]), None, "{gone}");
        }
        // A table is not filled until nothing is found in it any more.
        let more = image(&noise(3, 2000 * block)).unwrap();
        assert_eq!(index.follow(&more, root, &[Extent::new(0, more.len_bytes())]).unwrap(), None);
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
