//! Choosing where the bytes of each new chunk come from: by size and content, never by time, so that the same images give the same recipes.

use std::collections::HashMap;

use crate::{
    Base, Chunk, Extent, Hash, Image, Manifest, Moved,
    base::{Place, find_block, has},
    image::{clip, slices},
    limits::{BLOCK_BYTES, CHUNK_BYTES_MAX, NEW_RUN_BYTES_MAX},
    scan::Found,
};

/// A run of chunks of the new image that come from the same source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    /// What the run makes.
    pub(super) extent: Extent,
    pub(super) source: Source,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// A base's bytes from there on.
    Copy(Place),
    /// Chunks of that many zeros.
    Zero { chunk_bytes: u32, count: u32 },
    /// These are new chunks: the first, how many, and what to look at for their bytes.
    New { first: usize, count: usize, parts: Vec<Draft> },
}

/// Some bytes of new chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Draft {
    pub(super) extent: Extent,
    pub(super) source: DraftSource,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DraftSource {
    Zero,
    Copy(Place),
    /// They must travel. A neighbour came from the bytes next to `near`, so what these were before may stand there.
    Literal {
        near: Option<Place>,
    },
}

/// The runs of a new image, in order.
pub(super) struct Steps<'a> {
    bases: &'a [Base<'a>],
    new: &'a Image,
    changed: &'a [Extent],
    moved: &'a Moved,
    chunks: std::iter::Peekable<std::iter::Enumerate<std::slice::Iter<'a, Chunk>>>,
    position: u64,
    /// The first base's chunks, up to where the new image is.
    same_place: SamePlace<'a>,
    /// Where chunks that are not in their old place stand in a base: number of base and of chunk.
    elsewhere: HashMap<Hash, (u8, usize)>,
    offsets: Vec<Vec<u64>>,
    /// The chunk of a base behind the last one used: a run that moved goes on there.
    follow: (u8, usize),
    waiting: Option<Step>,
    /// Where the last step left a base, if it moved.
    left: Option<Place>,
}

impl<'a> Steps<'a> {
    /// `changed` are the places where `new` differs from the first base, or has data when there is none.
    pub(super) fn new(
        bases: &'a [Base<'a>],
        new: &'a Image,
        manifest: &'a Manifest,
        changed: &'a [Extent],
        moved: &'a Moved,
    ) -> Self {
        let elsewhere = find_elsewhere(bases, manifest);
        let offsets = match elsewhere.is_empty() {
            true => Vec::new(),
            false => bases.iter().map(|base| base.manifest.offsets()).collect(),
        };
        Steps {
            bases,
            new,
            changed,
            moved,
            chunks: manifest.chunks().iter().enumerate().peekable(),
            position: 0,
            same_place: SamePlace::new(bases),
            elsewhere,
            offsets,
            follow: (0, 0),
            waiting: None,
            left: None,
        }
    }

    fn next_chunk(&mut self) -> Option<Step> {
        let (index, chunk) = self.chunks.next()?;
        let extent = Extent::new(self.position, self.position + u64::from(chunk.len_bytes));
        let source = if self.same_place.has(extent.start, chunk) {
            Source::Copy(Place { base: 0, start: extent.start })
        } else if self.is_zero(extent) {
            Source::Zero { chunk_bytes: chunk.len_bytes, count: 1 }
        } else if let Some(place) = self.find(chunk) {
            Source::Copy(place)
        } else {
            Source::New { first: index, count: 1, parts: Vec::new() }
        };
        self.position = extent.end;
        Some(Step { extent, source })
    }

    fn is_zero(&self, extent: Extent) -> bool {
        match self.moved.run_with(extent) {
            Some(run) => run.from.is_none(),
            None => self.new.is_zero(extent),
        }
    }

    fn find(&mut self, chunk: &Chunk) -> Option<Place> {
        let (base, number) = self.follow;
        let follows = self.bases.get(usize::from(base))?.manifest.chunks().get(number) == Some(chunk);
        let (base, number) = match follows {
            true => self.follow,
            false => *self.elsewhere.get(&chunk.hash)?,
        };
        let start = *self.offsets.get(usize::from(base))?.get(number)?;
        self.follow = (base, number + 1);
        Some(Place { base, start })
    }

    /// Fills in what the bytes of new chunks are made of, now that both neighbours are known.
    fn divide(&self, step: &mut Step, after: Option<&Step>) {
        let Source::New { parts, .. } = &mut step.source else { return };
        let mut divide = Divide { steps: self, parts: Vec::new(), near: self.left };
        divide.run(step.extent);
        *parts = divide.parts;
        // What stands before the place where the next run begins may be the old self of this one's end.
        if let Some(Step { source: Source::Copy(place), extent }) = after
            && !place.is_kept_at(extent.start)
            && let Some(Draft { extent, source: DraftSource::Literal { near: near @ None } }) = parts.last_mut()
        {
            let start = place.start.checked_sub(extent.len_bytes());
            *near = start.map(|start| Place { base: place.base, start });
        }
    }
}

impl Iterator for Steps<'_> {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        let mut step = self.waiting.take().or_else(|| self.next_chunk())?;
        while let Some(next) = self.next_chunk() {
            if !step.extend(&next) {
                self.waiting = Some(next);
                break;
            }
        }
        self.divide(&mut step, self.waiting.as_ref());
        self.left = match &step.source {
            Source::Copy(place) if !place.is_kept_at(step.extent.start) => Some(place.forward(step.extent.len_bytes())),
            _ => None,
        };
        Some(step)
    }
}

impl Step {
    /// Takes the next chunk into the run, if it continues it.
    fn extend(&mut self, next: &Step) -> bool {
        let len_bytes = self.extent.len_bytes();
        let continues = match (&mut self.source, &next.source) {
            (Source::Copy(place), Source::Copy(next)) => place.forward(len_bytes) == *next,
            (Source::Zero { chunk_bytes, count }, Source::Zero { chunk_bytes: next, .. }) => {
                let alike = *chunk_bytes == CHUNK_BYTES_MAX && *next == CHUNK_BYTES_MAX;
                *count += u32::from(alike);
                alike
            }
            (Source::New { count, .. }, Source::New { .. }) => {
                let fits = len_bytes + next.extent.len_bytes() <= NEW_RUN_BYTES_MAX;
                *count += usize::from(fits);
                fits
            }
            _ => false,
        };
        if continues {
            self.extent.end = next.extent.end;
        }
        continues
    }
}

/// Walks along the first base's chunks beside the new image's.
struct SamePlace<'a> {
    chunks: &'a [Chunk],
    position: u64,
}

impl<'a> SamePlace<'a> {
    fn new(bases: &[Base<'a>]) -> SamePlace<'a> {
        SamePlace { chunks: bases.first().map_or(&[], |base| base.manifest.chunks()), position: 0 }
    }

    /// Whether that chunk stands there in the base. Positions only ever grow.
    fn has(&mut self, position: u64, chunk: &Chunk) -> bool {
        while self.position < position
            && let Some((passed, rest)) = self.chunks.split_first()
        {
            self.position += u64::from(passed.len_bytes);
            self.chunks = rest;
        }
        self.position == position && self.chunks.first() == Some(chunk)
    }
}

/// Finds all chunks of `manifest` that are not in their old place but somewhere in a base. The few that are looked for are listed, and the bases' many run past.
/// Of equal chunks the first of the first base wins.
fn find_elsewhere(bases: &[Base<'_>], manifest: &Manifest) -> HashMap<Hash, (u8, usize)> {
    let mut same_place = SamePlace::new(bases);
    let mut position = 0;
    let mut wanted = HashMap::new();
    for chunk in manifest.chunks() {
        if !bases.is_empty() && !same_place.has(position, chunk) {
            wanted.insert(chunk.hash, None);
        }
        position += u64::from(chunk.len_bytes);
    }
    if wanted.is_empty() {
        return HashMap::new();
    }
    for (base, number) in bases.iter().zip(0u8..) {
        for (index, chunk) in base.manifest.chunks().iter().enumerate() {
            if let Some(found @ None) = wanted.get_mut(&chunk.hash) {
                *found = Some((number, index));
            }
        }
    }
    wanted.into_iter().filter_map(|(hash, found)| Some((hash, found?))).collect()
}

/// Divides a run of new chunks.
struct Divide<'s, 'a> {
    steps: &'s Steps<'a>,
    parts: Vec<Draft>,
    /// What stands behind the bytes of a base that were used last, if they moved.
    near: Option<Place>,
}

impl Divide<'_, '_> {
    fn run(&mut self, run: Extent) {
        let mut position = run.start;
        for changed in clip(self.steps.changed, run) {
            self.unchanged(Extent::new(position, changed.start));
            for block in slices(changed, BLOCK_BYTES) {
                self.block(block);
            }
            position = changed.end;
        }
        self.unchanged(Extent::new(position, run.end));
    }

    fn unchanged(&mut self, extent: Extent) {
        if !extent.is_empty() {
            let source = match self.steps.bases.is_empty() {
                // Without a base, what is not listed is a hole.
                true => DraftSource::Zero,
                false => DraftSource::Copy(Place { base: 0, start: extent.start }),
            };
            self.push(extent, source);
        }
    }

    fn block(&mut self, extent: Extent) {
        let Steps { bases, new, moved, .. } = self.steps;
        let bytes = || new.get(extent).unwrap_or_default();
        // What goes on where the last part was comes first, so that runs stay whole; it may lie across blocks there, which nobody else finds.
        let goes_on = |found: Option<Place>| match self.near {
            Some(near) if found != Some(near) && has(bases, near, bytes()) => Some(near),
            _ => found,
        };
        let found = match moved.block(extent) {
            Found::Zeros => return self.push(extent, DraftSource::Zero),
            Found::Unknown if new.is_zero(extent) => return self.push(extent, DraftSource::Zero),
            Found::At(place) => goes_on(Some(place)),
            Found::Nowhere => goes_on(None),
            Found::Unknown => goes_on(None).or_else(|| find_block(bases, bytes())),
        };
        let source = match found {
            Some(place) => DraftSource::Copy(place),
            None => DraftSource::Literal { near: self.near },
        };
        self.push(extent, source);
    }

    fn push(&mut self, extent: Extent, source: DraftSource) {
        self.near = match source {
            DraftSource::Copy(place) if !place.is_kept_at(extent.start) => Some(place.forward(extent.len_bytes())),
            // A literal takes the place of what stood there.
            DraftSource::Literal { near } => near.map(|place| place.forward(extent.len_bytes())),
            DraftSource::Copy(_) | DraftSource::Zero => None,
        };
        if let Some(last) = self.parts.last_mut() {
            let len_bytes = last.extent.len_bytes();
            let continues = match (last.source, source) {
                (DraftSource::Zero, DraftSource::Zero) => true,
                (DraftSource::Copy(place), DraftSource::Copy(next)) => place.forward(len_bytes) == next,
                (DraftSource::Literal { near }, DraftSource::Literal { near: next }) => {
                    near.map(|place| place.forward(len_bytes)) == next
                }
                _ => false,
            };
            if continues {
                last.extent.end = extent.end;
                return;
            }
        }
        self.parts.push(Draft { extent, source });
    }
}
