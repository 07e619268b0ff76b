use std::{ops::Range, sync::Arc};

use crate::{
    Chunk, Extent, Hash, Image, Result, VerifiedFrame,
    base::Place,
    error::{Error, Object},
    recipe::{
        EXCERPT_TOO_FAR, Earlier, Frame, PartSource, Record, apply_edits, edited, patched, read_frame, references,
        unzstd,
    },
};

/// A frame whose streams are decoded, ready to be taken apart. Of a delta, this and what later frames may refer to is in memory.
pub(super) struct Content<'a> {
    number: u32,
    bases: &'a [&'a Image],
    frame: Frame,
    /// The new bytes, in their order in the image.
    new: Arc<Vec<u8>>,
}

/// Verified bytes for the new image, in ascending order.
pub(super) enum Piece<'b> {
    /// Take over these.
    Data(u64, &'b [u8]),
    /// Zeros, as a hole if possible.
    Zero(Extent),
}

impl<'a> Content<'a> {
    /// Reads and decodes the frame after those whose content is in `earlier`, and adds its own.
    pub(super) fn decode(frame: VerifiedFrame, bases: &'a [&'a Image], earlier: &mut Earlier) -> Result<Content<'a>> {
        let number = frame.number();
        let read = read_frame(&frame)?;
        let bytes = frame.bytes();
        let mut edited = references(bases, read.records.iter(), edited);
        let noise = bytes.get(read.noise.clone()).unwrap_or_default();
        apply_edits(&read.edits, &mut edited, noise, &read.text);
        let coded = match (read.patched_bytes + read.plain_bytes) as usize {
            0 => Vec::new(),
            content_bytes => {
                let old = references(bases, read.records.iter(), patched);
                let edited_before: &[u8] = if read.edited_before { &edited } else { &[] };
                let excerpts_bytes: usize = read.excerpts.iter().map(|excerpt| excerpt.len_bytes as usize).sum();
                let mut before = Vec::with_capacity(excerpts_bytes + edited_before.len() + old.len());
                for excerpt in &read.excerpts {
                    earlier.add(*excerpt, &mut before).ok_or(Error::damaged(
                        Object::Frame(number),
                        40,
                        EXCERPT_TOO_FAR,
                    ))?;
                }
                before.extend(edited_before);
                before.extend(old);
                unzstd(bytes.get(read.coded.clone()).unwrap_or_default(), &before, content_bytes)
                    .map_err(|reason| Error::damaged(Object::Frame(number), read.coded.start as u64, reason))?
            }
        };
        let raw = bytes.get(read.raw.clone()).unwrap_or_default();
        let new = Arc::new(in_order(&read, raw, &coded, &edited));
        earlier.push(Arc::clone(&new));
        Ok(Content { number, bases, frame: read, new })
    }

    /// Goes through the frame's records. Each new or copied chunk is passed on once its hash is right; what is kept is not passed on. `chunks` are those of the
    /// new manifest from the frame's first on; returns how many the frame makes.
    pub(super) fn each(&self, chunks: &[Chunk], pass_on: &mut dyn FnMut(Piece<'_>) -> Result<()>) -> Result<usize> {
        let mut next = 0;
        let mut used = 0;
        let mut position = self.frame.position;
        for record in &self.frame.records {
            let end = position + record.len_bytes();
            let first = next;
            let mut chunk_at = position;
            while chunk_at < end
                && let Some(chunk) = chunks.get(next)
            {
                chunk_at += u64::from(chunk.len_bytes);
                next += 1;
            }
            let made = chunks.get(first..next).unwrap_or_default();
            match record {
                Record::Zero { .. } => pass_on(Piece::Zero(Extent::new(position, end)))?,
                Record::Copy { from, .. } if from.is_kept_at(position) => {}
                Record::Copy { from, .. } => self.copied(*from, position, made, pass_on)?,
                Record::New { .. } => self.new_chunks(record, position, made, &mut used, pass_on)?,
            }
            position = end;
        }
        Ok(next)
    }

    fn copied(
        &self,
        from: Place,
        position: u64,
        chunks: &[Chunk],
        pass_on: &mut dyn FnMut(Piece<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut done_bytes = 0;
        let mut scratch = Vec::new();
        for chunk in chunks {
            let there = from.forward(done_bytes);
            let bytes = self.base(there, u64::from(chunk.len_bytes), &mut scratch)?;
            check(chunk, bytes, Object::Base, there.start)?;
            pass_on(Piece::Data(position + done_bytes, bytes))?;
            done_bytes += u64::from(chunk.len_bytes);
        }
        Ok(())
    }

    /// Puts each chunk together from its parts, checks it, and passes on what is not kept of it. `used` counts the new bytes that went into chunks.
    fn new_chunks(
        &self,
        record: &Record,
        position: u64,
        chunks: &[Chunk],
        used: &mut usize,
        pass_on: &mut dyn FnMut(Piece<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut parts = record.parts().iter().copied();
        let mut part = parts.next();
        let mut scratch = Vec::new();
        let mut made = Vec::new();
        let mut chunk_at = position;
        for chunk in chunks {
            made.clear();
            let mut pieces: Vec<(Range<usize>, PieceKind)> = Vec::new();
            while made.len() < chunk.len_bytes as usize
                && let Some(current) = &mut part
            {
                let at = chunk_at + made.len() as u64;
                let len_bytes = current.len_bytes.min(chunk.len_bytes - made.len() as u32);
                let start = made.len();
                let kind = match current.source {
                    PartSource::Zero => {
                        made.resize(start + len_bytes as usize, 0);
                        PieceKind::Zero
                    }
                    PartSource::Copy(place) => {
                        made.extend(self.base(place, u64::from(len_bytes), &mut scratch)?);
                        if place.is_kept_at(at) { PieceKind::Kept } else { PieceKind::Data }
                    }
                    PartSource::Raw | PartSource::Plain | PartSource::Patched(_) | PartSource::Edited(_) => {
                        take(&self.new, used, len_bytes, &mut made);
                        PieceKind::Data
                    }
                };
                pieces.push((start..made.len(), kind));
                if let PartSource::Copy(place) = &mut current.source {
                    *place = place.forward(u64::from(len_bytes));
                }
                current.len_bytes -= len_bytes;
                if current.len_bytes == 0 {
                    part = parts.next();
                }
            }
            check(chunk, &made, Object::Frame(self.number), chunk_at)?;
            for (range, kind) in pieces {
                let extent = Extent::new(chunk_at + range.start as u64, chunk_at + range.end as u64);
                match kind {
                    PieceKind::Kept => {}
                    PieceKind::Zero => pass_on(Piece::Zero(extent))?,
                    PieceKind::Data => pass_on(Piece::Data(extent.start, made.get(range).unwrap_or_default()))?,
                }
            }
            chunk_at += u64::from(chunk.len_bytes);
        }
        Ok(())
    }

    fn base<'s>(&'s self, place: Place, len_bytes: u64, scratch: &'s mut Vec<u8>) -> Result<&'s [u8]> {
        let there = Extent::new(place.start, place.start + len_bytes);
        let image = self.bases.get(usize::from(place.base));
        image
            .and_then(|image| image.read(there, scratch))
            .ok_or_else(|| Error::damaged(Object::Base, place.start, "it ends in the middle of a chunk"))
    }
}

enum PieceKind {
    Kept,
    Zero,
    Data,
}

/// The new bytes of a frame's streams, as its parts want them.
fn in_order(frame: &Frame, raw: &[u8], coded: &[u8], edited: &[u8]) -> Vec<u8> {
    let (patched, plain) = coded.split_at(frame.patched_bytes as usize);
    let mut streams = [(raw, 0), (plain, 0), (patched, 0), (edited, 0)];
    let mut new = Vec::with_capacity(frame.new_bytes as usize);
    for part in frame.records.iter().flat_map(Record::parts) {
        let stream = match part.source {
            PartSource::Zero | PartSource::Copy(_) => continue,
            PartSource::Raw => &mut streams[0],
            PartSource::Plain => &mut streams[1],
            PartSource::Patched(_) => &mut streams[2],
            PartSource::Edited(_) => &mut streams[3],
        };
        take(stream.0, &mut stream.1, part.len_bytes, &mut new);
    }
    new
}

/// Appends the next bytes of a stream. That it has them was checked when the frame was read.
fn take(stream: &[u8], at: &mut usize, len_bytes: u32, out: &mut Vec<u8>) {
    let end = *at + len_bytes as usize;
    out.extend(stream.get(*at..end).unwrap_or_default());
    *at = end;
}

/// `offset_bytes` is where the bytes stand in `object`, or for a frame where in the new image.
fn check(chunk: &Chunk, bytes: &[u8], object: Object, offset_bytes: u64) -> Result<()> {
    let found = Hash::of(bytes);
    match found == chunk.hash {
        true => Ok(()),
        false => Err(Error::WrongHash { object, offset_bytes, expected: chunk.hash, found }),
    }
}
