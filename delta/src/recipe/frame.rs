//! The bytes of a frame: see FORMAT.md, "Frame".

use std::{borrow::Cow, ops::Range};

use super::{
    Edit, Part, PartSource, Record, VerifiedFrame,
    body::{self, Compressor},
    edits,
    excerpt::{self, Excerpt},
};
use crate::{
    Chunk, Hash, Result,
    codec::Reader,
    error::{Error, Object},
    limits::{
        EDITS_BYTES_MAX, EXCERPTS_LISTED_BYTES_MAX, FRAME_CONTENT_BYTES_MAX, RECORDS_BYTES_MAX, ZSTD_LEVEL_SMALL,
    },
};

const MAGIC: [u8; 4] = *b"fmFR";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 56;
const RECORDS_PACKED: u8 = 1;
const EDITS_PACKED: u8 = 2;
const TEXT_PACKED: u8 = 4;
const EDITED_BEFORE: u8 = 8;
const EXCERPTS_PACKED: u8 = 16;

/// New bytes, as they are sent.
pub(super) struct Streams {
    pub(super) edits: Vec<Edit>,
    /// New bytes of edits that have a pattern.
    pub(super) text: Vec<u8>,
    /// The raw parts' bytes and those of the other edits.
    pub(super) raw: Vec<u8>,
    pub(super) coded: Vec<u8>,
    /// What of earlier frames stands before the coded stream.
    pub(super) excerpts: Vec<Excerpt>,
    /// The coded stream has the edited parts before it.
    pub(super) edited_before: bool,
}

/// A section that is compressed where that makes it shorter.
struct Packed {
    stored: Vec<u8>,
    len_bytes: usize,
}

impl Packed {
    fn of(bytes: Vec<u8>, compressor: &mut Compressor) -> Packed {
        let len_bytes = bytes.len();
        Packed { stored: compressor.zstd(&bytes, 0, ZSTD_LEVEL_SMALL).unwrap_or(bytes), len_bytes }
    }

    fn flag(&self, flag: u8) -> u8 {
        if self.stored.len() < self.len_bytes { flag } else { 0 }
    }
}

/// A frame as it is sent. Its records make the new image's bytes from `position` on.
pub(super) fn write_frame(position: u64, records: &[Record], streams: Streams, compressor: &mut Compressor) -> Vec<u8> {
    let (mut written, mut hashes) = (Vec::new(), Vec::new());
    let mut record_at = position;
    for record in records {
        record.write(record_at, &mut written);
        record_at += record.len_bytes();
        hashes.extend(record.chunks().iter().flat_map(|chunk| chunk.hash.as_bytes()));
    }
    let records = Packed::of(written, compressor);
    let edits = Packed::of(edits::write(&streams.edits), compressor);
    let text = Packed::of(streams.text, compressor);
    let excerpts = Packed::of(excerpt::write(&streams.excerpts), compressor);
    let sections =
        [&records.stored, &hashes, &edits.stored, &text.stored, &excerpts.stored, &streams.raw, &streams.coded];
    let mut frame = Vec::with_capacity(HEADER_BYTES + sections.iter().map(|section| section.len()).sum::<usize>());
    frame.extend(MAGIC);
    frame.extend(VERSION.to_le_bytes());
    let before = if streams.edited_before { EDITED_BEFORE } else { 0 };
    let packed = records.flag(RECORDS_PACKED) | edits.flag(EDITS_PACKED) | text.flag(TEXT_PACKED);
    frame.extend([packed | excerpts.flag(EXCERPTS_PACKED) | before, 0]);
    frame.extend(position.to_le_bytes());
    // FRAME_BYTES_MAX bounds each: fits.
    let lens =
        [&records, &edits, &text, &excerpts].into_iter().flat_map(|section| [section.stored.len(), section.len_bytes]);
    for len_bytes in lens.chain([streams.raw.len(), streams.coded.len()]) {
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
    /// What became of the edited parts.
    pub(crate) edits: Vec<Edit>,
    /// Their new bytes that have a pattern.
    pub(crate) text: Vec<u8>,
    /// What both take in the frame.
    pub(crate) edits_stored_bytes: u64,
    /// What of earlier frames stands before the coded stream.
    pub(crate) excerpts: Vec<Excerpt>,
    pub(crate) raw: Range<usize>,
    /// New bytes of edits without a pattern.
    pub(crate) noise: Range<usize>,
    pub(crate) coded: Range<usize>,
    /// The coded stream has the edited parts before it.
    pub(crate) edited_before: bool,
    /// What the coded stream holds: the patched parts, and the plain ones.
    pub(crate) patched_bytes: u64,
    pub(crate) plain_bytes: u64,
    /// All new bytes: these, the raw ones and those of the edited parts.
    pub(crate) new_bytes: u64,
}

/// Reads the records and edits of a frame. Streams are located and held against the parts that need them, not decoded.
pub(crate) fn read_frame(frame: &VerifiedFrame) -> Result<Frame> {
    let object = Object::Frame(frame.number());
    let bytes = frame.bytes();
    let mut reader = Reader::new(object, bytes, 0);
    reader.opening(MAGIC, VERSION)?;
    let packed = reader.u8()?;
    if packed & !(RECORDS_PACKED | EDITS_PACKED | TEXT_PACKED | EDITED_BEFORE | EXCERPTS_PACKED) != 0 {
        return Err(Error::damaged(object, 6, "there is no such packing"));
    }
    if reader.u8()? != 0 {
        return Err(Error::damaged(object, 7, "the reserved field must be zero"));
    }
    let position = reader.u64()?;
    let (records, edits) = ([reader.u32()?, reader.u32()?], [reader.u32()?, reader.u32()?]);
    let (text, excerpts) = ([reader.u32()?, reader.u32()?], [reader.u32()?, reader.u32()?]);
    let (raw_bytes, coded_bytes) = (u64::from(reader.u32()?), reader.u32()? as usize);
    reader.limit("length of the records", u64::from(records[1]), u64::from(RECORDS_BYTES_MAX))?;
    reader.limit("length of the edits", u64::from(edits[1]), u64::from(EDITS_BYTES_MAX))?;
    reader.limit("length of the edits' text", u64::from(text[1]), FRAME_CONTENT_BYTES_MAX)?;
    reader.limit("length of the excerpts", u64::from(excerpts[1]), u64::from(EXCERPTS_LISTED_BYTES_MAX))?;
    let section = |at: usize, lens: [u32; 2], flag: u8| section(object, bytes, at, lens, packed & flag != 0);

    let records_end = HEADER_BYTES + records[0] as usize;
    let mut records = read_records(object, &section(HEADER_BYTES, records, RECORDS_PACKED)?, position)?;
    let rest = bytes.get(records_end..).unwrap_or_default();
    let edits_at = bytes.len() - read_hashes(object, rest, &mut records)?.len();
    let content = |wanted: fn(PartSource) -> bool| -> u64 {
        let parts = records.iter().flat_map(Record::parts).filter(|part| wanted(part.source));
        parts.map(|part| u64::from(part.len_bytes)).sum()
    };
    let plain_bytes = content(|source| source == PartSource::Plain);
    let patched_bytes = content(|source| matches!(source, PartSource::Patched(_)));
    let edited_bytes = content(|source| matches!(source, PartSource::Edited(_)));
    let raw_needed = content(|source| source == PartSource::Raw);
    let new_bytes = raw_needed + plain_bytes + patched_bytes + edited_bytes;
    reader.limit("new bytes of a frame", new_bytes, FRAME_CONTENT_BYTES_MAX)?;

    let text_at = edits_at + edits[0] as usize;
    let excerpts_at = text_at + text[0] as usize;
    let raw_at = excerpts_at + excerpts[0] as usize;
    let edits = edits::read(&section(edits_at, edits, EDITS_PACKED)?, edited_bytes)
        .map_err(|reason| Error::damaged(object, edits_at as u64, reason))?;
    let text = section(text_at, text, TEXT_PACKED)?.into_owned();
    let excerpts = excerpt::read(&section(excerpts_at, excerpts, EXCERPTS_PACKED)?, new_bytes)
        .map_err(|reason| Error::damaged(object, excerpts_at as u64, reason))?;
    let of_edits = |is_noise: bool| -> u64 {
        let edits = edits.iter().filter(|edit| edit.is_noise == is_noise);
        edits.map(|edit| u64::from(edit.len_bytes)).sum()
    };
    if of_edits(false) != text.len() as u64 {
        return Err(Error::damaged(object, text_at as u64, "the edits' text is not what the edits need"));
    }
    let noise_at = raw_at + raw_needed as usize;
    let coded_at = noise_at + of_edits(true) as usize;
    let coded_needed = plain_bytes + patched_bytes > 0;
    if raw_at as u64 + raw_bytes != coded_at as u64
        || coded_needed != (coded_bytes > 0)
        || coded_at + coded_bytes != bytes.len()
    {
        return Err(Error::damaged(object, 48, "the streams are not what the parts need"));
    }
    if !excerpts.is_empty() && !coded_needed {
        return Err(Error::damaged(object, excerpts_at as u64, "there are excerpts and no coded stream"));
    }
    let edited_before = packed & EDITED_BEFORE != 0;
    if edited_before && (edited_bytes == 0 || !coded_needed) {
        return Err(Error::damaged(object, 6, "there is nothing before the coded stream, or no such stream"));
    }
    Ok(Frame {
        position,
        records,
        edits,
        text,
        edits_stored_bytes: (excerpts_at - edits_at) as u64,
        excerpts,
        raw: raw_at..noise_at,
        noise: noise_at..coded_at,
        coded: coded_at..bytes.len(),
        edited_before,
        patched_bytes,
        plain_bytes,
        new_bytes,
    })
}

/// A section, unpacked. Its length was held against a limit.
fn section(
    object: Object,
    frame: &[u8],
    at: usize,
    [stored, len_bytes]: [u32; 2],
    is_packed: bool,
) -> Result<Cow<'_, [u8]>> {
    let damaged = |reason| Error::damaged(object, at as u64, reason);
    let stored = frame.get(at..).and_then(|rest| rest.get(..stored as usize));
    let stored = stored.ok_or_else(|| damaged("a section is longer than the frame"))?;
    match is_packed {
        true => Ok(Cow::Owned(body::unzstd(stored, &[], len_bytes as usize).map_err(damaged)?)),
        false if stored.len() == len_bytes as usize => Ok(Cow::Borrowed(stored)),
        false => Err(damaged("a section is not as long as the header says")),
    }
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
