//! An image that a delta is made against, and what is known of it.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use form_delta::{BlockIndex, Extent, FileIdentity, Image, ImageIndex, Manifest, scan, verify_chunks};
use form_node::{ApiError, ErrorCode};
use rustix::fs::OFlags;

use super::failure;
use super::stages::Stages;
use crate::output::Output;

/// Chunks of a base that are read to see whether an index may be believed.
const SAMPLE_CHUNKS: usize = 32;

/// Whether it must be known where the blocks of a base stand.
#[derive(Clone, Copy)]
pub(super) enum Blocks {
    Needed,
    NotNeeded,
}

/// An image with its manifest.
pub(super) struct Base {
    pub(super) opened: OpenImage,
    pub(super) manifest: Manifest,
    /// Where its blocks stand, if that is known; only who makes a delta needs that.
    pub(super) blocks: Option<BlockIndex>,
    /// Whether manifest and blocks are those of an index, which was believed.
    pub(super) from_index: bool,
}

/// `disk.raw.fdx` of `disk.raw`.
pub(super) fn index_path(image: &Path) -> PathBuf {
    let mut path = image.as_os_str().to_owned();
    path.push(".fdx");
    path.into()
}

/// An image, and which file it is.
pub(super) struct OpenImage {
    pub(super) path: PathBuf,
    pub(super) file: File,
    pub(super) identity: FileIdentity,
    pub(super) image: Image,
}

impl OpenImage {
    /// Images hold still while they are read: what was made of one that did not is worth nothing.
    pub(super) fn must_be_as_before(&self) -> Result<(), ApiError> {
        let now = FileIdentity::of(&self.file).map_err(|error| failure::of("read", &self.path, &error))?;
        if now == self.identity {
            return Ok(());
        }
        let message = format!("{} was changed while it was read", self.path.display());
        Err(ApiError::new(ErrorCode::WrongState, message).remedy("see that nobody writes to it, and try again"))
    }
}

/// Opens a file that must be a regular one. Another one is not waited for: whoever opens a pipe waits for its other end.
pub(super) fn open_regular(path: &Path) -> std::io::Result<File> {
    let file = File::options().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "it is no regular file")),
    }
}

/// Opens an image for reading.
pub(super) fn open_image(path: &Path) -> Result<OpenImage, ApiError> {
    opened_image(path, File::open(path).map_err(|error| failure::io("read", path, &error))?)
}

/// The same of a file that is open.
pub(super) fn opened_image(path: &Path, file: File) -> Result<OpenImage, ApiError> {
    let stat = file.metadata().map_err(|error| failure::io("read", path, &error))?;
    if !stat.is_file() {
        return Err(ApiError::new(ErrorCode::BadRequest, format!("{} is no regular file", path.display()))
            .remedy("name an image file; a device can be copied into one"));
    }
    let identity = FileIdentity::of(&file).map_err(|error| failure::of("read", path, &error))?;
    let again = file.try_clone().map_err(|error| failure::io("read", path, &error))?;
    let image = Image::from_file(again).map_err(|error| failure::of("read", path, &error))?;
    Ok(OpenImage { path: path.to_owned(), file, identity, image })
}

impl Base {
    /// Opens a base. What is known of it comes from the index beside it, if there is one that fits; otherwise from reading
    /// all of it.
    pub(super) fn open(path: &Path, blocks: Blocks, stages: &mut Stages, output: Output) -> Result<Self, ApiError> {
        let opened = stages.run("open", || open_image(path))?;
        let known = stages.run("open", || believed_index(&opened)).unwrap_or_else(|why_not| {
            output.note(&format!(
                "{} is not used: {why_not}; {} is read in full (form delta index makes a new one)",
                index_path(path).display(),
                path.display()
            ));
            None
        });
        let (manifest, known_blocks, from_index) = match known {
            Some(index) => (index.manifest, index.blocks, true),
            None => (stages.run("scan", || scan(&opened.image)), None, false),
        };
        let blocks = match (known_blocks, blocks) {
            (None, Blocks::Needed) => {
                let built = stages.run("scan", || BlockIndex::build(&opened.image, manifest.root()));
                Some(built.map_err(|error| failure::of("read", path, &error))?)
            }
            (known, _) => known,
        };
        Ok(Self { opened, manifest, blocks, from_index })
    }
}

/// What the index beside an image says, if there is one; an error is why it does not count.
pub(super) fn believed_index(opened: &OpenImage) -> Result<Option<ImageIndex>, String> {
    let index_file = match open_regular(&index_path(&opened.path)) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let index = ImageIndex::read(index_file).map_err(|error| error.to_string())?;
    if index.identity != opened.identity {
        return Err(format!("{} was changed or replaced since it was made", opened.path.display()));
    }
    sampled(opened, &index.manifest).map_err(|error| error.to_string())?;
    Ok(Some(index))
}

/// Hashes some chunks of an image that is said to be what a manifest describes. Times can lie: a block device written behind
/// the file system's back, a clock that was set back.
pub(super) fn sampled(opened: &OpenImage, manifest: &Manifest) -> form_delta::Result<()> {
    verify_chunks(&opened.file, manifest, &sample(manifest.image_len_bytes())).map(drop)
}

/// Places that whoever damages an image can't foresee.
fn sample(len_bytes: u64) -> Vec<Extent> {
    let mut random = [0; SAMPLE_CHUNKS * 8];
    // Without randomness it is the first chunk: fewer are found out, none wrongly.
    let _ = getrandom::fill(&mut random);
    let (places, _) = random.as_chunks::<8>();
    let places = places.iter().filter_map(|bytes| u64::from_le_bytes(*bytes).checked_rem(len_bytes));
    places.map(|place| Extent::new(place, place + 1)).collect()
}
