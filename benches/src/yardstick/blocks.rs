use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use super::mapped::Mapped;
use crate::Result;

pub(super) const BLOCK_BYTES: u64 = 4096;
/// What a thread takes at a time.
const SLICE_BLOCKS: u64 = 1024;

/// Neighbouring blocks, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) start: u64,
    pub(super) end: u64,
}

/// A part of both images in which each is either data or a hole.
struct Slice {
    blocks: Run,
    left: bool,
    right: bool,
}

/// The blocks that differ, ascending.
pub(super) fn changed(left: &Mapped, right: &Mapped) -> Result<Vec<Run>> {
    if left.len_blocks() != right.len_blocks() {
        return Err("images of different length".into());
    }
    let slices = slices(&left.data, &right.data);
    let found = on_all_cpus(slices.len(), |number| compare(left, right, &slices[number]));
    let mut changed: Vec<Run> = Vec::new();
    for run in found.into_iter().flatten() {
        match changed.last_mut() {
            Some(last) if last.end == run.start => last.end = run.end,
            _ => changed.push(run),
        }
    }
    Ok(changed)
}

/// Calls `work` with 0..count on all CPUs and returns what it returned, in order.
pub(super) fn on_all_cpus<T: Send>(count: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::with_capacity(count)));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from).min(count) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        break;
                    }
                    let result = work(number);
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((number, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, result)| result).collect()
}

fn compare(left: &Mapped, right: &Mapped, slice: &Slice) -> Vec<Run> {
    const ZEROS: [u8; BLOCK_BYTES as usize] = [0; BLOCK_BYTES as usize];
    let mut found: Vec<Run> = Vec::new();
    for number in slice.blocks.start..slice.blocks.end {
        let one = Run { start: number, end: number + 1 };
        let of_left = if slice.left { left.blocks(one) } else { &ZEROS };
        let of_right = if slice.right { right.blocks(one) } else { &ZEROS };
        if of_left != of_right {
            match found.last_mut() {
                Some(last) if last.end == number => last.end += 1,
                _ => found.push(one),
            }
        }
    }
    found
}

/// Where at least one has data, cut where either begins or ends, and every few MiB.
fn slices(left: &[Run], right: &[Run]) -> Vec<Slice> {
    let mut cuts: Vec<u64> = left.iter().chain(right).flat_map(|run| [run.start, run.end]).collect();
    cuts.sort_unstable();
    cuts.dedup();
    let inside = |runs: &[Run], block: u64| {
        runs.get(runs.partition_point(|run| run.end <= block)).is_some_and(|run| run.start <= block)
    };
    let mut slices = Vec::new();
    for pair in cuts.windows(2) {
        let &[start, end] = pair else { continue };
        let (left, right) = (inside(left, start), inside(right, start));
        if !left && !right {
            continue;
        }
        let mut at = start;
        while at < end {
            let next = end.min(at + SLICE_BLOCKS);
            slices.push(Slice { blocks: Run { start: at, end: next }, left, right });
            at = next;
        }
    }
    slices
}
