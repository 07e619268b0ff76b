use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use form_delta::{BlockIndex, Extent, FileIdentity, Image, ImageIndex, Manifest};
use form_node::{ApiError, ErrorCode};
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;

use super::base::{index_path, open_image, open_regular};
use super::failure;
use super::interrupt::Workplace;
use super::output_file::{OutputFile, must_be_free};
use super::report::Report;
use super::stages::Stages;
use crate::exit::Stop;
use crate::output::Output;
use crate::units;

/// Longest tick of the clock that file systems stamp changes with, and as much again.
const CLOCK_TICK_MS_MAX: u32 = 20;

/// What every image index begins with.
const MAGIC: &[u8] = b"fmII";

/// Read an image once, and keep what is known of it beside it
///
/// `make` and `apply` then need not read the whole base again. The index counts only as long as the image is the same file,
/// unchanged; otherwise it is passed over, with a word on stderr. The image must not be written to meanwhile.
#[derive(clap::Args)]
pub(crate) struct IndexArgs {
    /// The image
    #[arg(value_name = "IMAGE")]
    image: PathBuf,
    /// The index; an older one is replaced [default: IMAGE.fdx, where make and apply look for it]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(super) fn run(args: IndexArgs, workplace: &Workplace, output: Output) -> Result<(), Stop> {
    let mut stages = Stages::begin();
    let out = args.out.unwrap_or_else(|| index_path(&args.image));
    must_be_an_index(&out)?;
    let file = open_image(&args.image)?.file;
    must_be_another_file(&out, &file)?;
    wait_for_the_clock(&file);
    let index =
        stages.run("scan", || ImageIndex::build(&file)).map_err(|error| failure::of("indexed", &args.image, &error))?;
    let bytes = index.encode();
    stages.run("write", || write(&bytes, &out, workplace))?;

    let manifest = &index.manifest;
    let report = Report::new()
        .line("index", format!("{}  {}", out.display(), units::bytes(bytes.len() as u64)))
        .line("image", format!("{}  {}", args.image.display(), units::bytes(manifest.image_len_bytes())))
        .line("root", manifest.root())
        .line("chunks", manifest.chunks().len());
    let json = json!({
        "index": out.display().to_string(),
        "bytes": bytes.len(),
        "image_bytes": manifest.image_len_bytes(),
        "root": manifest.root().to_string(),
        "chunks": manifest.chunks().len(),
    });
    report.show(json, &stages, output);
    Ok(())
}

/// Keeps what is known of an image that was just made of a base, beside it: the next command that has it as a base need not
/// read it. `made` is where it may differ from the base; `blocks` are the base's. If somebody else may write to it, `read` is the
/// file as it was when it was read: of one that was written to since, nothing is kept.
pub(super) fn keep(
    image: &Path,
    (file, read): (&File, Option<FileIdentity>),
    manifest: &Manifest,
    (blocks, made): (Option<BlockIndex>, &[Extent]),
    workplace: &Workplace,
) -> Result<(), ApiError> {
    let out = index_path(image);
    must_be_an_index(&out)?;
    let failed = |error| failure::of("indexed", image, &error);
    let blocks = match blocks {
        Some(blocks) => {
            let again = file.try_clone().map_err(|error| failure::io("indexed", image, &error))?;
            blocks.follow(&Image::from_file(again).map_err(failed)?, manifest.root(), made).map_err(failed)?
        }
        None => None,
    };
    let identity = FileIdentity::of(file).map_err(failed)?;
    if read.is_some_and(|read| read != identity) {
        let message = format!("{} was changed while it was read", image.display());
        return Err(ApiError::new(ErrorCode::WrongState, message).remedy("see that nobody writes to it, and try again"));
    }
    let index = ImageIndex { identity, manifest: manifest.clone(), blocks };
    write(&index.encode(), &out, workplace)?;
    // Until the command ends the image is ours. Whoever writes to it then must leave a trace.
    wait_for_the_clock(file);
    Ok(())
}

/// Not made durable: what a lost host leaves of it does not have its hash.
fn write(index: &[u8], out: &Path, workplace: &Workplace) -> Result<(), ApiError> {
    let mut written = OutputFile::create(out, workplace)?;
    written.file.write_all(index).map_err(|error| failure::io("written", out, &error))?;
    written.replace()
}

/// A write in the same tick as the last change would leave the file's times as they are.
pub(super) fn wait_for_the_clock(file: &File) {
    let Ok(stat) = file.metadata() else { return };
    // File systems stamp changes with this clock, which moves on every 1 to 10 ms.
    let is_later = || {
        let now = clock_gettime(ClockId::RealtimeCoarse);
        (now.tv_sec, now.tv_nsec) > (stat.ctime(), stat.ctime_nsec())
    };
    // A clock that was set back is no reason to wait long.
    for _ in 0..CLOCK_TICK_MS_MAX {
        if is_later() {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// What is there may be replaced only if it is an index, or nothing.
pub(super) fn must_be_an_index(path: &Path) -> Result<(), ApiError> {
    let Ok(file) = open_regular(path) else { return must_be_free(path) };
    let mut begin = Vec::new();
    let read = file.take(MAGIC.len() as u64).read_to_end(&mut begin);
    read.map_err(|error| failure::io("replaced", path, &error))?;
    if begin.is_empty() || begin == MAGIC {
        return Ok(());
    }
    Err(ApiError::new(ErrorCode::BadRequest, format!("{} exists already, and is no image index", path.display()))
        .remedy("remove it, or choose another name"))
}

/// An empty image could be taken for an index that is not written yet.
fn must_be_another_file(out: &Path, image: &File) -> Result<(), ApiError> {
    let same = |stat: std::fs::Metadata| {
        image.metadata().is_ok_and(|image| (image.dev(), image.ino()) == (stat.dev(), stat.ino()))
    };
    if !std::fs::metadata(out).is_ok_and(same) {
        return Ok(());
    }
    Err(ApiError::new(ErrorCode::BadRequest, format!("{} is the image itself", out.display()))
        .remedy("choose another --out"))
}
