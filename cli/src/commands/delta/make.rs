use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use form_delta::{DeltaWriter, Encoded, Extent, Image, Manifest, Moved, compare, encode_moved, rechunk_moved};
use form_node::{ApiError, ErrorCode};
use serde_json::json;

use super::base::{Blocks, index_path, open_image};
use super::bases::Bases;
use super::failure;
use super::index::{keep, must_be_an_index};
use super::input_file::is_stream;
use super::interrupt::Workplace;
use super::meter::Meter;
use super::output_file::{OutputFile, must_be_free};
use super::report::{Report, kinds_json};
use super::stages::Stages;
use crate::exit::Stop;
use crate::output::Output;
use crate::units;

/// Bytes that are gathered before they are written.
const WRITE_BYTES: usize = 1 << 20;

/// Write what turns older images into a new one
///
/// The delta names its bases and the new image by hash. What is new goes into it compressed, against what the bases have
/// near by; what they have elsewhere costs a few bytes. Images must not be written to meanwhile. Holes of sparse files are
/// not read. Without --base the whole image goes into the delta.
#[derive(clap::Args)]
pub(crate) struct MakeArgs {
    /// An image that the other end has: first the older state of the same disk or memory, then others that may hold the
    /// same data. IMAGE.fdx beside it, made by form delta index, saves reading all of it
    #[arg(long = "base", value_name = "IMAGE")]
    bases: Vec<PathBuf>,
    /// The new image
    #[arg(long, value_name = "IMAGE")]
    new: PathBuf,
    /// Keep what is now known of the new image beside it, as by form delta index: it is the next base
    #[arg(long)]
    index: bool,
    /// The delta; it must not exist. `-` is stdout: what is said of it goes to stderr then
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub(super) fn run(args: MakeArgs, workplace: &Workplace, output: Output) -> Result<(), Stop> {
    let mut stages = Stages::begin();
    let to_stdout = is_stream(&args.out);
    if !to_stdout {
        must_be_free(&args.out)?;
    } else if io::stdout().is_terminal() {
        return Err(ApiError::new(ErrorCode::BadRequest, "a delta is nothing for a terminal")
            .remedy("send stdout elsewhere, or name a file with --out")
            .into());
    }
    let mut bases = Bases::open(&args.bases, Blocks::Needed, &mut stages, output)?;
    let opened = stages.run("open", || open_image(&args.new))?;
    if args.index {
        must_be_an_index(&index_path(&args.new))?;
    }
    let new = &opened.image;
    let (manifest, changed, moved) =
        manifest(&bases, new, &mut stages).map_err(|error| failure::of("compared", &args.new, &error))?;
    let changed_bytes = changed.iter().map(Extent::len_bytes).sum();
    let failed = |error| failure::of("written", &args.out, &error);
    let written = if to_stdout { None } else { Some(OutputFile::create(&args.out, workplace)?) };
    let out = match &written {
        Some(written) => written.file.try_clone(),
        None => io::stdout().as_fd().try_clone_to_owned().map(File::from),
    };
    let out = out.map_err(|error| failure::io("written", &args.out, &error))?;
    let mut delta = DeltaWriter::new(Timed::buffered(&out)).map_err(failed)?;
    let encoded = encode(&bases, new, (&manifest, &changed, &moved), &mut delta, &mut stages, output);
    let encoded = encoded.map_err(failed)?;
    // Before it has its end: what went to stdout can't be taken back, and is no delta without.
    bases.must_be_as_before()?;
    opened.must_be_as_before()?;
    let (timed, bytes) = delta.finish(&encoded.index).map_err(failed)?;
    let taken = timed.get_ref().taken;
    stages.subtract("encode", taken);
    stages.add("write", taken);
    if let Some(written) = written {
        // Not made durable: a delta names the hash of each frame, so that what a lost host leaves of it is refused, and it is made again.
        stages.run("write", || written.publish())?;
    }
    if args.index {
        let known = (bases.take_blocks(), &changed[..]);
        let read = (&opened.file, Some(opened.identity));
        let kept = stages.run("index", || keep(&args.new, read, &manifest, known, workplace));
        if let Err(error) = &kept {
            output.note(&format!("{} has no index: {error}", args.new.display()));
        }
    }

    let mut report = Report::new()
        .line(
            "delta",
            format!("{}  {} in {}", args.out.display(), units::bytes(bytes), frames(encoded.index.frames.len())),
        )
        .line("new", format!("{}  {}", args.new.display(), units::bytes(new.len_bytes())));
    for base in bases.all() {
        let how = if base.from_index { "known from its index" } else { "read in full" };
        report = report.line(
            "base",
            format!("{}  {}, {how}", base.opened.path.display(), units::bytes(base.opened.image.len_bytes())),
        );
    }
    let share = units::percent(changed_bytes, new.len_bytes());
    let totals = &encoded.totals;
    let report = report.line("changed", format!("{}, {share}", units::bytes(changed_bytes))).kinds(totals);
    let json = json!({
        "delta": args.out.display().to_string(),
        "bytes": bytes,
        "frames": encoded.index.frames.len(),
        "image_bytes": new.len_bytes(),
        "changed_bytes": changed_bytes,
        "root": manifest.root().to_string(),
        "bases": encoded.index.base_roots.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "indexes_used": bases.all().iter().filter(|base| base.from_index).count(),
        "kinds": kinds_json(totals),
        "chunks": manifest.chunks().len(),
        "new_chunks": totals.new_chunks,
    });
    if to_stdout {
        report.show_aside(json, &stages, output);
    } else {
        report.show(json, &stages, output);
    }
    Ok(())
}

fn frames(count: usize) -> String {
    if count == 1 { "1 frame".into() } else { format!("{count} frames") }
}

/// The new image's manifest, where the first base has not the same bytes, and what of that stands elsewhere.
fn manifest(bases: &Bases, new: &Image, stages: &mut Stages) -> form_delta::Result<(Manifest, Vec<Extent>, Moved)> {
    let all = bases.for_encoder();
    let changed = match bases.first() {
        Some(base) => stages.run("compare", || compare(&base.opened.image, new))?,
        None => new.data().to_vec(),
    };
    let moved = stages.run("find", || Moved::find(&all, new, &changed))?;
    let manifest = stages.run("chunk", || rechunk_moved(new, &all, changed.clone(), &moved))?;
    Ok((manifest, changed, moved))
}

fn encode(
    bases: &Bases,
    new: &Image,
    (manifest, changed, moved): (&Manifest, &[Extent], &Moved),
    delta: &mut impl Write,
    stages: &mut Stages,
    output: Output,
) -> form_delta::Result<Encoded> {
    let meter = Meter::new("encoding", output);
    let bases = bases.for_encoder();
    let mut progress = |done, total| meter.show(done, total);
    stages.run("encode", || encode_moved(&bases, new, manifest, (changed, moved), delta, &mut progress))
}

/// A file, and how long its writes took.
struct Timed<'a> {
    file: &'a File,
    taken: Duration,
}

impl<'a> Timed<'a> {
    fn buffered(file: &'a File) -> io::BufWriter<Self> {
        io::BufWriter::with_capacity(WRITE_BYTES, Self { file, taken: Duration::ZERO })
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let begun = Instant::now();
        let count = self.file.write(bytes);
        self.taken += begun.elapsed();
        count
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
