//! The bytes of a delta file: see FORMAT.md, "Delta file".

use std::{
    fs::File,
    io::{self, Write},
    os::unix::fs::FileExt,
};

use crate::{
    FrameIndex, Hash, Result, Spool,
    codec::Reader,
    error::{Error, Object},
    limits::FRAME_INDEX_BYTES_MAX,
};

const MAGIC: [u8; 4] = *b"fmDF";
const VERSION: u16 = 1;
const HEADER_BYTES: u64 = 8;
const END: [u8; 4] = *b"fmDE";
const TRAILER_BYTES: u64 = 40;

/// Writes a delta file front to back: frames, as they come, then the index and what it is found by.
pub struct DeltaWriter<W> {
    out: W,
    frames_bytes: u64,
}

impl<W: Write> DeltaWriter<W> {
    /// Begins a delta file in `out`. Frames follow: this is what [`encode`](crate::encode) writes to.
    pub fn new(mut out: W) -> Result<DeltaWriter<W>> {
        let header = [&MAGIC[..], &VERSION.to_le_bytes(), &[0; 2]].concat();
        out.write_all(&header).map_err(Error::io("write", Object::DeltaFile))?;
        Ok(DeltaWriter { out, frames_bytes: 0 })
    }

    /// Ends the file: the index that lists the frames written. Not durable yet; returns what it was written to, and its length.
    pub fn finish(mut self, index: &FrameIndex) -> Result<(W, u64)> {
        if index.frames_len_bytes() != self.frames_bytes {
            return Err(Error::Mismatch {
                object: Object::DeltaFile,
                reason: format!("{} bytes of frames, the index lists {}", self.frames_bytes, index.frames_len_bytes()),
            });
        }
        let encoded = index.encode();
        let mut end = Vec::with_capacity(encoded.len() + TRAILER_BYTES as usize);
        end.extend(&encoded);
        // FRAME_INDEX_BYTES_MAX bounds it: fits.
        end.extend((encoded.len() as u32).to_le_bytes());
        end.extend(Hash::of(&encoded).as_bytes());
        end.extend(END);
        self.out.write_all(&end).map_err(Error::io("write", Object::DeltaFile))?;
        self.out.flush().map_err(Error::io("write", Object::DeltaFile))?;
        Ok((self.out, HEADER_BYTES + self.frames_bytes + end.len() as u64))
    }
}

impl<W: Write> Write for DeltaWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.frames_bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Opens a delta file for [`plan`](crate::plan) and [`apply`](crate::apply). The index is verified here, each frame when it is read.
pub fn open_delta(file: File) -> Result<Spool> {
    let len_bytes = file.metadata().map_err(Error::io("stat", Object::DeltaFile))?.len();
    let damaged = |at, reason| Error::damaged(Object::DeltaFile, at, reason);
    let read = |at, len: u64| -> Result<Vec<u8>> {
        let mut bytes = vec![0; len as usize];
        file.read_exact_at(&mut bytes, at).map_err(Error::io("read", Object::DeltaFile))?;
        Ok(bytes)
    };
    let header = read(0, HEADER_BYTES.min(len_bytes))?;
    let mut reader = Reader::new(Object::DeltaFile, &header, 0);
    reader.opening(MAGIC, VERSION)?;
    if reader.u16()? != 0 {
        return Err(damaged(6, "the reserved field must be zero"));
    }
    let trailer_at = len_bytes
        .checked_sub(TRAILER_BYTES)
        .filter(|at| *at >= HEADER_BYTES)
        .ok_or_else(|| damaged(len_bytes, "it ends before its index"))?;
    let trailer = read(trailer_at, TRAILER_BYTES)?;
    let mut reader = Reader::new(Object::DeltaFile, &trailer, trailer_at);
    let (index_len, index_hash, end) = (u64::from(reader.u32()?), reader.hash()?, reader.array()?);
    if end != END {
        return Err(damaged(len_bytes - 4, "its end mark is missing: it was cut short, or something was added to it"));
    }
    reader.limit("length of the frame index", index_len, FRAME_INDEX_BYTES_MAX)?;
    let index_at = trailer_at
        .checked_sub(index_len)
        .filter(|at| *at >= HEADER_BYTES)
        .ok_or_else(|| damaged(trailer_at, "the frame index is longer than the file"))?;
    let encoded = read(index_at, index_len)?;
    let found = Hash::of(&encoded);
    if found != index_hash {
        return Err(Error::WrongHash {
            object: Object::DeltaFile,
            offset_bytes: index_at,
            expected: index_hash,
            found,
        });
    }
    let index = FrameIndex::decode(&encoded)?;
    if HEADER_BYTES + index.frames_len_bytes() != index_at {
        return Err(damaged(index_at, "the frames before the index are not as long as it lists"));
    }
    Ok(Spool::full_at(file, HEADER_BYTES, index))
}
