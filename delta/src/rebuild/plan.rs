use std::ops::Range;

use super::Spool;
use crate::{
    Chunk, Extent, FrameIndex, Hash, Manifest, Result, Share, Totals,
    error::{Error, Object},
    limits::{CHUNK_BYTES_MAX, CHUNK_BYTES_MIN, IMAGE_BYTES_MAX},
    recipe::{BodyPlace, Coding, Located, Record, read_frame},
};

/// What has to be done for some bytes of the new image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Which bytes.
    pub extent: Extent,
    /// What to do.
    pub kind: OperationKind,
    /// The chunks of the new manifest that this makes.
    pub(crate) chunks: Range<usize>,
    /// For [`OperationKind::Write`], where the body stands in its frame.
    pub(crate) body: Option<BodyPlace>,
}

/// The kinds of [`Operation`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperationKind {
    /// Nothing: the base has them at the same place.
    Keep,
    /// Take them from elsewhere in the base.
    Copy {
        /// Position in the base.
        from: u64,
    },
    /// Make them zeros, as a hole if possible.
    Zero,
    /// Decode a body.
    Write {
        /// Number of the frame that holds it.
        frame: u32,
    },
}

/// A rebuild, worked out before anything is written. [`apply`](crate::apply) runs it.
#[derive(Debug)]
pub struct Plan {
    operations: Vec<Operation>,
    manifest: Manifest,
    base_len_bytes: Option<u64>,
    totals: Totals,
}

impl Plan {
    /// What to do, in order of the new image, without gaps.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// The manifest of the new image; its root is the one that the index names.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Bytes by kind of recipe.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    pub(crate) fn base_len_bytes(&self) -> Option<u64> {
        self.base_len_bytes
    }
}

/// Works out how to make the image that `index` names from the frames in `spool` and a base. Decodes records only, no bodies. The new manifest follows from the
/// records and the base's manifest; a root that is not the one in `index` is refused.
pub fn plan(index: &FrameIndex, spool: &Spool, base_manifest: Option<&Manifest>) -> Result<Plan> {
    if index != spool.index() {
        return Err(Error::Mismatch { object: Object::Spool, reason: "its frames belong to another index".into() });
    }
    let base_root = base_manifest.map(Manifest::root);
    if base_root != index.base_root {
        let name = |root: Option<Hash>| root.map_or("none".into(), |root| root.to_string());
        return Err(Error::Mismatch {
            object: Object::Base,
            reason: format!("the delta is against {}, given was {}", name(index.base_root), name(base_root)),
        });
    }
    if index.image_len_bytes > IMAGE_BYTES_MAX {
        return Err(Error::Limit {
            object: Object::FrameIndex,
            what: "length of the image",
            value: index.image_len_bytes,
            limit: IMAGE_BYTES_MAX,
        });
    }
    let mut planner = Planner {
        len_bytes: index.image_len_bytes,
        base: base_manifest,
        base_offsets: base_manifest.map(Manifest::offsets).unwrap_or_default(),
        position: 0,
        chunks: Vec::new(),
        operations: Vec::new(),
        totals: Totals::default(),
    };
    for number in 0..index.frames.len() as u32 {
        let (image_offset, records) = read_frame(&spool.read(number)?)?;
        if image_offset != planner.position {
            return Err(Error::damaged(Object::Frame(number), 8, "it does not begin where the frame before it ends"));
        }
        for located in records {
            planner
                .add(number, &located)
                .map_err(|reason| Error::damaged(Object::Frame(number), located.at, reason))?;
        }
    }
    let manifest = Manifest::new(planner.chunks)?;
    if manifest.root() != index.new_root {
        return Err(Error::WrongHash {
            object: Object::Manifest,
            offset_bytes: 0,
            expected: index.new_root,
            found: manifest.root(),
        });
    }
    Ok(Plan {
        operations: planner.operations,
        manifest,
        base_len_bytes: base_manifest.map(Manifest::image_len_bytes),
        totals: planner.totals,
    })
}

struct Planner<'a> {
    len_bytes: u64,
    base: Option<&'a Manifest>,
    base_offsets: Vec<u64>,
    position: u64,
    chunks: Vec<Chunk>,
    operations: Vec<Operation>,
    totals: Totals,
}

/// An error is a reason; the caller knows the place.
type Checked = std::result::Result<(), &'static str>;

impl Planner<'_> {
    fn add(&mut self, frame: u32, located: &Located) -> Checked {
        let (start, first) = (self.position, self.chunks.len());
        let mut place = None;
        let (kind, share) = match &located.record {
            Record::Copy { from } => {
                self.add_copy(*from)?;
                match from.start == start {
                    true => (OperationKind::Keep, &mut self.totals.keep),
                    false => (OperationKind::Copy { from: from.start }, &mut self.totals.copy),
                }
            }
            Record::Zero { chunk_bytes, count } => {
                self.add_zeros(*chunk_bytes, *count)?;
                (OperationKind::Zero, &mut self.totals.zero)
            }
            Record::Body { chunks, body } => {
                for chunk in chunks {
                    self.add_chunk(*chunk)?;
                }
                let share = match body.coding {
                    Coding::Raw => &mut self.totals.raw,
                    Coding::Zstd => &mut self.totals.zstd,
                    Coding::ZstdPrefix(prefix) => {
                        if prefix.end > self.base.map_or(0, Manifest::image_len_bytes) {
                            return Err("the prefix leaves the base");
                        }
                        &mut self.totals.zstd_prefix
                    }
                };
                place = Some(*body);
                (OperationKind::Write { frame }, share)
            }
        };
        let extent = Extent::new(start, self.position);
        *share += Share {
            chunks: (self.chunks.len() - first) as u64,
            image_bytes: extent.len_bytes(),
            wire_bytes: located.wire_bytes,
        };
        self.operations.push(Operation { extent, kind, chunks: first..self.chunks.len(), body: place });
        Ok(())
    }

    fn add_copy(&mut self, from: Extent) -> Checked {
        let place = |at: u64| self.base_offsets.binary_search(&at).ok();
        let chunks = match (self.base, place(from.start), place(from.end)) {
            (Some(base), Some(first), Some(end)) => base.chunks().get(first..end),
            _ => None,
        };
        let chunks = chunks.ok_or("the range to copy is not made of whole chunks of the base")?;
        chunks.iter().try_for_each(|chunk| self.add_chunk(*chunk))
    }

    fn add_zeros(&mut self, chunk_bytes: u32, count: u32) -> Checked {
        // Before anything is hashed or stored: nine bytes can ask for much.
        let total = u64::from(chunk_bytes) * u64::from(count);
        if chunk_bytes > CHUNK_BYTES_MAX || total > self.len_bytes - self.position {
            return Err("its zeros reach behind the image");
        }
        let hash = Hash::of_zeros(chunk_bytes);
        let len_bytes = chunk_bytes;
        (0..count).try_for_each(|_| self.add_chunk(Chunk { hash, len_bytes }))
    }

    fn add_chunk(&mut self, chunk: Chunk) -> Checked {
        let end = self.position + u64::from(chunk.len_bytes);
        if end > self.len_bytes {
            return Err("its chunks reach behind the image");
        }
        // Only the last chunk may be short: this bounds the number of chunks by the length of the image.
        if chunk.len_bytes == 0 || (chunk.len_bytes < CHUNK_BYTES_MIN && end < self.len_bytes) {
            return Err("a chunk is too short");
        }
        self.position = end;
        self.chunks.push(chunk);
        Ok(())
    }
}
