use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use form_delta::ImageIndex;
use form_node::{ApiError, ErrorCode};
use serde_json::json;

use super::base::{index_path, open_image};
use super::failure;
use super::interrupt::Workplace;
use super::output_file::OutputFile;
use super::report::Report;
use super::stages::Stages;
use crate::exit::Stop;
use crate::output::Output;
use crate::units;

/// File systems stamp changes with a clock that ticks every 1 to 10 ms.
const CLOCK_TICK: Duration = Duration::from_millis(20);

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
    wait_for_the_clock(&file);
    let index =
        stages.run("scan", || ImageIndex::build(&file)).map_err(|error| failure::of("indexed", &args.image, &error))?;
    let bytes = index.encode();
    stages.run("write", || {
        let mut written = OutputFile::create(&out, workplace)?;
        written.file.write_all(&bytes).map_err(|error| failure::io("written", &out, &error))?;
        written.sync()?;
        written.replace()
    })?;

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

/// A write in the same tick as the last change would leave the file's times as they are.
fn wait_for_the_clock(file: &File) {
    let Ok(stat) = file.metadata() else { return };
    let changed = Duration::new(u64::try_from(stat.ctime()).unwrap_or(0), stat.ctime_nsec() as u32);
    let age = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().saturating_sub(changed);
    std::thread::sleep(CLOCK_TICK.saturating_sub(age));
}

/// What is there may be replaced only if it is an index, or nothing.
fn must_be_an_index(path: &Path) -> Result<(), ApiError> {
    let Ok(file) = File::open(path) else { return Ok(()) };
    let mut begin = Vec::new();
    let read = file.take(MAGIC.len() as u64).read_to_end(&mut begin);
    read.map_err(|error| failure::io("replaced", path, &error))?;
    if begin.is_empty() || begin == MAGIC {
        return Ok(());
    }
    Err(ApiError::new(ErrorCode::BadRequest, format!("{} exists already, and is no image index", path.display()))
        .remedy("choose another --out"))
}
