//! Bytes that were changed in place: see FORMAT.md, "Edits".

use crate::limits::{EDIT_BYTES_MAX, EDIT_GAP_BYTES_MIN};

/// Bytes of an edit in the frame.
pub(super) const EDIT_BYTES: usize = 4;
/// The bit of an edit's length that says that its bytes stand in the raw stream.
const NOISE: u16 = 1 << 15;
/// A shorter run is too short to tell whether it has a pattern.
const NOISE_BYTES_MIN: usize = 24;

/// So many bytes are the old ones; as many after them are new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Edit {
    pub(crate) gap_bytes: u16,
    /// At most `EDIT_BYTES_MAX`.
    pub(crate) len_bytes: u16,
    /// The new bytes have no pattern and travel as they are.
    pub(crate) is_noise: bool,
}

/// What turns old bytes into new ones.
#[derive(Debug, Default)]
pub(super) struct Edited {
    pub(super) edits: Vec<Edit>,
    /// New bytes without a pattern, run after run.
    pub(super) noise: Vec<u8>,
    /// The other new bytes.
    pub(super) text: Vec<u8>,
}

impl Edited {
    /// Compares `new` with `old`, of which there is as much.
    pub(super) fn of(old: &[u8], new: &[u8]) -> Edited {
        let mut this = Edited::default();
        let mut position = 0;
        let mut at = 0;
        while let Some(start) = first_difference(old, new, at) {
            let end = end_of_run(old, new, start);
            this.push(start - position, new.get(start..end).unwrap_or_default());
            (position, at) = (end, end);
        }
        this
    }

    fn push(&mut self, gap_bytes: usize, run: &[u8]) {
        let mut gap_bytes = gap_bytes;
        while gap_bytes > usize::from(u16::MAX) {
            self.edits.push(Edit { gap_bytes: u16::MAX, len_bytes: 0, is_noise: false });
            gap_bytes -= usize::from(u16::MAX);
        }
        let is_noise = is_noise(run);
        let stream = if is_noise { &mut self.noise } else { &mut self.text };
        stream.extend(run);
        for piece in run.chunks(usize::from(EDIT_BYTES_MAX)) {
            self.edits.push(Edit { gap_bytes: gap_bytes as u16, len_bytes: piece.len() as u16, is_noise });
            gap_bytes = 0;
        }
    }
}

/// Whether few of the bytes differ, so that listing them is short.
pub(super) fn are_few(old: &[u8], new: &[u8]) -> bool {
    let words = new.as_chunks::<8>().0.iter().zip(old.as_chunks::<8>().0);
    let differ = words.filter(|(new, old)| new != old).count();
    old.len() == new.len() && differ * 4 <= new.len() / 8
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|word| u64::from_le_bytes(*word))
}

fn first_difference(old: &[u8], new: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    while let (Some(old), Some(new)) = (word(old, at), word(new, at)) {
        if old != new {
            return Some(at + (old ^ new).trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    let rest = old.get(at..)?.iter().zip(new.get(at..)?);
    rest.into_iter().position(|(old, new)| old != new).map(|after| at + after)
}

/// Behind the last byte that differs before `EDIT_GAP_BYTES_MIN` that don't.
fn end_of_run(old: &[u8], new: &[u8], start: usize) -> usize {
    const { assert!(EDIT_GAP_BYTES_MIN == 8, "it is a word that is looked at") };
    let mut end = start + 1;
    while let (Some(old), Some(new)) = (word(old, end), word(new, end)) {
        if old == new {
            return end;
        }
        end += 8 - (old ^ new).leading_zeros() as usize / 8;
    }
    let rest = old.iter().zip(new).skip(end).rposition(|(old, new)| old != new);
    rest.map_or(end, |last| end + last + 1)
}

/// Whether bytes look drawn at random: they have about as many different values as such bytes have. Of n, 256 (1 − e^(−n/256)) are expected, here by the first
/// terms of its series, in whole numbers: every machine must decide alike.
fn is_noise(run: &[u8]) -> bool {
    if run.len() < NOISE_BYTES_MIN {
        return false;
    }
    let run = run.get(..256).unwrap_or(run);
    let mut values = [0u64; 4];
    for byte in run {
        values[usize::from(byte >> 6)] |= 1 << (byte & 63);
    }
    let count: u32 = values.iter().map(|bits| bits.count_ones()).sum();
    let len = run.len() as u32;
    let expected = len - len * len / 512 + len * len * len / 393_216;
    count * 5 > expected * 4
}

/// The bytes in the frame: the edits' fields by plane, since each is like its kind.
pub(super) fn write(edits: &[Edit]) -> Vec<u8> {
    let len = |edit: &Edit| edit.len_bytes | if edit.is_noise { NOISE } else { 0 };
    let mut out = Vec::with_capacity(edits.len() * EDIT_BYTES);
    out.extend(edits.iter().map(|edit| edit.gap_bytes.to_le_bytes()[0]));
    out.extend(edits.iter().map(|edit| edit.gap_bytes.to_le_bytes()[1]));
    out.extend(edits.iter().map(|edit| len(edit).to_le_bytes()[0]));
    out.extend(edits.iter().map(|edit| len(edit).to_le_bytes()[1]));
    out
}

/// Reads what [`write`] wrote for parts of `edited_bytes` together.
pub(super) fn read(bytes: &[u8], edited_bytes: u64) -> Result<Vec<Edit>, &'static str> {
    let count = bytes.len() / EDIT_BYTES;
    if !bytes.len().is_multiple_of(EDIT_BYTES) {
        return Err("the edits are not whole");
    }
    let mut planes = bytes.chunks_exact(count.max(1));
    let mut plane = || planes.next().unwrap_or_default().iter();
    let (gap_low, gap_high, len_low, len_high) = (plane(), plane(), plane(), plane());
    let mut edits = Vec::with_capacity(count);
    let mut position = 0;
    for ((gap_low, gap_high), (len_low, len_high)) in gap_low.zip(gap_high).zip(len_low.zip(len_high)) {
        let gap_bytes = u16::from_le_bytes([*gap_low, *gap_high]);
        let len = u16::from_le_bytes([*len_low, *len_high]);
        let (len_bytes, is_noise) = (len & !NOISE, len & NOISE != 0);
        if len_bytes == 0 && (gap_bytes != u16::MAX || is_noise) {
            return Err("an edit is empty");
        }
        position += u64::from(gap_bytes) + u64::from(len_bytes);
        edits.push(Edit { gap_bytes, len_bytes, is_noise });
    }
    match position <= edited_bytes {
        true => Ok(edits),
        false => Err("the edits reach behind their parts"),
    }
}

/// Turns the old bytes into the new ones. Both streams have what the edits need: that was checked when the frame was read.
pub(crate) fn apply<'s>(edits: &[Edit], bytes: &mut [u8], noise: &'s [u8], text: &'s [u8]) {
    let (mut noise, mut text) = (noise, text);
    let mut position = 0;
    for edit in edits {
        let start = position + usize::from(edit.gap_bytes);
        position = start + usize::from(edit.len_bytes);
        let stream = if edit.is_noise { &mut noise } else { &mut text };
        if let (Some(old), Some((new, rest))) =
            (bytes.get_mut(start..position), stream.split_at_checked(usize::from(edit.len_bytes)))
        {
            old.copy_from_slice(new);
            *stream = rest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::noise;

    #[test]
    fn edits_make_the_new_bytes() {
        let old = noise(1, 300_000);
        let mut new = old.clone();
        // At the begin, near each other, in a gap longer than a field holds, and at the very end.
        for at in [0, 1, 9, 18, 100, 109, 4095, 70_000, 299_999] {
            new[at] ^= 0x55;
        }
        new[200_000..240_000].copy_from_slice(&noise(2, 40_000));
        new[250_000..250_040].copy_from_slice(b"text that a person would write, and read");
        let edited = Edited::of(&old, &new);
        // The runs at 0 to 1, 9 and 18, at 100 and 109: seven equal bytes or eight between them.
        let runs: Vec<u16> = edited.edits.iter().map(|edit| edit.len_bytes).collect();
        assert_eq!(runs[..6], [10, 1, 1, 1, 1, 0], "{runs:?}");
        assert!(edited.noise.len() > 39_900 && edited.text.len() < 100);
        let edits = read(&write(&edited.edits), old.len() as u64).unwrap();
        assert_eq!(edits, edited.edits);
        let mut made = old.clone();
        apply(&edits, &mut made, &edited.noise, &edited.text);
        assert!(made == new);
    }

    #[test]
    fn equal_bytes_need_none() {
        assert!(Edited::of(&noise(1, 5000), &noise(1, 5000)).edits.is_empty());
        assert!(Edited::of(&[], &[]).edits.is_empty());
    }

    #[test]
    fn damaged_edits_are_refused() {
        let plane =
            |edits: &[[u8; 4]]| (0..4).flat_map(|at| edits.iter().map(move |edit| edit[at])).collect::<Vec<_>>();
        assert_eq!(read(&[1, 2, 3], 10), Err("the edits are not whole"));
        assert_eq!(read(&plane(&[[1, 0, 0, 0]]), 10), Err("an edit is empty"));
        assert_eq!(read(&plane(&[[255, 255, 0, 128]]), 1 << 20), Err("an edit is empty"));
        assert_eq!(read(&plane(&[[5, 0, 5, 0], [1, 0, 1, 0]]), 11), Err("the edits reach behind their parts"));
        assert_eq!(read(&plane(&[[5, 0, 5, 0], [1, 0, 1, 128]]), 12).unwrap().len(), 2);
        assert!(read(&[], 0).unwrap().is_empty());
    }

    #[test]
    fn noise_is_told_from_text() {
        assert!(is_noise(&noise(3, 64)) && is_noise(&noise(4, 24)) && is_noise(&noise(5, 9000)));
        assert!(!is_noise(b"1795422\tcustomer-00042\tpaid\t2026-11-28\t17.99\n"));
        assert!(!is_noise(&noise(3, 23)) && !is_noise(&[0; 4096]));
    }
}
