//! The bytes of a frame: see FORMAT.md, "Frame".

use std::ops::Range;

use super::{Part, PartSource, Record, VerifiedFrame, body};
use crate::{
    Chunk, Hash, Result,
    codec::Reader,
    error::{Error, Object},
    limits::{FRAME_CONTENT_BYTES_MAX, RECORDS_BYTES_MAX, ZSTD_LEVEL_SMALL},
};

const MAGIC: [u8; 4] = *b"fmFR";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 32;

/// How the coded stream turns bytes of the bases into the patched parts, which stand before the plain ones in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patching {
    /// The zstd frame has the bases' bytes as prefix.
    Prefix = 0,
    /// The content is the exclusive or of both.
    Xor = 1,
}

/// New bytes, as they are sent.
pub(super) struct Streams {
    pub(super) raw: Vec<u8>,
    pub(super) coded: Vec<u8>,
    pub(super) patching: Patching,
}

/// A frame as it is sent. Its records make the new image's bytes from `position` on.
pub(super) fn write_frame(position: u64, records: &[Record], streams: &Streams) -> Vec<u8> {
    let (mut decoded, mut hashes) = (Vec::new(), Vec::new());
    let mut record_at = position;
    for record in records {
        record.write(record_at, &mut decoded);
        record_at += record.len_bytes();
        hashes.extend(record.chunks().iter().flat_map(|chunk| chunk.hash.as_bytes()));
    }
    let packed = body::zstd(&decoded, None, ZSTD_LEVEL_SMALL);
    let stored = packed.as_ref().unwrap_or(&decoded);
    let sections = [stored, &hashes, &streams.raw, &streams.coded];
    let mut frame = Vec::with_capacity(HEADER_BYTES + sections.iter().map(|section| section.len()).sum::<usize>());
    frame.extend(MAGIC);
    frame.extend(VERSION.to_le_bytes());
    frame.push(u8::from(packed.is_some()));
    frame.push(streams.patching as u8);
    frame.extend(position.to_le_bytes());
    // FRAME_BYTES_MAX bounds each: fits.
    for len_bytes in [stored.len(), decoded.len(), streams.raw.len(), streams.coded.len()] {
        frame.extend((len_bytes as u32).to_le_bytes());
    }
    for section in sections {
        frame.extend(section);
    }
    frame
}

/// What was read of a frame: its records, and where its streams stand.
pub(crate) struct Frame {
    /// Where in the new image its first record begins.
    pub(crate) position: u64,
    pub(crate) records: Vec<Record>,
    pub(crate) raw: Range<usize>,
    pub(crate) coded: Range<usize>,
    pub(crate) patching: Patching,
    /// Length of the patched parts together, and of the plain ones: what the coded stream holds.
    pub(crate) patched_bytes: u64,
    pub(crate) plain_bytes: u64,
}

/// Reads the records of a frame. Streams are located and held against the parts that need them, not decoded.
pub(crate) fn read_frame(frame: &VerifiedFrame) -> Result<Frame> {
    let object = Object::Frame(frame.number());
    let bytes = frame.bytes();
    let mut reader = Reader::new(object, bytes, 0);
    reader.opening(MAGIC, VERSION)?;
    let packed = match reader.u8()? {
        0 => false,
        1 => true,
        _ => return Err(Error::damaged(object, 6, "there is no such coding of records")),
    };
    let patching = match reader.u8()? {
        0 => Patching::Prefix,
        1 => Patching::Xor,
        _ => return Err(Error::damaged(object, 7, "there is no such kind of patching")),
    };
    let position = reader.u64()?;
    let (stored, decoded) = (reader.u32()?, reader.u32()?);
    let (raw_bytes, coded_bytes) = (u64::from(reader.u32()?), reader.u32()? as usize);
    reader.limit("length of the records", u64::from(decoded), u64::from(RECORDS_BYTES_MAX))?;
    let rest = bytes.get(HEADER_BYTES..).unwrap_or_default();
    let (stored, rest) = rest
        .split_at_checked(stored as usize)
        .ok_or_else(|| Error::damaged(object, 16, "the records are longer than the frame"))?;
    let unpacked;
    let records = match packed {
        true => {
            unpacked = body::unzstd(stored, None, decoded as usize)
                .map_err(|reason| Error::damaged(object, HEADER_BYTES as u64, reason))?;
            &unpacked
        }
        false if stored.len() == decoded as usize => stored,
        false => return Err(Error::damaged(object, 20, "the records are not as long as the header says")),
    };
    let mut records = read_records(object, records, position)?;
    let hashes = rest.len() - read_hashes(object, rest, &mut records)?.len();
    let content = |wanted: fn(PartSource) -> bool| -> u64 {
        let parts = records.iter().flat_map(Record::parts).filter(|part| wanted(part.source));
        parts.map(|part| u64::from(part.len_bytes)).sum()
    };
    let plain_bytes = content(|source| source == PartSource::Plain);
    let patched_bytes = content(|source| matches!(source, PartSource::Patched(_)));
    let raw_needed = content(|source| source == PartSource::Raw);
    reader.limit("new bytes of a frame", raw_needed + plain_bytes + patched_bytes, FRAME_CONTENT_BYTES_MAX)?;
    if patching == Patching::Xor && patched_bytes == 0 {
        return Err(Error::damaged(object, 7, "nothing is patched"));
    }
    let raw_at = HEADER_BYTES + stored.len() + hashes;
    let coded_at = raw_at + raw_needed as usize;
    let coded_needed = plain_bytes + patched_bytes > 0;
    if raw_needed != raw_bytes || coded_needed != (coded_bytes > 0) || coded_at + coded_bytes != bytes.len() {
        return Err(Error::damaged(object, 24, "the streams are not what the parts need"));
    }
    let (raw, coded) = (raw_at..coded_at, coded_at..bytes.len());
    Ok(Frame { position, records, raw, coded, patching, patched_bytes, plain_bytes })
}

/// Offsets in errors are those of the decoded records, behind the header.
fn read_records(object: Object, bytes: &[u8], position: u64) -> Result<Vec<Record>> {
    let mut reader = Reader::new(object, bytes, HEADER_BYTES as u64);
    let mut records = Vec::new();
    let mut position = position;
    while reader.remaining() > 0 {
        let record = Record::read(&mut reader, object, position)?;
        position = position
            .checked_add(record.len_bytes())
            .ok_or_else(|| reader.damaged("the records reach behind every image"))?;
        records.push(record);
    }
    if records.is_empty() {
        return Err(reader.damaged("a frame has at least one record"));
    }
    Ok(records)
}

/// Gives each new chunk its hash; returns what follows the hashes.
fn read_hashes<'b>(object: Object, bytes: &'b [u8], records: &mut [Record]) -> Result<&'b [u8]> {
    let mut rest = bytes;
    for record in records {
        if let Record::New { chunks, .. } = record {
            for chunk in chunks {
                let (hash, after) = rest
                    .split_first_chunk::<32>()
                    .ok_or_else(|| Error::damaged(object, 16, "the hashes are longer than the frame"))?;
                chunk.hash = Hash::from_bytes(*hash);
                rest = after;
            }
        }
    }
    Ok(rest)
}

impl Record {
    /// New chunks; nothing for others.
    fn chunks(&self) -> &[Chunk] {
        match self {
            Record::New { chunks, .. } => chunks,
            Record::Copy { .. } | Record::Zero { .. } => &[],
        }
    }

    /// The parts of new chunks; nothing for others.
    pub(crate) fn parts(&self) -> &[Part] {
        match self {
            Record::New { parts, .. } => parts,
            Record::Copy { .. } | Record::Zero { .. } => &[],
        }
    }
}
