//! What stands before a coded stream of the content of earlier frames: see FORMAT.md, "Excerpts".

use crate::limits::EARLIER_BYTES_MAX;

/// Bytes of an excerpt in the frame.
pub(super) const EXCERPT_BYTES: usize = 8;

/// What is wrong with an excerpt of content that does not exist.
pub(crate) const TOO_FAR: &str = "an excerpt reaches back behind the first frame";

/// Some bytes of the content of the frames before one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Excerpt {
    /// From its first byte to the begin of the frame's own content. At most `EARLIER_BYTES_MAX`.
    pub(crate) back_bytes: u32,
    pub(crate) len_bytes: u32,
}

/// The bytes in the frame. `excerpts` are in the order of the content and don't touch; here the last one is the first, so that the first gap is what lies between it
/// and the frame. By plane, as edits are.
pub(super) fn write(excerpts: &[Excerpt]) -> Vec<u8> {
    let mut reached = 0;
    let fields = excerpts.iter().rev().map(|excerpt| {
        let gap_bytes = excerpt.back_bytes - excerpt.len_bytes - reached;
        reached = excerpt.back_bytes;
        (gap_bytes.to_le_bytes(), excerpt.len_bytes.to_le_bytes())
    });
    let (gaps, lens): (Vec<_>, Vec<_>) = fields.unzip();
    let mut out = Vec::with_capacity(excerpts.len() * EXCERPT_BYTES);
    for field in [gaps, lens] {
        for plane in 0..4 {
            out.extend(field.iter().map(|bytes: &[u8; 4]| bytes[plane]));
        }
    }
    out
}

/// Reads what [`write`] wrote for a frame with so many new bytes.
pub(super) fn read(bytes: &[u8], new_bytes: u64) -> Result<Vec<Excerpt>, &'static str> {
    if !bytes.len().is_multiple_of(EXCERPT_BYTES) {
        return Err("the excerpts are not whole");
    }
    let count = bytes.len() / EXCERPT_BYTES;
    let field = |first: usize, number: usize| {
        let byte = |plane: usize| bytes.get((first + plane) * count + number).copied().unwrap_or_default();
        u64::from(u32::from_le_bytes([byte(0), byte(1), byte(2), byte(3)]))
    };
    let mut excerpts = Vec::with_capacity(count);
    let (mut reached, mut all_bytes) = (0, 0);
    for number in 0..count {
        let (gap_bytes, len_bytes) = (field(0, number), field(4, number));
        reached += gap_bytes + len_bytes;
        all_bytes += len_bytes;
        if len_bytes == 0 || reached > EARLIER_BYTES_MAX {
            return Err("an excerpt is empty, or too far away");
        }
        if number > 0 && gap_bytes == 0 {
            return Err("two excerpts are one");
        }
        // They stand in the frame's content again. Without this, a short frame could ask for much work.
        if all_bytes > new_bytes {
            return Err("the excerpts are longer than what repeats them");
        }
        excerpts.push(Excerpt { back_bytes: reached as u32, len_bytes: len_bytes as u32 });
    }
    excerpts.reverse();
    Ok(excerpts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let excerpt = |back_bytes, len_bytes| Excerpt { back_bytes, len_bytes };
        let excerpts = [excerpt(EARLIER_BYTES_MAX as u32, 70_000), excerpt(300_000, 64), excerpt(299_935, 100)];
        assert_eq!(read(&write(&excerpts), 70_164), Ok(excerpts.to_vec()));
        assert_eq!(read(&write(&[excerpt(5, 5)]), 5), Ok(vec![excerpt(5, 5)]));
        assert_eq!(read(&[], 0), Ok(Vec::new()));
    }

    #[test]
    fn what_nobody_writes_is_refused() {
        let excerpt = |back_bytes, len_bytes| Excerpt { back_bytes, len_bytes };
        assert!(read(&write(&[excerpt(300_000, 64), excerpt(299_936, 100)]), 164).is_err());
        assert!(read(&write(&[excerpt(300_000, 64)]), 63).is_err());
        assert!(read(&write(&[excerpt(EARLIER_BYTES_MAX as u32 + 1, 64)]), 64).is_err());
        assert!(read(&write(&[excerpt(300_000, 0)]), 64).is_err());
        assert!(read(&[255; EXCERPT_BYTES], u64::MAX).is_err());
        assert!(read(&[0; EXCERPT_BYTES + 1], 64).is_err());
    }
}
