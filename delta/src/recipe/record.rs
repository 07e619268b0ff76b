//! The records of a frame: see FORMAT.md, "Records".

use super::Coding;
use crate::{
    Chunk, Extent, Result,
    codec::Reader,
    error::{Error, Object},
    limits::{BODY_BYTES_MAX, CHUNK_BYTES_MAX, PREFIX_BYTES_MAX},
};

const COPY: u8 = 1;
const ZERO: u8 = 2;
const BODY_RAW: u8 = 3;
const BODY_ZSTD: u8 = 4;
const BODY_ZSTD_PREFIX: u8 = 5;
/// The only base there is in version 1.
const BASE: u8 = 0;
const CHUNK_ENTRY_BYTES: usize = 36;

/// How the next bytes of the new image are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Record {
    /// Whole chunks of the base. At the place where they stand in the base, this keeps them.
    Copy { from: Extent },
    /// `count` chunks of that many zeros.
    Zero { chunk_bytes: u32, count: u32 },
    /// New chunks, one after the other in one body.
    Body { chunks: Vec<Chunk>, body: BodyPlace },
}

/// Where a body stands in its frame and how it is coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BodyPlace {
    pub(crate) coding: Coding,
    /// From the first byte of the frame.
    pub(crate) start: u32,
    pub(crate) len_bytes: u32,
}

impl Record {
    /// Writes the record. Where the body stands is not written: bodies follow one another.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Record::Copy { from } => {
                out.extend([COPY, BASE]);
                out.extend(from.start.to_le_bytes());
                out.extend(from.len_bytes().to_le_bytes());
            }
            Record::Zero { chunk_bytes, count } => {
                out.push(ZERO);
                out.extend(chunk_bytes.to_le_bytes());
                out.extend(count.to_le_bytes());
            }
            Record::Body { chunks, body } => {
                out.push(match body.coding {
                    Coding::Raw => BODY_RAW,
                    Coding::Zstd => BODY_ZSTD,
                    Coding::ZstdPrefix(_) => BODY_ZSTD_PREFIX,
                });
                // BODY_BYTES_MAX / CHUNK_BYTES_MIN chunks and a short last one: fits.
                out.extend((chunks.len() as u16).to_le_bytes());
                out.extend(body.len_bytes.to_le_bytes());
                if let Coding::ZstdPrefix(prefix) = body.coding {
                    out.push(BASE);
                    out.extend(prefix.start.to_le_bytes());
                    out.extend((prefix.len_bytes() as u32).to_le_bytes());
                }
                for chunk in chunks {
                    out.extend(chunk.len_bytes.to_le_bytes());
                    out.extend(chunk.hash.as_bytes());
                }
            }
        }
    }

    /// Reads a record whose body, if it has one, begins at `body_start` of the frame.
    pub(super) fn read(reader: &mut Reader<'_>, object: Object, body_start: u32) -> Result<Record> {
        let kind_at = reader.offset_bytes();
        match reader.u8()? {
            COPY => {
                base_number(reader)?;
                let (start, len) = (reader.u64()?, reader.u64()?);
                match start.checked_add(len) {
                    Some(end) if len > 0 => Ok(Record::Copy { from: Extent::new(start, end) }),
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
            BODY_RAW => body(reader, body_start, |_| Ok(Coding::Raw)),
            BODY_ZSTD => body(reader, body_start, |_| Ok(Coding::Zstd)),
            BODY_ZSTD_PREFIX => body(reader, body_start, prefix),
            _ => Err(Error::damaged(object, kind_at, "there is no such kind of record")),
        }
    }
}

fn base_number(reader: &mut Reader<'_>) -> Result<()> {
    match reader.u8()? {
        BASE => Ok(()),
        _ => Err(reader.damaged("there is no base of that number")),
    }
}

fn prefix(reader: &mut Reader<'_>) -> Result<Coding> {
    base_number(reader)?;
    let (start, len) = (reader.u64()?, reader.u32()?);
    reader.limit("length of a prefix", u64::from(len), u64::from(PREFIX_BYTES_MAX))?;
    match start.checked_add(u64::from(len)) {
        Some(end) if len > 0 => Ok(Coding::ZstdPrefix(Extent::new(start, end))),
        _ => Err(reader.damaged("the prefix is empty or has no end")),
    }
}

fn body(reader: &mut Reader<'_>, start: u32, coding: impl FnOnce(&mut Reader<'_>) -> Result<Coding>) -> Result<Record> {
    let count = usize::from(reader.u16()?);
    let len_bytes = reader.u32()?;
    let body_limit = u64::from(BODY_BYTES_MAX);
    reader.limit("length of a body", u64::from(len_bytes), body_limit)?;
    let coding = coding(reader)?;
    // The entries must be here before room for them is made.
    if count == 0 || reader.remaining() < count * CHUNK_ENTRY_BYTES {
        return Err(reader.damaged("the number of chunks is not what follows"));
    }
    let mut chunks = Vec::with_capacity(count);
    let mut decoded_bytes = 0;
    for _ in 0..count {
        let chunk_bytes = reader.u32()?;
        let hash = reader.hash()?;
        let chunk_limit = u64::from(CHUNK_BYTES_MAX);
        reader.limit("length of a chunk", u64::from(chunk_bytes), chunk_limit)?;
        decoded_bytes += u64::from(chunk_bytes);
        chunks.push(Chunk { hash, len_bytes: chunk_bytes });
    }
    reader.limit("length of a decoded body", decoded_bytes, body_limit)?;
    if coding == Coding::Raw && decoded_bytes != u64::from(len_bytes) {
        return Err(reader.damaged("a raw body is as long as its chunks"));
    }
    let body = BodyPlace { coding, start, len_bytes };
    Ok(Record::Body { chunks, body })
}
