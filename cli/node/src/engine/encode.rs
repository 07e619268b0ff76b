//! Frames for the targets, each encoding made once however many targets fetch it.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use form_delta::{Encoded, Extent, Hash, Image, Manifest};
use form_proto::Member;
use form_transport::ArtifactKind;

use super::attempt::Attempt;
use super::build::delta;
use super::capture::Frozen;
use super::layout::create_file;
use super::node::{EncodingKey, Outgoing};
use super::{Node, bases, blocking};
use crate::api::types::ArtifactSummary;
use crate::error::ApiError;

/// The frames of each encoding, and what they are.
pub(crate) type Encodings = HashMap<EncodingKey, (PathBuf, Encoded)>;

/// Encodes every frozen image against its base for the targets that hold it, in full for those that don't.
pub(crate) async fn encode(
    node: &Arc<Node>,
    attempt: &Arc<Attempt>,
    cluster: &str,
    staging: &Path,
    frozen: &[Frozen],
) -> Result<Encodings, ApiError> {
    let mut wanted = BTreeSet::new();
    for (number, f) in frozen.iter().enumerate() {
        for member in 1..attempt.members.len() {
            wanted.insert((number, base_for(attempt, member_number(member), f.base_root)));
        }
    }
    let others = common_bases(attempt, frozen);
    let tasks: Vec<_> = wanted
        .into_iter()
        .filter_map(|(number, base)| frozen.get(number).map(|f| (f, base)))
        .map(|(f, base_root)| {
            let (layout, cluster, events) = (node.layout.clone(), cluster.to_owned(), attempt.events.clone());
            let (name, path, manifest, changed) =
                (f.name.clone(), f.path.clone(), f.manifest.clone(), f.changed.clone().unwrap_or_default());
            let frames = staging.join(format!("{name}.{}.frames", base_root.map_or("full".into(), |r| r.to_string())));
            let others: Vec<_> = others.iter().copied().filter(|root| Some(*root) != base_root).collect();
            blocking("encode what changed", move || {
                let image = Image::open(&path).map_err(|e| delta(&name, e))?;
                let bases: Vec<_> = match base_root.and_then(|root| bases::open(&layout, &cluster, root)) {
                    Some(own) => std::iter::once(own)
                        .chain(others.into_iter().filter_map(|root| bases::open(&layout, &cluster, root)))
                        .collect(),
                    None => Vec::new(),
                };
                let phase = format!("encode {name}");
                let mut progress = |done, total| events.bytes(None, &phase, done, total);
                let new = New { name: &name, image: &image, manifest: &manifest, changed: &changed };
                let encoded = encode_one(&new, &bases, &frames, &mut progress)?;
                Ok(((name, base_root.map(|r| *r.as_bytes())), (frames, encoded)))
            })
        })
        .collect();
    let mut encodings = Encodings::new();
    for task in futures_util::future::join_all(tasks).await {
        let (key, value) = task?;
        encodings.insert(key, value);
    }
    publish(node, attempt, &encodings);
    Ok(encodings)
}

/// An image to be encoded, and where it differs from its first base.
pub(crate) struct New<'a> {
    pub(crate) name: &'a str,
    pub(crate) image: &'a Image,
    pub(crate) manifest: &'a Manifest,
    pub(crate) changed: &'a [Extent],
}

/// One image into a new file of frames.
pub(crate) fn encode_one(
    new: &New<'_>,
    bases: &[bases::Base],
    frames: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Encoded, ApiError> {
    let mut out = BufWriter::new(create_file(frames).map_err(|e| ApiError::io("make", frames, &e))?);
    let bases: Vec<_> = bases
        .iter()
        .map(|base| form_delta::Base { image: &base.image, manifest: &base.manifest, blocks: base.blocks.as_ref() })
        .collect();
    let encoded = form_delta::encode(&bases, new.image, new.manifest, new.changed, &mut out, progress)
        .map_err(|e| delta(new.name, e))?;
    out.flush().map_err(|e| ApiError::io("write", frames, &e))?;
    Ok(encoded)
}

/// The bases that bytes of other artifacts may come from as well: a guest's page cache holds blocks of its disks. Those that every target holds, so that
/// one encoding does for all.
fn common_bases(attempt: &Attempt, frozen: &[Frozen]) -> Vec<Hash> {
    let fits = attempt.fits();
    let large = frozen.iter().filter(|f| f.kind != ArtifactKind::DeviceState);
    large
        .filter_map(|f| f.base_root)
        .filter(|root| {
            let held =
                |member| fits.get(&member_number(member)).is_some_and(|fit| fit.roots.contains(&root.to_string()));
            (1..attempt.members.len()).all(held)
        })
        .collect()
}

/// The base that a target's frames stand on: the source's, if that target's node said that it holds it.
pub(crate) fn base_for(attempt: &Attempt, target: Member, base: Option<Hash>) -> Option<Hash> {
    let fits = attempt.fits();
    let roots = &fits.get(&target)?.roots;
    base.filter(|root| roots.contains(&root.to_string()))
}

pub(crate) fn member_number(index: usize) -> Member {
    Member(u16::try_from(index).unwrap_or(u16::MAX))
}

fn publish(node: &Arc<Node>, attempt: &Arc<Attempt>, encodings: &Encodings) {
    let offered = encodings.values().map(|(path, e)| (e.index.hash(), (path.clone(), e.index.clone()))).collect();
    let events = attempt.events.clone();
    let targets: Vec<_> = attempt
        .members
        .iter()
        .zip(0..)
        .skip(1)
        .map(|(m, number)| {
            let total: u64 = encodings
                .iter()
                .filter(|((_, base), _)| {
                    let held = base.map(Hash::from_bytes);
                    base_for(attempt, Member(number), held) == held
                })
                .map(|(_, (_, encoded))| encoded.index.frames_len_bytes())
                .sum();
            (m.peer.id, m.name.clone(), total, std::sync::atomic::AtomicU64::new(0))
        })
        .collect();
    let allowed = targets.iter().map(|t| t.0).collect();
    let on_sent = Box::new(move |to, bytes| {
        for (id, name, total, sent) in &targets {
            if *id == to {
                let done = sent.fetch_add(bytes, std::sync::atomic::Ordering::Relaxed) + bytes;
                events.bytes(Some(name), "send", done.min(*total), *total);
            }
        }
    });
    node.offer(attempt.id.0, Outgoing { allowed, encodings: offered, on_sent, files: None });
}

/// What the summary says of each artifact; of several encodings the one that stands on the base.
pub(crate) fn summaries(frozen: &[Frozen], encodings: &Encodings) -> Vec<ArtifactSummary> {
    let summary = |f: &Frozen| {
        let base = f.base_root.map(|r| *r.as_bytes());
        let encoding = encodings
            .get(&(f.name.clone(), base))
            .or_else(|| encodings.get(&(f.name.clone(), None)))
            .map(|(_, encoded)| encoded);
        ArtifactSummary {
            name: f.name.clone(),
            root: f.root.to_string(),
            image_bytes: f.image.len_bytes(),
            changed_bytes: match &f.changed {
                Some(changed) => changed.iter().map(|extent| extent.len_bytes()).sum(),
                None => f.image.allocated_bytes(),
            },
            delta_bytes: encoding.map_or(0, |e| e.index.frames_len_bytes()),
            recipes: encoding
                .map(|e| e.totals.by_kind().map(|(kind, share)| (kind.to_owned(), share.wire_bytes)).into())
                .unwrap_or_default(),
        }
    };
    frozen.iter().map(summary).collect()
}

/// Reads one frame of a file of frames.
pub(crate) fn read_frame(file: &File, range: std::ops::Range<u64>) -> std::io::Result<Vec<u8>> {
    use std::os::unix::fs::FileExt;
    let len = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, range.start)?;
    Ok(bytes)
}
