use std::ops::AddAssign;

/// How much of an image one kind of recipe makes, and what it costs on the wire.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Share {
    /// Chunks of the new image.
    pub chunks: u64,
    /// Bytes of the new image.
    pub image_bytes: u64,
    /// Bytes of records and bodies in frames.
    pub wire_bytes: u64,
}

impl AddAssign for Share {
    fn add_assign(&mut self, other: Share) {
        self.chunks += other.chunks;
        self.image_bytes += other.image_bytes;
        self.wire_bytes += other.wire_bytes;
    }
}

/// An image by kind of recipe.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// The base's bytes at the same place.
    pub keep: Share,
    /// Zeros.
    pub zero: Share,
    /// Chunks that the base has elsewhere.
    pub copy: Share,
    /// New chunks, as they are.
    pub raw: Share,
    /// New chunks, compressed.
    pub zstd: Share,
    /// New chunks, compressed with bytes of the base as prefix.
    pub zstd_prefix: Share,
}

impl Totals {
    /// Each kind with its name, as reports show it.
    pub fn by_kind(&self) -> [(&'static str, Share); 6] {
        [
            ("keep", self.keep),
            ("zero", self.zero),
            ("copy", self.copy),
            ("raw", self.raw),
            ("zstd", self.zstd),
            ("zstd_prefix", self.zstd_prefix),
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
}
