//! The records of a frame: see FORMAT.md, "Records".

use crate::{
    Chunk, Hash, Result,
    base::Place,
    codec::Reader,
    error::{Error, Object},
    limits::{BASES_MAX, BLOCK_BYTES, CHUNK_BYTES_MAX, IMAGE_BYTES_MAX, NEW_RUN_BYTES_MAX},
};

const COPY: u8 = 1;
const ZERO: u8 = 2;
const NEW: u8 = 3;
const CHUNK_ENTRY_BYTES: usize = 4;

const PART_ZERO: u8 = 1;
const PART_RAW: u8 = 2;
const PART_PLAIN: u8 = 3;
const PART_KEEP: u8 = 4;
const PART_COPY: u8 = 5;
const PART_PATCHED_HERE: u8 = 6;
const PART_PATCHED: u8 = 7;
const PART_EDITED_HERE: u8 = 8;
const PART_EDITED: u8 = 9;
const PART_BYTES_MIN: usize = 3;
/// Until the hashes have been read.
const UNKNOWN: Hash = Hash::from_bytes([0; 32]);

/// How the next chunks of the new image are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Record {
    /// Whole chunks of a base.
    Copy { from: Place, len_bytes: u64 },
    /// `count` chunks of that many zeros.
    Zero { chunk_bytes: u32, count: u32 },
    /// New chunks, and what their bytes are made of: the parts together are as long as the chunks together.
    New { chunks: Vec<Chunk>, parts: Vec<Part> },
}

/// The next bytes of a run of new chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) len_bytes: u32,
    pub(crate) source: PartSource,
}

/// Where the bytes of a part come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PartSource {
    /// They are zeros.
    Zero,
    /// A base has them.
    Copy(Place),
    /// The frame has them as they are.
    Raw,
    /// The frame's coded stream has them.
    Plain,
    /// The frame's coded stream has them, compressed with those bytes of a base before it.
    Patched(Place),
    /// Those bytes of a base with the frame's edits.
    Edited(Place),
}

impl Record {
    /// Bytes of the new image that it makes.
    pub(crate) fn len_bytes(&self) -> u64 {
        match self {
            Record::Copy { len_bytes, .. } => *len_bytes,
            Record::Zero { chunk_bytes, count } => u64::from(*chunk_bytes) * u64::from(*count),
            Record::New { chunks, .. } => chunks.iter().map(|chunk| u64::from(chunk.len_bytes)).sum(),
        }
    }

    /// Writes the record, which makes the bytes from `position` on. Hashes of new chunks stand elsewhere: they would spoil the compression.
    pub(super) fn write(&self, position: u64, out: &mut Vec<u8>) {
        match self {
            Record::Copy { from, len_bytes } => {
                out.push(COPY);
                from.write(position, out);
                out.extend(len_bytes.to_le_bytes());
            }
            Record::Zero { chunk_bytes, count } => {
                out.push(ZERO);
                out.extend(chunk_bytes.to_le_bytes());
                out.extend(count.to_le_bytes());
            }
            Record::New { chunks, parts } => {
                out.push(NEW);
                // A run is bounded by NEW_RUN_BYTES_MAX, its numbers of chunks and parts with it.
                out.extend((chunks.len() as u16).to_le_bytes());
                out.extend((parts.len() as u16).to_le_bytes());
                for chunk in chunks {
                    out.extend(chunk.len_bytes.to_le_bytes());
                }
                let mut position = position;
                for part in parts {
                    part.write(position, out);
                    position += u64::from(part.len_bytes);
                }
            }
        }
    }

    /// Reads a record, still without hashes, that makes the bytes from `position` on.
    pub(super) fn read(reader: &mut Reader<'_>, object: Object, position: u64) -> Result<Record> {
        let kind_at = reader.offset_bytes();
        // From here on no sum of a position and a length has an overflow.
        if position > IMAGE_BYTES_MAX {
            return Err(reader.damaged("a record begins behind every image"));
        }
        match reader.u8()? {
            COPY => {
                let from = Place::read(reader, position)?;
                let len_bytes = reader.u64()?;
                match from.start.checked_add(len_bytes) {
                    Some(_) if len_bytes > 0 => Ok(Record::Copy { from, len_bytes }),
                    _ => Err(reader.damaged("the range to copy is empty or has no end")),
                }
            }
            ZERO => {
                let (chunk_bytes, count) = (reader.u32()?, reader.u32()?);
                // Runs of short chunks do not occur; refusing them bounds what a short record can ask for.
                if count == 0 || (count > 1 && chunk_bytes != CHUNK_BYTES_MAX) {
                    return Err(reader.damaged("a run of zeros is made of the largest chunks"));
                }
                Ok(Record::Zero { chunk_bytes, count })
            }
            NEW => new(reader, position),
            _ => Err(Error::damaged(object, kind_at, "there is no such kind of record")),
        }
    }
}

fn new(reader: &mut Reader<'_>, position: u64) -> Result<Record> {
    let (chunk_count, part_count) = (usize::from(reader.u16()?), usize::from(reader.u16()?));
    // The entries must be here before room for them is made.
    if chunk_count == 0 || reader.remaining() < chunk_count * CHUNK_ENTRY_BYTES + part_count * PART_BYTES_MIN {
        return Err(reader.damaged("the numbers of chunks and parts are not what follows"));
    }
    let mut chunks = Vec::with_capacity(chunk_count);
    let mut chunks_bytes = 0;
    for _ in 0..chunk_count {
        let len_bytes = reader.u32()?;
        reader.limit("length of a chunk", u64::from(len_bytes), u64::from(CHUNK_BYTES_MAX))?;
        chunks_bytes += u64::from(len_bytes);
        chunks.push(Chunk { hash: UNKNOWN, len_bytes });
    }
    reader.limit("length of a run of new chunks", chunks_bytes, NEW_RUN_BYTES_MAX)?;
    let end = position + chunks_bytes;
    let mut parts = Vec::with_capacity(part_count);
    let mut part_at = position;
    for _ in 0..part_count {
        let part = Part::read(reader, part_at, end)?;
        part_at += u64::from(part.len_bytes);
        parts.push(part);
    }
    if part_at != end {
        return Err(reader.damaged("the parts are not as long as the chunks"));
    }
    Ok(Record::New { chunks, parts })
}

impl Part {
    fn write(&self, position: u64, out: &mut Vec<u8>) {
        let (kind, place) = match self.source {
            PartSource::Zero => (PART_ZERO, None),
            PartSource::Raw => (PART_RAW, None),
            PartSource::Plain => (PART_PLAIN, None),
            PartSource::Copy(place) if place.is_kept_at(position) => (PART_KEEP, None),
            PartSource::Copy(place) => (PART_COPY, Some(place)),
            PartSource::Patched(place) if place.is_kept_at(position) => (PART_PATCHED_HERE, None),
            PartSource::Patched(place) => (PART_PATCHED, Some(place)),
            PartSource::Edited(place) if place.is_kept_at(position) => (PART_EDITED_HERE, None),
            PartSource::Edited(place) => (PART_EDITED, Some(place)),
        };
        out.push(kind);
        let end = position + u64::from(self.len_bytes);
        // A run has at most NEW_RUN_BYTES_MAX / BLOCK_BYTES + 1: fits.
        out.extend(((end.div_ceil(BLOCK_BYTES) - position / BLOCK_BYTES) as u16).to_le_bytes());
        if let Some(place) = place {
            place.write(position, out);
        }
    }

    /// Reads a part that begins at `position` in a run of chunks that ends at `run_end`.
    fn read(reader: &mut Reader<'_>, position: u64, run_end: u64) -> Result<Part> {
        let kind = reader.u8()?;
        let end = (position / BLOCK_BYTES + u64::from(reader.u16()?)) * BLOCK_BYTES;
        // It ends with a block, and only the last one with the chunks.
        if end <= position || end >= run_end + BLOCK_BYTES {
            return Err(reader.damaged("a part is empty, or reaches behind its chunks"));
        }
        let len_bytes = (end.min(run_end) - position) as u32;
        let here = Place { base: 0, start: position };
        let source = match kind {
            PART_ZERO => PartSource::Zero,
            PART_RAW => PartSource::Raw,
            PART_PLAIN => PartSource::Plain,
            PART_KEEP => PartSource::Copy(here),
            PART_COPY => PartSource::Copy(elsewhere(reader, position)?),
            PART_PATCHED_HERE => PartSource::Patched(here),
            PART_PATCHED => PartSource::Patched(elsewhere(reader, position)?),
            PART_EDITED_HERE => PartSource::Edited(here),
            PART_EDITED => PartSource::Edited(elsewhere(reader, position)?),
            _ => return Err(reader.damaged("there is no such kind of part")),
        };
        Ok(Part { len_bytes, source })
    }
}

/// A place other than the one that has a kind of its own.
fn elsewhere(reader: &mut Reader<'_>, position: u64) -> Result<Place> {
    let place = Place::read(reader, position)?;
    match place.is_kept_at(position) {
        true => Err(reader.damaged("a part that stays in its place has another kind")),
        false => Ok(place),
    }
}

impl Place {
    /// As its distance from the place that is made, modulo 2^64: zero for what stays, the same number for all that moved together.
    fn write(self, position: u64, out: &mut Vec<u8>) {
        out.push(self.base);
        out.extend(self.start.wrapping_sub(position).to_le_bytes());
    }

    fn read(reader: &mut Reader<'_>, position: u64) -> Result<Place> {
        let base = reader.u8()?;
        if usize::from(base) >= BASES_MAX {
            return Err(reader.damaged("there is no base of that number"));
        }
        Ok(Place { base, start: position.wrapping_add(reader.u64()?) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_record_begins_behind_every_image() {
        // One new chunk, in one part of as many blocks as can be said.
        let mut bytes = vec![NEW, 1, 0, 1, 0];
        bytes.extend(CHUNK_BYTES_MAX.to_le_bytes());
        bytes.extend([PART_KEEP, 0xff, 0xff]);
        let read = |position| Record::read(&mut Reader::new(Object::Frame(0), &bytes, 0), Object::Frame(0), position);
        let why = |position| match read(position) {
            Err(Error::Damaged { reason, .. }) => reason,
            other => panic!("{other:?}"),
        };
        assert_eq!(why(IMAGE_BYTES_MAX), "a part is empty, or reaches behind its chunks");
        for position in [IMAGE_BYTES_MAX + 1, u64::MAX - u64::from(CHUNK_BYTES_MAX) - 4097, u64::MAX] {
            assert_eq!(why(position), "a record begins behind every image", "{position}");
        }
    }
}
