use crate::{
    Base, Extent, Image, Result,
    base::{Place, find_block, has},
    image::{batches, clip, slices, whole_blocks},
    limits::{BLOCK_BYTES, JOB_BYTES, MOVED_RUNS_PER_SLICE_MAX, SLICE_BYTES},
    parallel,
};

/// What of the changed blocks of an image is zeros, or stands somewhere in its bases.
///
/// It is found on all CPUs, and may serve twice: [`rechunk_moved`](crate::rechunk_moved) need neither cut nor hash the chunks in such a run, and for
/// [`encode_moved`](crate::encode_moved) their bytes do not travel.
#[derive(Debug, Default)]
pub struct Moved {
    /// In order, and none continues the one before it.
    runs: Vec<Run>,
    /// Slices whose runs are so short that hardly a chunk stands in one: not listed, which bounds what this takes.
    crumbs: Vec<Extent>,
}

/// Bytes of the new image that a base has at `from`, or zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) extent: Extent,
    pub(crate) from: Option<Place>,
}

/// What is known of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    Zeros,
    At(Place),
    Nowhere,
    /// Not listed: look for it.
    Unknown,
}

impl Moved {
    /// Looks for each block that `changed` touches.
    pub fn find(bases: &[Base<'_>], new: &Image, changed: &[Extent]) -> Result<Moved> {
        let image = Extent::new(0, new.len_bytes());
        let changed = whole_blocks(changed).into_iter().map(|extent| extent.and(image));
        let jobs = batches(changed.flat_map(|extent| slices(extent, SLICE_BYTES)), JOB_BYTES);
        let look = |number: usize| {
            let job: &[Extent] = &jobs[number];
            let found: Vec<_> = job.iter().map(|slice| (*slice, runs(bases, new, *slice))).collect();
            if let (Some(first), Some(last)) = (job.first(), job.last()) {
                new.release(Extent::new(first.start, last.end));
            }
            Ok(found)
        };
        let found = parallel::map(jobs.len(), || (), |(), number| look(number))?;
        let mut moved = Moved::default();
        for (slice, runs) in found.into_iter().flatten() {
            match runs {
                Some(runs) => runs.into_iter().for_each(|run| push(&mut moved.runs, run)),
                None => moved.crumbs.push(slice),
            }
        }
        Ok(moved)
    }

    /// The run that has all of `extent`, if one has.
    pub(crate) fn run_with(&self, extent: Extent) -> Option<&Run> {
        let next = self.runs.partition_point(|run| run.extent.end <= extent.start);
        self.runs.get(next).filter(|run| run.extent.and(extent) == extent)
    }

    /// What this changed block is.
    pub(crate) fn block(&self, block: Extent) -> Found {
        match self.run_with(block) {
            Some(Run { from: None, .. }) => Found::Zeros,
            Some(Run { from: Some(place), extent }) => Found::At(place.forward(block.start - extent.start)),
            None if clip(&self.crumbs, block).next().is_some() => Found::Unknown,
            None => Found::Nowhere,
        }
    }
}

/// The runs within one slice, unless there are too many. What goes on where the last one was comes first, so that runs stay whole.
fn runs(bases: &[Base<'_>], new: &Image, slice: Extent) -> Option<Vec<Run>> {
    let mut runs: Vec<Run> = Vec::new();
    if new.is_hole(slice) {
        return Some(vec![Run { extent: slice, from: None }]);
    }
    let mut near: Option<Place> = None;
    for block in slices(slice, BLOCK_BYTES) {
        if runs.len() > MOVED_RUNS_PER_SLICE_MAX {
            return None;
        }
        if new.is_zero(block) {
            near = None;
            push(&mut runs, Run { extent: block, from: None });
            continue;
        }
        let bytes = new.get(block).unwrap_or_default();
        let from = near.filter(|place| has(bases, *place, bytes)).or_else(|| find_block(bases, bytes));
        near = from.map(|place| place.forward(BLOCK_BYTES));
        if from.is_some() {
            push(&mut runs, Run { extent: block, from });
        }
    }
    (runs.len() <= MOVED_RUNS_PER_SLICE_MAX).then_some(runs)
}

/// Appends a run, or lengthens the last one that it continues.
fn push(runs: &mut Vec<Run>, run: Run) {
    if let Some(last) = runs.last_mut()
        && last.extent.end == run.extent.start
        && last.from.map(|place| place.forward(last.extent.len_bytes())) == run.from
    {
        last.extent.end = run.extent.end;
        return;
    }
    runs.push(run);
}
