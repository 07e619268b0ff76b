use super::Spool;
use crate::{
    Chunk, Extent, FrameIndex, Hash, Manifest, Result, Totals,
    base::Place,
    error::{Error, Object},
    limits::{BASES_MAX, CHUNK_BYTES_MAX, CHUNK_BYTES_MIN, IMAGE_BYTES_MAX},
    recipe::{EXCERPT_TOO_FAR, Part, PartSource, Record, read_frame},
};

/// A rebuild that was found to be possible, before anything is written: every record has been read, every place lies inside its base, and the manifest that
/// comes out is the one that was named. [`apply`](crate::apply) runs it.
#[derive(Debug)]
pub struct Plan {
    manifest: Manifest,
    made: Vec<Extent>,
    base_lens_bytes: Vec<u64>,
    totals: Totals,
}

impl Plan {
    /// The manifest of the new image; its root is the one that the index names.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The chunks that do not stay as the first base has them, neighbours together: what [`verify_chunks`](crate::verify_chunks) reads back.
    pub fn made(&self) -> &[Extent] {
        &self.made
    }

    /// Bytes by kind of recipe.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Lengths of the bases that it was made for.
    pub(crate) fn base_lens_bytes(&self) -> &[u64] {
        &self.base_lens_bytes
    }
}

/// Works out how to make the image that `index` names from the frames in `spool` and the bases. Decodes records only, no new bytes. The new manifest follows from
/// the records and the bases' manifests; a root that is not the one in `index` is refused.
pub fn plan(index: &FrameIndex, spool: &Spool, bases: &[&Manifest]) -> Result<Plan> {
    if index != spool.index() {
        return Err(Error::Mismatch { object: Object::Spool, reason: "its frames belong to another index".into() });
    }
    let roots: Vec<Hash> = bases.iter().map(|manifest| manifest.root()).collect();
    if roots != index.base_roots {
        return Err(Error::Mismatch {
            object: Object::Base,
            reason: format!("the delta is against {}, given was {}", names(&index.base_roots), names(&roots)),
        });
    }
    if index.image_len_bytes > IMAGE_BYTES_MAX || bases.len() > BASES_MAX {
        return Err(Error::Limit {
            object: Object::FrameIndex,
            what: "length of the image",
            value: index.image_len_bytes,
            limit: IMAGE_BYTES_MAX,
        });
    }
    let mut planner =
        Planner { len_bytes: index.image_len_bytes, bases, offsets: Vec::new(), position: 0, chunks: Vec::new() };
    planner.offsets = bases.iter().map(|manifest| manifest.offsets()).collect();
    let mut totals = Totals::default();
    let mut made: Vec<Extent> = Vec::new();
    let mut new_bytes = 0;
    for number in 0..index.frames.len() as u32 {
        let frame = read_frame(&spool.read(number)?)?;
        if frame.position != planner.position {
            return Err(Error::damaged(Object::Frame(number), 8, "it does not begin where the frame before it ends"));
        }
        if frame.excerpts.first().is_some_and(|farthest| u64::from(farthest.back_bytes) > new_bytes) {
            return Err(Error::damaged(Object::Frame(number), 40, EXCERPT_TOO_FAR));
        }
        new_bytes += frame.new_bytes;
        for record in &frame.records {
            let position = planner.position;
            planner.add(record).map_err(|reason| Error::Recipe { frame: number, position, reason })?;
            let end = planner.position;
            match made.last_mut() {
                _ if matches!(record, Record::Copy { from, .. } if from.is_kept_at(position)) => {}
                Some(last) if last.end == position => last.end = end,
                _ => made.push(Extent::new(position, end)),
            }
        }
        totals.add(&frame);
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
        manifest,
        made,
        base_lens_bytes: bases.iter().map(|manifest| manifest.image_len_bytes()).collect(),
        totals,
    })
}

fn names(roots: &[Hash]) -> String {
    match roots {
        [] => "none".into(),
        roots => roots.iter().map(Hash::to_string).collect::<Vec<_>>().join(" and "),
    }
}

struct Planner<'a> {
    len_bytes: u64,
    bases: &'a [&'a Manifest],
    offsets: Vec<Vec<u64>>,
    position: u64,
    chunks: Vec<Chunk>,
}

/// An error is a reason; the caller knows the place.
type Checked = std::result::Result<(), &'static str>;

impl Planner<'_> {
    fn add(&mut self, record: &Record) -> Checked {
        match record {
            Record::Copy { from, len_bytes } => self.add_copy(*from, *len_bytes),
            Record::Zero { chunk_bytes, count } => self.add_zeros(*chunk_bytes, *count),
            Record::New { chunks, parts } => {
                parts.iter().try_for_each(|part| self.check_part(part))?;
                chunks.iter().try_for_each(|chunk| self.add_chunk(*chunk))
            }
        }
    }

    fn add_copy(&mut self, from: Place, len_bytes: u64) -> Checked {
        let base = usize::from(from.base);
        let range = Extent::new(from.start, from.start + len_bytes);
        let place = |at: u64| self.offsets.get(base)?.binary_search(&at).ok();
        let chunks = match (self.bases.get(base), place(range.start), place(range.end)) {
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

    fn check_part(&self, part: &Part) -> Checked {
        let base_len = |place: Place| self.bases.get(usize::from(place.base)).map(|base| base.image_len_bytes());
        match part.source {
            PartSource::Copy(place) => {
                let end = place.start.checked_add(u64::from(part.len_bytes));
                match base_len(place).zip(end) {
                    Some((len, end)) if end <= len => Ok(()),
                    _ => Err("a part to copy leaves the base"),
                }
            }
            // Behind the base's end follow zeros.
            PartSource::Patched(place) | PartSource::Edited(place) => match base_len(place) {
                Some(len) if place.start < len => Ok(()),
                _ => Err("what a part is made from leaves the base"),
            },
            PartSource::Zero | PartSource::Raw | PartSource::Plain => Ok(()),
        }
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
