//! What a file holds: a length, and the pages that are not holes.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::disk::chance::Chance;

/// Bytes of a page, and of what a device writes as a whole.
pub(crate) const PAGE: u64 = 4096;
const SECTOR: usize = 512;

type Page = Arc<[u8; PAGE as usize]>;

/// A copy shares its pages with the original.
#[derive(Clone, Default)]
pub(crate) struct Content {
    len: u64,
    pages: BTreeMap<u64, Page>,
}

fn zeros() -> Page {
    Arc::new([0; PAGE as usize])
}

impl Content {
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn allocated_pages(&self) -> u64 {
        self.pages.len() as u64
    }

    pub(crate) fn read(&self, offset: u64, len: u64) -> Vec<u8> {
        let end = self.len.min(offset.saturating_add(len));
        let mut bytes = vec![0; usize::try_from(end.saturating_sub(offset)).expect("small")];
        for (number, within, at) in pieces(offset, bytes.len()) {
            if let Some(page) = self.pages.get(&number) {
                bytes[at..at + within.len()].copy_from_slice(&page[within]);
            }
        }
        bytes
    }

    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) {
        for (number, within, at) in pieces(offset, bytes.len()) {
            let page = self.pages.entry(number).or_insert_with(zeros);
            Arc::make_mut(page)[within.clone()].copy_from_slice(&bytes[at..at + within.len()]);
        }
        self.len = self.len.max(offset + bytes.len() as u64);
    }

    pub(crate) fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.punch(len, self.len.next_multiple_of(PAGE));
        }
        self.len = len;
    }

    /// Pages that are not there yet: those of a range, as zeros.
    pub(crate) fn allocate(&mut self, start: u64, end: u64) {
        for number in start / PAGE..end.div_ceil(PAGE) {
            self.pages.entry(number).or_insert_with(zeros);
        }
    }

    /// Makes a hole.
    pub(crate) fn punch(&mut self, start: u64, end: u64) {
        for (number, within, _) in pieces(start, usize::try_from(end.saturating_sub(start)).expect("small")) {
            if within.len() as u64 == PAGE {
                self.pages.remove(&number);
            } else if let Some(page) = self.pages.get_mut(&number) {
                Arc::make_mut(page)[within].fill(0);
            }
        }
    }

    /// The first byte of data at or after `offset`, or of a hole. The end of the file is a hole.
    pub(crate) fn seek(&self, offset: u64, data: bool) -> Option<u64> {
        if offset >= self.len {
            return None;
        }
        let mut number = offset / PAGE;
        if data {
            let (first, _) = self.pages.range(number..).next()?;
            let start = offset.max(first * PAGE);
            return (start < self.len).then_some(start);
        }
        while self.pages.contains_key(&number) {
            number += 1;
        }
        Some(offset.max(number * PAGE).min(self.len))
    }

    /// What is durable after an fsync that follows one that failed: pages of `dropped` that have not changed since are not
    /// written.
    pub(crate) fn written_back(durable: &Self, now: &Self, dropped: &Self) -> Self {
        let mut written = now.clone();
        for (number, page) in &mut written.pages {
            if dropped.pages.get(number).is_some_and(|dropped| Arc::ptr_eq(dropped, page)) {
                *page = durable.pages.get(number).cloned().unwrap_or_else(zeros);
            }
        }
        written
    }

    /// What is found after the power went: of what is not durable each page is there, or is not, or is torn.
    pub(crate) fn crashed(durable: &Self, now: &Self, chance: &mut Chance) -> Self {
        let mut found = durable.clone();
        let numbers: std::collections::BTreeSet<u64> = durable.pages.keys().chain(now.pages.keys()).copied().collect();
        for number in numbers {
            let (old, new) = (durable.pages.get(&number), now.pages.get(&number));
            let same = match (old, new) {
                (Some(old), Some(new)) => Arc::ptr_eq(old, new),
                _ => false,
            };
            if same || chance.loses() {
                continue;
            }
            let mut page = old.cloned().unwrap_or_else(zeros);
            let new = new.cloned().unwrap_or_else(zeros);
            let torn_at = chance.sectors(PAGE as usize / SECTOR) * SECTOR;
            Arc::make_mut(&mut page)[..torn_at].copy_from_slice(&new[..torn_at]);
            found.pages.insert(number, page);
        }
        let len = if durable.len != now.len && !chance.loses() { now.len } else { durable.len };
        found.set_len(len);
        found.pages.retain(|number, _| number * PAGE < len);
        found
    }
}

/// The pages that a range touches: number, which bytes of the page, and where in the range they stand.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (u64, std::ops::Range<usize>, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let start = usize::try_from(at % PAGE).expect("small");
        let piece = (len - done).min(PAGE as usize - start);
        let (number, place) = (at / PAGE, done);
        done += piece;
        (piece > 0).then_some((number, start..start + piece, place))
    })
}
