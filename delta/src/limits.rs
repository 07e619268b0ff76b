//! Every limit of this crate. A length that comes from outside is held against one of these before anything is allocated.

/// Smallest chunk, except the last one of an image. Pinned in the manifest format.
pub const CHUNK_BYTES_MIN: u32 = 16 << 10;
/// Average chunk that FastCDC aims at. Pinned in the manifest format.
pub const CHUNK_BYTES_AVG: u32 = 64 << 10;
/// Largest chunk. Pinned in the manifest format.
pub const CHUNK_BYTES_MAX: u32 = 256 << 10;

/// Images are compared, and holes are kept, in blocks of this size.
pub const BLOCK_BYTES: u64 = 4 << 10;
/// Zeros inside new data become a hole, and bytes that the base has at the same place are left alone, from this length on. Shorter runs are written through, so
/// that neither the file nor the list of writes falls into crumbs. (Durable on ext4, 4 KiB apart by 12 KiB: written through takes half the time; by 28 KiB as long;
/// by 60 KiB longer.)
pub const RUN_BYTES_MIN: u64 = 16 << 10;

/// Largest image. It also bounds a manifest: at most one chunk for each `CHUNK_BYTES_MIN`.
pub const IMAGE_BYTES_MAX: u64 = 256 << 30;

/// Images that a delta may take bytes from.
pub const BASES_MAX: usize = 16;

/// New bytes of the first frame, before compression. What follows carries twice as much every `FRAMES_BEFORE_DOUBLE` frames, up to `FRAME_CONTENT_BYTES_TARGET`.
pub const FRAME_CONTENT_BYTES_FIRST: u64 = 1 << 20;
/// Frames of the same size before it doubles.
pub const FRAMES_BEFORE_DOUBLE: usize = 2;
/// New bytes of every later frame: they compress together.
pub const FRAME_CONTENT_BYTES_TARGET: u64 = 4 << 20;
/// Most new bytes in a frame, before compression: the target, and one more run of chunks. Also the most that it takes from bases to decode them.
pub const FRAME_CONTENT_BYTES_MAX: u64 = FRAME_CONTENT_BYTES_TARGET + NEW_RUN_BYTES_MAX;
/// How far back a frame may refer to the new bytes of the frames before it. A reader keeps as much, and one frame.
pub const EARLIER_BYTES_MAX: u64 = 64 << 20;
/// Longest list of excerpts in a frame: one of eight bytes for each 64 of its new ones is less.
pub const EXCERPTS_LISTED_BYTES_MAX: u32 = 1 << 20;
/// Longest run of new chunks in one record.
pub const NEW_RUN_BYTES_MAX: u64 = 1 << 20;
/// A frame is closed once its records are as long as this, before compression.
pub const RECORDS_BYTES_TARGET: usize = 256 << 10;
/// Longest records of a frame, before compression: the target, and one more record of the kind that has most parts.
pub const RECORDS_BYTES_MAX: u32 = 512 << 10;
/// Largest frame: content that does not shrink, its records, and room to spare.
pub const FRAME_BYTES_MAX: u32 = 8 << 20;
/// Most frames that one index lists.
pub const FRAMES_MAX: u32 = 1 << 19;

/// Longest encoding of a frame index.
pub const FRAME_INDEX_BYTES_MAX: u64 = 4096 + 36 * FRAMES_MAX as u64;
/// Longest image index: the manifest of the largest image in the smallest chunks, and as much again.
pub const IMAGE_INDEX_BYTES_MAX: u64 = 2 * 36 * (IMAGE_BYTES_MAX / CHUNK_BYTES_MIN as u64);

/// zstd level of a delta with at most `SMALL_DELTA_BYTES` of changed blocks: there is time to look closer.
pub const ZSTD_LEVEL_SMALL: i32 = 9;
/// Where a delta stops being small.
pub const SMALL_DELTA_BYTES: u64 = 8 << 20;
/// zstd level of every other delta.
pub const ZSTD_LEVEL: i32 = 3;
/// zstd level of content that shrinks to less than one part in `REDUNDANT_RATIO`: little of it is left to look at, and looking closer finds more.
pub const ZSTD_LEVEL_REDUNDANT: i32 = 5;
/// See [`ZSTD_LEVEL_REDUNDANT`].
pub const REDUNDANT_RATIO: usize = 8;
/// How much of a frame's content is compressed to see whether it is redundant.
pub const REDUNDANT_SAMPLE_BYTES: usize = 128 << 10;
/// Equal bytes that end a run of edited ones. Fewer cost less as part of the run.
pub const EDIT_GAP_BYTES_MIN: usize = 8;
/// Most bytes of one edit; a longer run is several.
pub const EDIT_BYTES_MAX: u16 = (1 << 15) - 1;
/// Longest edits of a frame, before compression: one of four bytes for each `EDIT_GAP_BYTES_MIN + 1` bytes of content is less.
pub const EDITS_BYTES_MAX: u32 = 4 << 20;
/// How much of a frame's edited blocks is looked at to see whether edits are the shortest way to say them.
pub const EDITS_SAMPLE_BYTES: usize = 256 << 10;

/// Threads that encode frames. Each takes up to some 40 MiB: a frame's content, the bytes before it, and zstd's tables for both.
pub const ENCODE_THREADS_MAX: usize = 4;
/// Frames that are encoded side by side, for each thread; bounds the encoder's memory.
pub const FRAMES_IN_FLIGHT_PER_THREAD: usize = 2;

/// Blocks that a block index lists: the first 16 GiB of a base's data; moved data is found in whole chunks behind that. It bounds the memory that making, reading
/// and writing an index takes: 16 bytes for each block, twice.
pub const BLOCKS_MAX: usize = 4 << 20;

/// Longest single write of a rebuild.
pub const WRITE_BYTES_MAX: usize = 1 << 20;
/// Blocks are allocated before a write into a hole that is at least as long.
pub const PREALLOCATE_BYTES_MIN: u64 = 64 << 10;
/// Writes that the ring keeps in flight. With `WRITE_BYTES_MAX` it bounds the memory of a rebuild.
pub const QUEUE_DEPTH: u32 = 32;

/// Threads that share one piece of work.
pub const THREADS_MAX: usize = 8;
/// How much of two images is in the memory of the process while they are compared, by all threads.
pub const COMPARED_BYTES_MAX: u64 = 64 << 20;
/// What a thread reads of an image at a time. With `THREADS_MAX` it bounds how much of that is in the memory of the process.
pub const SLICE_BYTES: u64 = 4 << 20;
/// Scattered extents are grouped into jobs of about this many bytes, and pages are released once for each: to release any (`madvise`) makes every CPU that runs
/// one of our threads flush its TLB.
pub const JOB_BYTES: u64 = 1 << 20;
/// Longest piece that a thread cuts and hashes without a release.
pub const PIECE_BYTES_MAX: u64 = 8 << 20;
/// Runs of moved blocks that are listed for one `SLICE_BYTES`: with more, hardly a whole chunk lies in one.
pub const MOVED_RUNS_PER_SLICE_MAX: usize = SLICE_BYTES as usize / CHUNK_BYTES_AVG as usize;
/// What a thread reads at a time from a live image: small enough to be compared while it is in the CPU's cache.
pub const LIVE_SLICE_BYTES: u64 = 256 << 10;

/// Most extents that the record of a dirty standby lists; more are joined across the shortest gaps.
pub const STANDBY_EXTENTS_MAX: usize = 1 << 16;
