mod merge;
mod probe;
mod pwrite;
mod uring;

use std::fs::File;

pub use probe::Engine;

use crate::{
    Chunk, Extent, Hash, Image, Operation, OperationKind, Plan, Result, Spool, VerifiedFrame,
    apply::merge::Merger,
    error::{Error, Object},
    recipe::{Coding, Decoder},
};

/// Takes writes in ascending order and carries them out.
trait Writer {
    /// An empty buffer, used before if possible.
    fn buffer(&mut self) -> Vec<u8>;

    /// Writes all of `bytes` at `offset`, at once or later. The first error may come with a later call.
    fn write(&mut self, offset: u64, bytes: Vec<u8>) -> Result<()>;

    /// Waits until all is written, then makes it durable: the one fsync. Returns what was asked of the system.
    fn finish(&mut self) -> Result<Calls>;
}

/// Calls counted where they are made.
#[derive(Debug, Clone, Copy, Default)]
struct Calls {
    writes: u64,
    fsyncs: u64,
}

/// What a rebuild did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Bytes written.
    pub bytes_written: u64,
    /// Writes issued, after merging.
    pub writes: u64,
    /// Holes punched.
    pub holes_punched: u64,
    /// Calls of fsync.
    pub fsyncs: u64,
    /// What carried out the writes.
    pub engine: Engine,
    /// Why it was not the engine asked for, if it was not.
    pub fell_back: Option<String>,
}

/// Makes `out` the new image, and durable. With a base, `out` already holds the base's bytes (see [`clone_image`](crate::clone_image)); without, it is empty.
///
/// Each byte that is written is verified by its chunk's hash first. Bytes that are kept are *not* read: run [`verify_image`](crate::verify_image) before
/// they are relied on. After an error `out` is good for nothing. `progress(done_bytes, total_bytes)` counts bytes of the new image.
pub fn apply(
    plan: &Plan,
    spool: &Spool,
    base: Option<&Image>,
    out: &File,
    engine: Engine,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Applied> {
    let base_len_bytes = base.map(Image::len_bytes);
    let out_len_bytes = out.metadata().map_err(Error::io("stat", Object::Output))?.len();
    if base_len_bytes != plan.base_len_bytes() || out_len_bytes != base_len_bytes.unwrap_or(0) {
        return Err(Error::Mismatch {
            object: Object::Output,
            reason: format!(
                "it has {out_len_bytes} bytes, the base {base_len_bytes:?}, the plan wants {:?} of both",
                plan.base_len_bytes()
            ),
        });
    }
    let total_bytes = plan.manifest().image_len_bytes();
    out.set_len(total_bytes).map_err(Error::io("set the length of", Object::Output))?;

    let (mut writer, engine, fell_back) = open(out, engine)?;
    let mut merger = Merger::new(writer.as_mut(), out, base);
    let mut source = Bytes { base, spool, frame: None, decoder: Decoder::new(), decoded: Vec::new() };
    for operation in plan.operations() {
        match operation.kind {
            OperationKind::Keep => {}
            OperationKind::Zero => merger.zero(operation.extent)?,
            OperationKind::Copy { .. } | OperationKind::Write { .. } => {
                source.check(plan, operation, &mut |offset, bytes| merger.data(offset, bytes))?;
            }
        }
        progress(operation.extent.end, total_bytes);
    }
    let merged = merger.finish()?;
    Ok(Applied {
        bytes_written: merged.bytes_written,
        writes: merged.calls.writes,
        holes_punched: merged.holes_punched,
        fsyncs: merged.calls.fsyncs,
        engine,
        fell_back,
    })
}

type Opened<'a> = (Box<dyn Writer + 'a>, Engine, Option<String>);

fn open(out: &File, engine: Engine) -> Result<Opened<'_>> {
    if engine == Engine::Uring {
        match uring::Uring::new(out) {
            Ok(ring) => return Ok((Box::new(ring), Engine::Uring, None)),
            // The probe said yes, and now a limit says no: the reference does the same work.
            Err(error) => {
                let pwrite = Box::new(pwrite::Pwrite::new(out));
                return Ok((pwrite, Engine::Pwrite, Some(error.to_string())));
            }
        }
    }
    Ok((Box::new(pwrite::Pwrite::new(out)), Engine::Pwrite, None))
}

/// Where new bytes come from. One frame and one decoded body, or one chunk of the base, are in memory.
struct Bytes<'a> {
    base: Option<&'a Image>,
    spool: &'a Spool,
    frame: Option<VerifiedFrame>,
    decoder: Decoder<'a>,
    decoded: Vec<u8>,
}

impl Bytes<'_> {
    /// Fetches the bytes of an operation and passes on each chunk whose hash is right.
    fn check(
        &mut self,
        plan: &Plan,
        operation: &Operation,
        pass_on: &mut dyn FnMut(u64, &[u8]) -> Result<()>,
    ) -> Result<()> {
        if let OperationKind::Write { frame } = operation.kind {
            self.decode(frame, operation)?;
        }
        let chunks = plan.manifest().chunks().get(operation.chunks.clone());
        let mut done_bytes = 0;
        for Chunk { hash, len_bytes } in chunks.unwrap_or_default() {
            let end = done_bytes + u64::from(*len_bytes);
            let (object, place, bytes) = match operation.kind {
                OperationKind::Copy { from } => {
                    let there = Extent::new(from + done_bytes, from + end);
                    let bytes = self.base.and_then(|base| base.read(there, &mut self.decoded));
                    (Object::Base, there.start, bytes)
                }
                OperationKind::Write { frame } => {
                    let place = operation.body.map_or(0, |body| u64::from(body.start));
                    (Object::Frame(frame), place, self.decoded.get(done_bytes as usize..end as usize))
                }
                OperationKind::Keep | OperationKind::Zero => return Ok(()),
            };
            let bytes = bytes.ok_or_else(|| Error::damaged(object, place, "it ends in the middle of a chunk"))?;
            let found = Hash::of(bytes);
            if found != *hash {
                return Err(Error::WrongHash { object, offset_bytes: place, expected: *hash, found });
            }
            pass_on(operation.extent.start + done_bytes, bytes)?;
            done_bytes = end;
        }
        Ok(())
    }

    /// Decodes the body of a write into `self.decoded`.
    fn decode(&mut self, frame: u32, operation: &Operation) -> Result<()> {
        if self.frame.as_ref().map(VerifiedFrame::number) != Some(frame) {
            self.frame = Some(self.spool.read(frame)?);
        }
        let (Some(frame_bytes), Some(body)) = (&self.frame, operation.body) else {
            return Ok(());
        };
        let start = body.start as usize;
        let damaged = |reason| Error::damaged(Object::Frame(frame), u64::from(body.start), reason);
        let coded = frame_bytes
            .bytes()
            .get(start..start + body.len_bytes as usize)
            .ok_or_else(|| damaged("the body leaves the frame"))?;
        let prefix = match body.coding {
            Coding::Raw => {
                self.decoded.clear();
                self.decoded.extend(coded);
                return Ok(());
            }
            Coding::Zstd => None,
            Coding::ZstdPrefix(there) => {
                let bytes = self.base.and_then(|base| base.get(there));
                Some(bytes.ok_or_else(|| damaged("the prefix leaves the base"))?)
            }
        };
        let len_bytes = operation.extent.len_bytes() as usize;
        self.decoder.zstd(coded, prefix, len_bytes, &mut self.decoded).map_err(damaged)
    }
}
