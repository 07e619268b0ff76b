//! The bytes of a frame: see FORMAT.md, "Frame".

use std::io::Write;

use super::{FrameRef, Record, VerifiedFrame};
use crate::{
    Hash, Result,
    codec::Reader,
    error::{Error, Object},
    limits::FRAME_BYTES_TARGET,
};

const MAGIC: [u8; 4] = *b"fmFR";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 20;

/// Gathers records and bodies and closes a frame whenever it is full.
pub(super) struct FrameWriter<'a> {
    out: &'a mut dyn Write,
    image_offset: u64,
    records: Vec<u8>,
    bodies: Vec<u8>,
    frames: Vec<FrameRef>,
}

impl<'a> FrameWriter<'a> {
    pub(super) fn new(out: &'a mut dyn Write) -> FrameWriter<'a> {
        FrameWriter { out, image_offset: 0, records: Vec::new(), bodies: Vec::new(), frames: Vec::new() }
    }

    /// Adds a record that makes the bytes of the new image from `image_offset` on. Returns what it costs on the wire.
    pub(super) fn add(&mut self, image_offset: u64, record: &Record, body: &[u8]) -> Result<u64> {
        if self.records.is_empty() {
            self.image_offset = image_offset;
        }
        let before = self.len();
        record.write(&mut self.records);
        self.bodies.extend(body);
        let cost = self.len() - before;
        if self.len() >= FRAME_BYTES_TARGET {
            self.close()?;
        }
        Ok(cost as u64)
    }

    /// Closes the last frame and returns the list of all.
    pub(super) fn finish(mut self) -> Result<Vec<FrameRef>> {
        if !self.records.is_empty() {
            self.close()?;
        }
        self.out.flush().map_err(Error::io("write frames to", Object::Spool))?;
        Ok(self.frames)
    }

    fn len(&self) -> usize {
        self.records.len() + self.bodies.len()
    }

    fn close(&mut self) -> Result<()> {
        let mut frame = Vec::with_capacity(HEADER_BYTES + self.len());
        frame.extend(MAGIC);
        frame.extend(VERSION.to_le_bytes());
        frame.extend([0; 2]);
        frame.extend(self.image_offset.to_le_bytes());
        frame.extend((self.records.len() as u32).to_le_bytes());
        frame.append(&mut self.records);
        frame.append(&mut self.bodies);
        self.out.write_all(&frame).map_err(Error::io("write frames to", Object::Spool))?;
        self.frames.push(FrameRef { hash: Hash::of(&frame), len_bytes: frame.len() as u32 });
        Ok(())
    }
}

/// A record, where it stands in its frame, and what it costs with its body.
pub(crate) struct Located {
    pub(crate) at: u64,
    pub(crate) wire_bytes: u64,
    pub(crate) record: Record,
}

/// The records of a frame, and where in the new image the first of them begins. Bodies are located, not decoded.
pub(crate) fn read_frame(frame: &VerifiedFrame) -> Result<(u64, Vec<Located>)> {
    let object = Object::Frame(frame.number());
    let bytes = frame.bytes();
    let mut reader = Reader::new(object, bytes, 0);
    reader.opening(MAGIC, VERSION)?;
    if reader.u16()? != 0 {
        return Err(reader.damaged("the reserved field must be zero"));
    }
    let image_offset = reader.u64()?;
    let records_len = reader.u32()? as usize;
    let records = bytes
        .get(HEADER_BYTES..)
        .and_then(|rest| rest.get(..records_len))
        .ok_or_else(|| reader.damaged("the records are longer than the frame"))?;

    let mut reader = Reader::new(object, records, HEADER_BYTES as u64);
    let mut next_body = HEADER_BYTES + records_len;
    let mut list = Vec::new();
    while reader.remaining() > 0 {
        let at = reader.offset_bytes();
        let body_start = next_body;
        let record = Record::read(&mut reader, object, body_start as u32)?;
        if let Record::Body { body, .. } = &record {
            next_body += body.len_bytes as usize;
        }
        if next_body > bytes.len() {
            return Err(Error::damaged(object, at, "a body leaves the frame"));
        }
        list.push(Located { at, wire_bytes: reader.offset_bytes() - at + (next_body - body_start) as u64, record });
    }
    if next_body != bytes.len() {
        return Err(Error::damaged(object, next_body as u64, "bytes follow the last body"));
    }
    if list.is_empty() {
        return Err(reader.damaged("a frame has at least one record"));
    }
    Ok((image_offset, list))
}
