//! The bytes of an image index: see FORMAT.md, "Image index".

use std::{fs::File, ops::Range, os::unix::fs::MetadataExt};

use twox_hash::XxHash3_128;

use crate::{
    BlockIndex, Extent, Image, Manifest, Result,
    codec::Reader,
    error::{Error, Object},
    limits::IMAGE_INDEX_BYTES_MAX,
    scan,
};

const MAGIC: [u8; 4] = *b"fmII";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 72;
const CHECKSUM_BYTES: usize = 16;

/// Which file it was, and in which state. A file that was written to, replaced or copied has another one; so has one whose times were set back, because
/// the time of the change itself can't be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileIdentity {
    /// The device that its file system is on.
    pub device: u64,
    /// Its number there.
    pub inode: u64,
    /// Its length.
    pub len_bytes: u64,
    /// When its bytes last changed: seconds (two's complement) and nanoseconds.
    pub modified: (u64, u32),
    /// When anything of it last changed.
    pub changed: (u64, u32),
}

impl FileIdentity {
    /// The identity of an open file.
    pub fn of(file: &File) -> Result<FileIdentity> {
        let stat = file.metadata().map_err(Error::io("stat", Object::Image))?;
        Ok(FileIdentity {
            device: stat.dev(),
            inode: stat.ino(),
            len_bytes: stat.len(),
            modified: (stat.mtime() as u64, stat.mtime_nsec() as u32),
            changed: (stat.ctime() as u64, stat.ctime_nsec() as u32),
        })
    }

    /// Whether both are the same file, in whatever state.
    pub fn same_file(&self, other: &FileIdentity) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

/// What is known of an image, kept in a file beside it, so that the image need not be read again. A hint: it counts only as long as the file's identity is
/// the one recorded.
#[derive(Debug)]
pub struct ImageIndex {
    /// The file that was read.
    pub identity: FileIdentity,
    /// Its chunks.
    pub manifest: Manifest,
    /// Where its blocks stand, if that is known: who only applies deltas needs it not.
    pub blocks: Option<BlockIndex>,
}

impl ImageIndex {
    /// Reads the image in `file`. If the file changes meanwhile, that is an error.
    ///
    /// A write within the same tick of the file system's clock as this call leaves no trace in the file's times: the caller waits until the last change
    /// is some ticks old.
    pub fn build(file: &File) -> Result<ImageIndex> {
        let identity = FileIdentity::of(file)?;
        let image = Image::from_file(file.try_clone().map_err(Error::io("open", Object::Image))?)?;
        let manifest = scan(&image);
        let blocks = Some(BlockIndex::build(&image, manifest.root())?);
        if FileIdentity::of(file)? != identity {
            let reason = "it was written to while it was read".to_owned();
            return Err(Error::Mismatch { object: Object::Image, reason });
        }
        Ok(ImageIndex { identity, manifest, blocks })
    }

    /// The bytes of the file.
    pub fn encode(&self) -> Vec<u8> {
        let manifest = self.manifest.encode();
        let blocks_len = self.blocks.as_ref().map_or(0, BlockIndex::encoded_len);
        // All at once: a block index may be long.
        let mut out = Vec::with_capacity(HEADER_BYTES + manifest.len() + blocks_len + CHECKSUM_BYTES);
        out.extend(MAGIC);
        out.extend(VERSION.to_le_bytes());
        out.extend([0; 2]);
        let identity = &self.identity;
        for number in [identity.device, identity.inode, identity.len_bytes] {
            out.extend(number.to_le_bytes());
        }
        for (seconds, nanoseconds) in [identity.modified, identity.changed] {
            out.extend(seconds.to_le_bytes());
            out.extend(nanoseconds.to_le_bytes());
        }
        out.extend((manifest.len() as u64).to_le_bytes());
        out.extend((blocks_len as u64).to_le_bytes());
        out.extend(manifest);
        if let Some(blocks) = &self.blocks {
            blocks.encode_into(&mut out);
        }
        let checksum = XxHash3_128::oneshot(&out);
        out.extend(checksum.to_le_bytes());
        out
    }

    /// Reads what [`ImageIndex::encode`] wrote; anything else is refused.
    pub fn decode(bytes: &[u8]) -> Result<ImageIndex> {
        let parts = parts(bytes)?;
        let blocks = parts.blocks.map(|range| BlockIndex::decode(bytes.get(range).unwrap_or_default()));
        ImageIndex::of(parts.identity, parts.manifest, blocks.transpose()?)
    }

    /// Reads an index from its file, whose length is held against a limit first. The file is mapped: like an image, it must hold still as long as this value
    /// lives, and a newer one takes its name instead.
    pub fn read(file: File) -> Result<ImageIndex> {
        let object = Object::ImageIndex;
        let len_bytes = file.metadata().map_err(Error::io("stat", object))?.len();
        Reader::new(object, &[], 0).limit("length", len_bytes, IMAGE_INDEX_BYTES_MAX)?;
        let file = Image::from_file(file).map_err(|error| match error {
            Error::Io { operation, source, .. } => Error::Io { operation, object, source },
            other => other,
        })?;
        let parts = parts(file.as_slice())?;
        // The checksum took all of it.
        file.release(Extent::new(0, len_bytes));
        let blocks = parts.blocks.map(|range| BlockIndex::mapped(file, range));
        ImageIndex::of(parts.identity, parts.manifest, blocks.transpose()?)
    }

    fn of(identity: FileIdentity, manifest: Manifest, blocks: Option<BlockIndex>) -> Result<ImageIndex> {
        let is_other = |blocks: &BlockIndex| blocks.root() != manifest.root();
        if manifest.image_len_bytes() != identity.len_bytes || blocks.as_ref().is_some_and(is_other) {
            let reason = "its parts are of different images";
            return Err(Error::damaged(Object::ImageIndex, HEADER_BYTES as u64, reason));
        }
        Ok(ImageIndex { identity, manifest, blocks })
    }
}

/// What stands in an index's bytes.
struct Parts {
    identity: FileIdentity,
    manifest: Manifest,
    /// Where the block index is, if there is one.
    blocks: Option<Range<usize>>,
}

fn parts(bytes: &[u8]) -> Result<Parts> {
    let object = Object::ImageIndex;
    let mut reader = Reader::new(object, bytes, 0);
    reader.opening(MAGIC, VERSION)?;
    let (content, checksum) = bytes.split_last_chunk().ok_or_else(|| reader.damaged("it ends before its checksum"))?;
    if XxHash3_128::oneshot(content) != u128::from_le_bytes(*checksum) {
        return Err(reader.damaged("its checksum is not that of its bytes"));
    }

    let mut reader = Reader::new(object, content, 0);
    reader.opening(MAGIC, VERSION)?;
    if reader.u16()? != 0 {
        return Err(reader.damaged("the reserved field must be zero"));
    }
    let identity = FileIdentity {
        device: reader.u64()?,
        inode: reader.u64()?,
        len_bytes: reader.u64()?,
        modified: (reader.u64()?, reader.u32()?),
        changed: (reader.u64()?, reader.u32()?),
    };
    let (manifest_len, blocks_len) = (reader.u64()?, reader.u64()?);
    let parts = content.get(HEADER_BYTES..).unwrap_or_default();
    let manifest_len = usize::try_from(manifest_len).ok();
    let (manifest, blocks) = manifest_len
        .and_then(|len| parts.split_at_checked(len))
        .filter(|(_, blocks)| blocks.len() as u64 == blocks_len)
        .ok_or_else(|| reader.damaged("its parts are not as long as it says"))?;
    let blocks_at = HEADER_BYTES + manifest.len();
    let blocks = (!blocks.is_empty()).then_some(blocks_at..content.len());
    Ok(Parts { identity, manifest: Manifest::decode(manifest)?, blocks })
}
