use std::fs::File;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use form_delta::{
    Applied, CloneKind, Engine, ErrorKind, Plan, Spool, clone_file, open_delta, verify_chunks, verify_image,
};
use form_node::{ApiError, ErrorCode};
use serde_json::json;

use super::base::Blocks;
use super::bases::Bases;
use super::failure;
use super::index::keep;
use super::input_file::open_input;
use super::interrupt::{Workplace, left_dirty};
use super::meter::Meter;
use super::output_file::{OutputFile, must_be_free, sync_directory};
use super::report::{Report, kinds_json};
use super::stages::Stages;
use super::standby::{Standby, Trusted};
use crate::exit::Stop;
use crate::output::Output;
use crate::units;

/// Make the new image from its bases and a delta
///
/// Other bases than those that the delta names are refused, a damaged delta too, and whatever fails, no output is left.
/// Where the file system shares blocks (XFS, btrfs) the base is not copied; elsewhere --standby saves the copy. What is known
/// of the new image is kept beside it, as by form delta index: the next command need not read it.
#[derive(clap::Args)]
pub(crate) struct ApplyArgs {
    /// An image that the delta was made against, in any order. IMAGE.fdx beside it, made by form delta index, saves reading
    /// all of it
    #[arg(long = "base", value_name = "IMAGE")]
    bases: Vec<PathBuf>,
    /// The delta; `-` is stdin
    #[arg(long, value_name = "FILE")]
    delta: PathBuf,
    /// The new image; it must not exist
    #[arg(long, value_name = "IMAGE")]
    out: PathBuf,
    /// A copy of the first base, on the same file system as --out: it is updated in place and renamed. One that was made by
    /// form delta standby is known to be a copy, any other one is compared. If it fails half way, the next try begins with
    /// undoing that
    #[arg(long, value_name = "IMAGE")]
    standby: Option<PathBuf>,
    /// What is read back and checked in the end: the chunks that are new, or all
    #[arg(long, value_enum, default_value_t = Verify::New)]
    verify: Verify,
    /// How the new image is written
    #[arg(long, value_enum, default_value_t = EngineChoice::Auto)]
    engine: EngineChoice,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Verify {
    /// Each chunk that was made, from the delta or from elsewhere in a base. A base with an index is believed after a sample
    New,
    /// Every byte of the new image
    Full,
}

#[derive(Clone, Copy, ValueEnum)]
enum EngineChoice {
    /// io_uring where it works
    Auto,
    /// Many writes at a time
    #[value(name = "io_uring")]
    IoUring,
    /// One write after the other
    Pwrite,
}

/// What became of the new image's first bytes.
struct Made {
    applied: Applied,
    /// How the base's bytes came to be there.
    start: &'static str,
    copied_bytes: u64,
    /// How it is known that they are, of a standby image.
    trusted: Option<Trusted>,
    file: File,
}

pub(super) fn run(args: ApplyArgs, workplace: &Workplace, output: Output) -> Result<(), Stop> {
    let mut stages = Stages::begin();
    let delta = &args.delta;
    must_be_free(&args.out)?;
    let file = stages.run("open", || open_input(delta, &args.out))?;
    let bytes = file.metadata().map_err(|error| failure::io("read", delta, &error))?.len();
    let spool =
        stages.run("open", || open_delta(file)).map_err(|error| failure::of_delta("applied", delta, None, &error))?;
    let opened = Bases::open(&args.bases, Blocks::NotNeeded, &mut stages, output)?;
    let mut bases = opened.in_order_of(spool.index(), delta)?;
    let blocks = bases.take_blocks();
    let plan = stages
        .run("plan", || bases.plan(&spool))
        .map_err(|error| failure::of_delta("applied", delta, Some(&spool), &error))?;

    let work = Work { args: &args, spool: &spool, bases: &bases, plan: &plan, output };
    let made = match &args.standby {
        None => work.on_a_copy(workplace, &mut stages)?,
        Some(standby) => work.on_standby(standby, workplace, &mut stages)?,
    };
    if let Some(reason) = &made.applied.fell_back {
        output.note(&format!("io_uring was not used: {reason}"));
    }
    let known = (blocks, plan.made());
    let kept = stages.run("index", || keep(&args.out, (&made.file, None), plan.manifest(), known, workplace));
    if let Err(error) = &kept {
        output.note(&format!("{} has no index: {error}", args.out.display()));
    }
    work.report(bytes, &made, &stages);
    Ok(())
}

/// Why no new image was made.
enum Wrong {
    /// Its bytes came out wrong, and the delta and the bases are sound.
    Content(ApiError),
    Other(ApiError),
}

impl From<ApiError> for Wrong {
    fn from(error: ApiError) -> Self {
        Self::Other(error)
    }
}

impl From<Wrong> for ApiError {
    fn from(wrong: Wrong) -> Self {
        let (Wrong::Content(error) | Wrong::Other(error)) = wrong;
        error
    }
}

struct Work<'a> {
    args: &'a ApplyArgs,
    spool: &'a Spool,
    bases: &'a Bases,
    plan: &'a Plan,
    output: Output,
}

impl Work<'_> {
    fn on_a_copy(&self, workplace: &Workplace, stages: &mut Stages) -> Result<Made, ApiError> {
        let out = OutputFile::create(&self.args.out, workplace)?;
        let (start, copied_bytes) = match self.bases.first() {
            None => ("empty", 0),
            Some(base) => {
                let cloned = stages.run("copy", || clone_file(&base.opened.file, &out.file));
                match cloned.map_err(|error| failure::of("made", &self.args.out, &error))? {
                    CloneKind::Reflink => ("reflink", 0),
                    CloneKind::Copy { bytes } => ("copy", bytes),
                }
            }
        };
        let applied = self.write(&out.file, &self.args.out, stages).map_err(ApiError::from)?;
        let file = out.file.try_clone().map_err(|error| failure::io("made", &self.args.out, &error))?;
        stages.run("publish", || {
            // The bytes are durable already.
            out.publish()?;
            sync_directory(&self.args.out)
        })?;
        Ok(Made { applied, start, copied_bytes, trusted: None, file })
    }

    fn on_standby(&self, path: &Path, workplace: &Workplace, stages: &mut Stages) -> Result<Made, ApiError> {
        let Some(base) = self.bases.first() else {
            return Err(ApiError::new(ErrorCode::BadRequest, "the delta has no base, so there can't be a copy of it")
                .remedy("leave out --standby"));
        };
        let mut standby = Standby::open(path, base, self.bases.all(), &self.args.out, stages)?;
        stages.run("record", || standby.begin_changing(base, self.plan, workplace))?;
        let made = || {
            let applied = self.write(standby.file(), path, stages).map_err(|error| match error {
                Wrong::Content(_) if standby.trusted == Trusted::Record => standby.is_no_copy(base),
                error => error.into(),
            })?;
            let file = standby.file().try_clone().map_err(|error| failure::io("made", &self.args.out, &error))?;
            let trusted = Some(standby.trusted);
            stages.run("publish", || standby.publish(&self.args.out, workplace))?;
            Ok(Made { applied, start: "standby", copied_bytes: 0, trusted, file })
        };
        made().map_err(|error| left_dirty(error, path))
    }

    /// Makes the file the new image, and checks it.
    fn write(&self, file: &File, path: &Path, stages: &mut Stages) -> Result<Applied, Wrong> {
        let (engine, fell_back) = match self.args.engine {
            EngineChoice::Auto => Engine::probe(),
            EngineChoice::IoUring => (Engine::Uring, None),
            EngineChoice::Pwrite => (Engine::Pwrite, None),
        };
        let meter = Meter::new("writing", self.output);
        let mut progress = |done, total| meter.show(done, total);
        let mut applied = stages
            .run("apply", || self.bases.apply(self.plan, self.spool, file, engine, &mut progress))
            .map_err(|error| self.why(path, &error))?;
        applied.fell_back = applied.fell_back.or(fell_back);
        let verified = stages.run("verify", || match self.args.verify {
            Verify::New => verify_chunks(file, self.plan.manifest(), self.plan.made()).map(drop),
            Verify::Full => verify_image(file, self.plan.manifest()),
        });
        verified.map_err(|error| self.why(path, &error))?;
        self.bases.must_be_as_before()?;
        Ok(applied)
    }

    /// All frames were sound when the plan was made: if bytes are wrong now, a base is not what its index says of it.
    fn why(&self, path: &Path, error: &form_delta::Error) -> Wrong {
        if error.kind() == ErrorKind::Corrupt {
            for base in self.bases.all().iter().filter(|base| base.from_index) {
                if let Err(error) = verify_image(&base.opened.file, &base.manifest) {
                    let base = base.opened.path.display();
                    let message = format!("{base} is not what its index says");
                    let remedy = "bring the base back, or remove its index to see what the base is now";
                    return ApiError::new(ErrorCode::WrongState, message).cause(error).remedy(remedy).into();
                }
            }
            return Wrong::Content(failure::of_delta("made", path, Some(self.spool), error));
        }
        failure::of("made", path, error).into()
    }

    fn report(&self, bytes: u64, made: &Made, stages: &Stages) {
        let Made { applied, start, copied_bytes, trusted, .. } = made;
        let (manifest, totals) = (self.plan.manifest(), self.plan.totals());
        let out = self.args.out.display();
        let verified = if self.args.verify == Verify::Full { "full" } else { "new" };
        let writes = format!(
            "{} in {} by {}, {} punched",
            units::bytes(applied.bytes_written),
            count(applied.writes, "write"),
            applied.engine,
            count(applied.holes_punched, "hole")
        );
        let started = match *start {
            "copy" => format!("a copy of the base, {}", units::bytes(*copied_bytes)),
            "reflink" => "a copy of the base that shares its blocks".into(),
            "standby" if *trusted == Some(Trusted::Record) => "the standby image, known to be the base".into(),
            "standby" => "the standby image, compared with the base".into(),
            _ => "nothing".into(),
        };
        let report = Report::new()
            .line("new", format!("{out}  {}", units::bytes(manifest.image_len_bytes())))
            .line("root", manifest.root())
            .line("delta", format!("{}  {}", self.args.delta.display(), units::bytes(bytes)))
            .line("from", started)
            .line("written", writes)
            .kinds(&totals);
        let json = json!({
            "output": self.args.out.display().to_string(),
            "bytes": bytes,
            "image_bytes": manifest.image_len_bytes(),
            "root": manifest.root().to_string(),
            "start": start,
            "copied_bytes": copied_bytes,
            "standby_known": trusted.map(|trusted| trusted == Trusted::Record),
            "bytes_written": applied.bytes_written,
            "writes": applied.writes,
            "holes_punched": applied.holes_punched,
            "fsyncs": applied.fsyncs,
            "engine": applied.engine.to_string(),
            "verified": verified,
            "indexes_used": self.bases.all().iter().filter(|base| base.from_index).count(),
            "kinds": kinds_json(&totals),
            "chunks": manifest.chunks().len(),
            "new_chunks": totals.new_chunks,
        });
        report.show(json, stages, self.output);
    }
}

fn count(number: u64, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}
