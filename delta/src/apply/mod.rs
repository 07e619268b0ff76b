mod content;
mod merge;
mod probe;
mod pwrite;
mod uring;

use std::{fs::File, sync::mpsc, thread};

pub use probe::Engine;

use crate::{
    Extent, Image, Plan, Result, Spool,
    apply::{
        content::{Content, Piece},
        merge::Merger,
    },
    error::{Error, Object},
    recipe::Earlier,
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

/// Makes `out` the new image, and durable. With bases, `out` already holds the first one's bytes (see [`clone_image`](crate::clone_image)); without, it is empty.
///
/// Each byte that is written is verified by its chunk's hash first. Chunks that are kept are *not* read: run [`verify_image`](crate::verify_image) before
/// they are relied on. After an error `out` is good for nothing. `progress(done_bytes, total_bytes)` counts bytes of the new image.
pub fn apply(
    plan: &Plan,
    spool: &Spool,
    bases: &[&Image],
    out: &File,
    engine: Engine,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Applied> {
    let lens_bytes: Vec<u64> = bases.iter().map(|base| base.len_bytes()).collect();
    let out_len_bytes = out.metadata().map_err(Error::io("stat", Object::Output))?.len();
    if lens_bytes != plan.base_lens_bytes() || out_len_bytes != lens_bytes.first().copied().unwrap_or(0) {
        return Err(Error::Mismatch {
            object: Object::Output,
            reason: format!(
                "it has {out_len_bytes} bytes, the bases {lens_bytes:?}, the plan wants {:?}, and of the output the first",
                plan.base_lens_bytes()
            ),
        });
    }
    let total_bytes = plan.manifest().image_len_bytes();
    out.set_len(total_bytes).map_err(Error::io("set the length of", Object::Output))?;

    let (mut writer, engine, fell_back) = open(out, engine)?;
    let mut merger = Merger::new(writer.as_mut(), out, bases.first().copied());
    let mut chunks = plan.manifest().chunks();
    let mut done_bytes = 0;
    // One frame is decoded while the one before it is checked and written. In memory are no more than three, and the content that the next ones may refer to.
    thread::scope(|scope| -> Result<()> {
        let (decoded, next) = mpsc::sync_channel(1);
        scope.spawn(move || {
            let mut earlier = Earlier::default();
            let frames = (0..spool.index().frames.len() as u32)
                .map(|number| spool.read(number).and_then(|frame| Content::decode(frame, bases, &mut earlier)));
            for content in frames {
                let is_last = content.is_err();
                if decoded.send(content).is_err() || is_last {
                    break;
                }
            }
        });
        for content in next {
            let made = content?.each(chunks, &mut |piece| match piece {
                Piece::Data(offset, bytes) => merger.data(offset, bytes),
                Piece::Zero(extent) => merger.zero(extent),
            })?;
            let (passed, rest) = chunks.split_at(made);
            done_bytes += passed.iter().map(|chunk| u64::from(chunk.len_bytes)).sum::<u64>();
            chunks = rest;
            // What was looked at need not stay in memory.
            for base in bases {
                base.release(Extent::new(0, base.len_bytes()));
            }
            progress(done_bytes, total_bytes);
        }
        Ok(())
    })?;
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
