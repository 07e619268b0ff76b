use std::io::Write;

use super::{
    BodyPlace, Coding, FrameIndex, Record, Share, Totals,
    body::Encoder,
    frame::FrameWriter,
    source::{Source, Step, Steps},
};
use crate::{Extent, Image, Manifest, Result, error::Object, limits::BODIES_IN_FLIGHT, parallel};

/// Runs that are looked at together; most are of chunks that stay and cost nothing.
const STEPS_IN_FLIGHT: usize = 1024;

/// What [`encode`] made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// The frames, for the commit and for those who fetch them.
    pub index: FrameIndex,
    /// What the new image is made of.
    pub totals: Totals,
}

/// Encodes `new` against a base, or in full, into frames that are appended to `out` back to back. The manifests must be those of the images.
///
/// `progress(done_bytes, total_bytes)` counts bytes of the new image. Memory is bounded by `BODIES_IN_FLIGHT` bodies.
pub fn encode(
    base: Option<(&Image, &Manifest)>,
    new: &Image,
    new_manifest: &Manifest,
    out: &mut dyn Write,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Encoded> {
    new_manifest.fits(Object::Image, new)?;
    if let Some((image, manifest)) = base {
        manifest.fits(Object::Base, image)?;
    }
    let base_image = base.map(|(image, _)| image);
    let mut steps = Steps::new(base.map(|(_, manifest)| manifest), new, new_manifest);
    let mut writer = FrameWriter::new(out);
    let mut totals = Totals::default();
    loop {
        let batch = take_batch(&mut steps);
        let Some(last) = batch.last() else { break };
        let bodies: Vec<&Step> = batch.iter().filter(|step| is_new(step)).collect();
        let mut coded = parallel::map(
            bodies.len(),
            || (Encoder::new(), Vec::new()),
            |(encoder, scratch), number| Ok(code(encoder, scratch, base_image, new, bodies[number].extent)),
        )?
        .into_iter();
        for step in &batch {
            let (record, body) = match step.source {
                Source::Base { start } => {
                    let from = Extent::new(start, start + step.extent.len_bytes());
                    (Record::Copy { from }, Vec::new())
                }
                Source::Zero { chunk_bytes } => {
                    let count = step.chunks;
                    (Record::Zero { chunk_bytes, count }, Vec::new())
                }
                Source::New { first } => {
                    let (coding, bytes) = coded.next().expect("each new run was coded");
                    let chunks = new_manifest.chunks().iter().skip(first);
                    let body = BodyPlace { coding, start: 0, len_bytes: bytes.len() as u32 };
                    let chunks = chunks.take(step.chunks as usize).copied().collect();
                    (Record::Body { chunks, body }, bytes)
                }
            };
            *share(&mut totals, step, &record) += Share {
                chunks: u64::from(step.chunks),
                image_bytes: step.extent.len_bytes(),
                wire_bytes: writer.add(step.extent.start, &record, &body)?,
            };
        }
        progress(last.extent.end, new.len_bytes());
    }
    Ok(Encoded {
        index: FrameIndex {
            base_root: base.map(|(_, manifest)| manifest.root()),
            new_root: new_manifest.root(),
            image_len_bytes: new.len_bytes(),
            frames: writer.finish()?,
        },
        totals,
    })
}

fn is_new(step: &Step) -> bool {
    matches!(step.source, Source::New { .. })
}

fn take_batch(steps: &mut Steps<'_>) -> Vec<Step> {
    let mut bodies = 0;
    let mut batch = Vec::new();
    while bodies < BODIES_IN_FLIGHT && batch.len() < STEPS_IN_FLIGHT {
        let Some(step) = steps.next() else { break };
        bodies += usize::from(is_new(&step));
        batch.push(step);
    }
    batch
}

/// Codes new bytes: against the data that the base has at the same place, if that is anything but zeros; as they are, if they do not shrink.
fn code<'a>(
    encoder: &mut Encoder<'a>,
    scratch: &mut Vec<u8>,
    base: Option<&'a Image>,
    new: &Image,
    extent: Extent,
) -> (Coding, Vec<u8>) {
    let bytes = new.read(extent, scratch).unwrap_or_default();
    let prefix = base.and_then(|base| {
        let there = base.data_within(extent)?;
        if base.is_zero(there) {
            return None;
        }
        Some((there, base.get(there)?))
    });
    let coding = match prefix {
        Some((there, _)) => Coding::ZstdPrefix(there),
        None => Coding::Zstd,
    };
    match encoder.zstd(bytes, prefix.map(|(_, bytes)| bytes)) {
        Some(body) => (coding, body),
        None => (Coding::Raw, bytes.to_vec()),
    }
}

fn share<'t>(totals: &'t mut Totals, step: &Step, record: &Record) -> &'t mut Share {
    match record {
        Record::Copy { from } if from.start == step.extent.start => &mut totals.keep,
        Record::Copy { .. } => &mut totals.copy,
        Record::Zero { .. } => &mut totals.zero,
        Record::Body { body, .. } => match body.coding {
            Coding::Raw => &mut totals.raw,
            Coding::Zstd => &mut totals.zstd,
            Coding::ZstdPrefix(_) => &mut totals.zstd_prefix,
        },
    }
}
