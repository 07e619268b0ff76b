use std::ops::AddAssign;

use super::{Frame, PartSource, Record};

/// How much of an image one kind of recipe makes, and what it costs on the wire.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Share {
    /// Bytes of the new image.
    pub image_bytes: u64,
    /// Bytes in frames.
    pub wire_bytes: u64,
}

impl AddAssign for Share {
    fn add_assign(&mut self, other: Share) {
        self.image_bytes += other.image_bytes;
        self.wire_bytes += other.wire_bytes;
    }
}

/// An image by kind of recipe. What the kinds cost adds up to the length of all frames.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Chunks of the new image that no base has.
    pub new_chunks: u64,
    /// The first base's bytes at the same place.
    pub keep: Share,
    /// Zeros.
    pub zero: Share,
    /// Bytes that a base has elsewhere.
    pub copy: Share,
    /// New bytes, as they are.
    pub raw: Share,
    /// New bytes, compressed.
    pub zstd: Share,
    /// New bytes, compressed with bytes of a base as prefix.
    pub zstd_prefix: Share,
    /// Bytes of a base of which a few are other ones now.
    pub edited: Share,
    /// What says which bytes come from where, and the hashes of new chunks.
    pub records: Share,
}

impl Totals {
    /// Each kind with its name, as reports show it.
    pub fn by_kind(&self) -> [(&'static str, Share); 8] {
        [
            ("keep", self.keep),
            ("zero", self.zero),
            ("copy", self.copy),
            ("raw", self.raw),
            ("zstd", self.zstd),
            ("zstd_prefix", self.zstd_prefix),
            ("edited", self.edited),
            ("records", self.records),
        ]
    }

    /// All kinds together.
    pub fn sum(&self) -> Share {
        let mut sum = Share::default();
        for (_, share) in self.by_kind() {
            sum += share;
        }
        sum
    }

    /// Adds a frame.
    pub(crate) fn add(&mut self, frame: &Frame) {
        let mut position = frame.position;
        for record in &frame.records {
            match record {
                Record::Copy { from, len_bytes } if from.is_kept_at(position) => self.keep.image_bytes += len_bytes,
                Record::Copy { len_bytes, .. } => self.copy.image_bytes += len_bytes,
                Record::Zero { .. } => self.zero.image_bytes += record.len_bytes(),
                Record::New { chunks, parts } => {
                    self.new_chunks += chunks.len() as u64;
                    let mut position = position;
                    for part in parts {
                        let share = match part.source {
                            PartSource::Zero => &mut self.zero,
                            PartSource::Copy(place) if place.is_kept_at(position) => &mut self.keep,
                            PartSource::Copy(_) => &mut self.copy,
                            PartSource::Raw => &mut self.raw,
                            PartSource::Plain => &mut self.zstd,
                            PartSource::Patched(_) => &mut self.zstd_prefix,
                            PartSource::Edited(_) => &mut self.edited,
                        };
                        share.image_bytes += u64::from(part.len_bytes);
                        position += u64::from(part.len_bytes);
                    }
                }
            }
            position += record.len_bytes();
        }
        // Both share a stream: by what they would need of it if all compressed alike.
        let coded = frame.coded.len() as u64;
        let content_bytes = (frame.patched_bytes + frame.plain_bytes).max(1);
        let plain_wire = (u128::from(coded) * u128::from(frame.plain_bytes) / u128::from(content_bytes)) as u64;
        self.zstd.wire_bytes += plain_wire;
        self.zstd_prefix.wire_bytes += coded - plain_wire;
        self.edited.wire_bytes += frame.edits_stored_bytes + frame.noise.len() as u64;
        self.raw.wire_bytes += frame.raw.len() as u64;
        self.records.wire_bytes += frame.raw.start as u64 - frame.edits_stored_bytes;
    }
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Totals) {
        self.new_chunks += other.new_chunks;
        self.keep += other.keep;
        self.zero += other.zero;
        self.copy += other.copy;
        self.raw += other.raw;
        self.zstd += other.zstd;
        self.zstd_prefix += other.zstd_prefix;
        self.edited += other.edited;
        self.records += other.records;
    }
}
