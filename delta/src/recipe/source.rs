//! Choosing where the bytes of each new chunk come from: by size and content, never by time, so that the same images give the same recipes.

use std::collections::HashMap;

use crate::{Chunk, Extent, Hash, Image, Manifest, limits::BODY_BYTES_MAX};

/// A run of chunks of the new image that come from the same source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    /// What the run makes.
    pub(super) extent: Extent,
    /// How many chunks that is.
    pub(super) chunks: u32,
    pub(super) source: Source,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// The base's bytes from there on.
    Base { start: u64 },
    /// Chunks of that many zeros.
    Zero { chunk_bytes: u32 },
    /// Nowhere: the bytes must travel. The index of the first chunk.
    New { first: usize },
}

impl Step {
    /// Takes the next chunk into the run, if it continues it.
    fn extend(&mut self, next: &Step) -> bool {
        let len = self.extent.len_bytes();
        let continues = match (&self.source, &next.source) {
            (Source::Base { start }, Source::Base { start: next }) => start + len == *next,
            (Source::Zero { chunk_bytes: a }, Source::Zero { chunk_bytes: b }) => {
                a == b && *a == crate::limits::CHUNK_BYTES_MAX
            }
            (Source::New { .. }, Source::New { .. }) => len + next.extent.len_bytes() <= u64::from(BODY_BYTES_MAX),
            _ => false,
        };
        if continues {
            self.extent.end = next.extent.end;
            self.chunks += next.chunks;
        }
        continues
    }
}

/// A base as the search sees it.
struct BaseIndex<'a> {
    chunks: &'a [Chunk],
    offsets: Vec<u64>,
    by_hash: HashMap<Hash, usize>,
}

impl<'a> BaseIndex<'a> {
    fn new(manifest: &'a Manifest) -> BaseIndex<'a> {
        let chunks = manifest.chunks();
        // Of equal chunks the first wins, whatever the map's order.
        let by_hash = chunks.iter().enumerate().rev();
        BaseIndex {
            chunks,
            offsets: manifest.offsets(),
            by_hash: by_hash.map(|(index, chunk)| (chunk.hash, index)).collect(),
        }
    }

    fn is_at(&self, index: usize, chunk: &Chunk) -> bool {
        self.chunks.get(index) == Some(chunk)
    }
}

/// The runs of a new image, in order.
pub(super) struct Steps<'a> {
    new: &'a Image,
    chunks: std::iter::Enumerate<std::slice::Iter<'a, Chunk>>,
    position: u64,
    base: Option<BaseIndex<'a>>,
    /// The chunk of the base behind the last one used: a run that moved goes on there.
    follow: usize,
    waiting: Option<Step>,
}

impl<'a> Steps<'a> {
    pub(super) fn new(base: Option<&'a Manifest>, new: &'a Image, manifest: &'a Manifest) -> Self {
        Steps {
            new,
            chunks: manifest.chunks().iter().enumerate(),
            position: 0,
            base: base.map(BaseIndex::new),
            follow: 0,
            waiting: None,
        }
    }

    fn next_chunk(&mut self) -> Option<Step> {
        let (index, chunk) = self.chunks.next()?;
        let extent = Extent::new(self.position, self.position + u64::from(chunk.len_bytes));
        self.position = extent.end;
        Some(Step { extent, chunks: 1, source: self.choose(index, chunk, extent) })
    }

    fn choose(&mut self, index: usize, chunk: &Chunk, extent: Extent) -> Source {
        let same_place = self.base.as_ref().and_then(|base| {
            let there = base.offsets.binary_search(&extent.start).ok()?;
            base.is_at(there, chunk).then_some(there)
        });
        if same_place.is_none() && self.new.is_zero(extent) {
            return Source::Zero { chunk_bytes: chunk.len_bytes };
        }
        let found = same_place.or_else(|| {
            let base = self.base.as_ref()?;
            if base.is_at(self.follow, chunk) {
                return Some(self.follow);
            }
            base.by_hash.get(&chunk.hash).copied()
        });
        match (found, &self.base) {
            (Some(there), Some(base)) => {
                self.follow = there + 1;
                Source::Base { start: base.offsets[there] }
            }
            _ => Source::New { first: index },
        }
    }
}

impl Iterator for Steps<'_> {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        let mut step = match self.waiting.take() {
            Some(step) => step,
            None => self.next_chunk()?,
        };
        while let Some(next) = self.next_chunk() {
            if !step.extend(&next) {
                self.waiting = Some(next);
                break;
            }
        }
        Some(step)
    }
}
