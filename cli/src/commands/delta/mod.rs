//! `form delta`.

mod apply;
mod base;
mod bases;
mod bring;
mod failure;
mod index;
mod info;
mod input_file;
mod interrupt;
mod make;
mod meter;
mod output_file;
mod report;
mod stages;
mod standby;

use clap::Subcommand;

use self::interrupt::Workplace;
use crate::exit::Stop;
use crate::output::Output;

/// Make an image from another one and a small file: deltas of images, without a node
#[derive(Subcommand)]
pub(crate) enum DeltaCommand {
    Index(index::IndexArgs),
    Make(make::MakeArgs),
    Standby(bring::StandbyArgs),
    Apply(apply::ApplyArgs),
    Info(info::InfoArgs),
}

pub(super) async fn run(command: DeltaCommand, output: Output) -> Result<(), Stop> {
    let workplace = Workplace::new();
    let of_work = workplace.clone();
    let work = move || match command {
        DeltaCommand::Index(args) => index::run(args, &of_work, output),
        DeltaCommand::Make(args) => make::run(args, &of_work, output),
        DeltaCommand::Apply(args) => apply::run(args, &of_work, output),
        DeltaCommand::Standby(args) => bring::run(args, &of_work, output),
        DeltaCommand::Info(args) => info::run(args, output),
    };
    interrupt::until_interrupted(work, &workplace, output).await
}
