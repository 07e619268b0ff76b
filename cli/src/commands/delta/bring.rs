use std::fs::{canonicalize, remove_file};
use std::path::PathBuf;

use form_node::{ApiError, ErrorCode};
use serde_json::json;

use super::base::{Base, Blocks, believed_index, index_path};
use super::failure;
use super::index::wait_for_the_clock;
use super::interrupt::{Workplace, left_dirty};
use super::report::Report;
use super::stages::Stages;
use super::standby::opened_standby;
use crate::exit::Stop;
use crate::output::Output;
use crate::units;

/// Make a copy of an image, or bring one up to it, for apply to change
///
/// Do this in the background after each update: the image of before becomes the standby image of the next one. Only what
/// changed since is copied, if the image of before has its index. IMAGE.record beside it says what it is then, for as
/// long as nobody writes to it. A file that is neither a standby image, nor known by its index, nor equal to the base is refused.
#[derive(clap::Args)]
pub(crate) struct StandbyArgs {
    /// The image that the next delta will be made against
    #[arg(long, value_name = "IMAGE")]
    base: PathBuf,
    /// The copy; it is made if it is not there
    #[arg(value_name = "IMAGE")]
    standby: PathBuf,
}

pub(super) fn run(args: StandbyArgs, workplace: &Workplace, output: Output) -> Result<(), Stop> {
    let mut stages = Stages::begin();
    let base = Base::open(&args.base, Blocks::NotNeeded, &mut stages, output)?;
    // What apply looks for lies beside the file, and not beside a link to it.
    let is_there = args.standby.symlink_metadata().is_ok();
    let path = match canonicalize(&args.standby) {
        Err(error) if is_there => return Err(failure::io("brought up", &args.standby, &error).into()),
        resolved => resolved.unwrap_or(args.standby),
    };
    let failed = |error| failure::of("brought up", &path, &error);
    let mut standby = form_delta::Standby::open(&path).map_err(failed)?;
    let opened = opened_standby(&path, &standby, std::slice::from_ref(&base))?;
    let is_new = opened.image.len_bytes() == 0;
    let older = believed_index(&opened).ok().flatten().map(|index| index.manifest);
    // Nothing is mapped that is written to.
    drop(opened);
    if standby.near().is_none() {
        match &older {
            Some(older) => standby.know(older.root()).map_err(failed)?,
            None if is_new => {}
            None => {
                let equal = || standby.equals(&base.opened.image, &base.opened.file, &base.manifest);
                if !stages.run("compare", equal).map_err(failed)? {
                    return Err(ApiError::new(ErrorCode::WrongState, format!("{} is another file", path.display()))
                        .cause("it is no standby image, has no index, and does not equal the base")
                        .remedy("remove it, or choose another name; it was not touched")
                        .into());
                }
            }
        }
    }
    let older = older.filter(|older| standby.near() == Some(older.root()));
    workplace.begin_changing(&path).map_err(|error| failure::io("brought up", &path, &error))?;
    let bring = || standby.bring_to(&base.opened.file, &base.manifest, older.as_ref(), &|| true);
    let moved = match stages.run("copy", bring) {
        Ok(moved) => moved,
        Err(error) => {
            let error = failed(error);
            if !is_there {
                // It was made for this, and is of no use.
                let _ = standby.remove();
                return Err(error.into());
            }
            return Err(left_dirty(error, &path).into());
        }
    };
    workplace.publish(|| Ok(())).map_err(|error| failure::io("brought up", &path, &error))?;
    base.opened.must_be_as_before()?;
    // It is of what the file was.
    let _ = remove_file(index_path(&path));
    wait_for_the_clock(standby.file());

    let report = Report::new()
        .line("standby", format!("{}  {}", path.display(), units::bytes(base.manifest.image_len_bytes())))
        .line("root", base.manifest.root())
        .line("copied", units::bytes(moved.bytes_written));
    let json = json!({
        "standby": path.display().to_string(),
        "image_bytes": base.manifest.image_len_bytes(),
        "root": base.manifest.root().to_string(),
        "bytes_read": moved.bytes_read,
        "bytes_written": moved.bytes_written,
    });
    report.show(json, &stages, output);
    Ok(())
}
